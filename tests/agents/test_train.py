from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lamp import lamp_settings, make_lamp, make_lamp_data, train_lamp
from stable_baselines3 import PPO
from torch import nn

from rlprune.agents import KeepRatioVecEnv, callbacks
from rlprune.agents.callbacks import ResumeCheckpointCallback
from rlprune.agents.settings import PolicySettings
from rlprune.agents.train import train_policy
from rlprune.agents.warm_start import CHECKPOINT
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.errors import InUseError, NotFiniteError, RLPruneError
from rlprune.policies.policy import Policy
from rlprune.profiles.cost import Cost, mlp_cost
from rlprune.storage.policies import load_policy
from rlprune.utils.finite import not_finite_in

SHORT: dict[str, Any] = {"total_steps": 1024, "validate_every": 512}
TESTS = Path(__file__).parents[1] / "support"


class Interrupted(Exception):
    pass


def interrupt_at_the_first_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    save = ResumeCheckpointCallback.save

    def interrupting(self: ResumeCheckpointCallback) -> None:
        save(self)
        raise Interrupted

    monkeypatch.setattr(ResumeCheckpointCallback, "save", interrupting)


def shares(policy: Policy) -> tuple[float, float, float, float]:
    """Multiply-adds of the narrow and the whole profile, the stem and the policy, over the dense network's."""
    network = make_lamp()
    cost = Cost(network)
    narrow, whole = cost.of(torch.tensor([[0], [1]])).macs
    amounts = (narrow, whole, cost.stem.macs, mlp_cost(policy.network).macs)
    return tuple(float(amount / cost.dense.macs) for amount in amounts)  # type: ignore[return-value]


def reward(folder: Path) -> float:
    """Of the last validation sweep."""
    return float(load_policy(folder / "policy").metadata["validation"]["reward"])


def same(one: Policy, other: Policy) -> bool:
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


def test_each_profile_of_this_world_is_right_where_the_other_is_wrong() -> None:
    network, data = make_lamp(), make_lamp_data(6)
    for level, right in ((0, [True, False] * 3), (1, [False, True] * 3)):
        predicted = network(data.normalised(), network.uniform(level)).argmax(1)
        assert (predicted == data.labels).tolist() == right


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_which_profile_an_image_needs(tmp_path: Path, seed: int) -> None:
    settings = lamp_settings(max_passes=1, pool=1, seed=seed)
    policy = train_lamp(tmp_path, settings)
    narrow, whole, _, decision = shares(policy)
    best_static = 0.5 - settings.penalty * (narrow + decision)
    optimum = 1 - settings.penalty * ((narrow + whole) / 2 + decision)
    assert reward(tmp_path) - best_static >= 0.9 * (optimum - best_static)
    assert reward(tmp_path) <= optimum + 1e-5


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_when_to_look_twice_from_what_the_first_pass_believed(tmp_path: Path, seed: int) -> None:
    settings = lamp_settings(max_passes=2, pool=0, seed=seed)  # pool=0: the image itself is not shown
    policy = train_lamp(tmp_path, settings)
    narrow, whole, stem, decision = shares(policy)
    best_static = 0.5 - settings.penalty * (narrow + 2 * decision)
    optimum = 1 - settings.penalty * (narrow + 2 * decision + (whole - stem) / 2)
    assert reward(tmp_path) - best_static >= 0.9 * (optimum - best_static)
    assert reward(tmp_path) <= optimum + 1e-5


@pytest.mark.parametrize("wrong", [{"gamma": float("nan")}, {"policy_kwargs": {"log_std_init": float("inf")}}])
def test_arguments_of_ppo_that_are_not_finite_are_refused_at_once(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(RLPruneError, match=r"ppo has a number that is not finite: .*(nan|inf)\S*; give finite ones"):
        train_lamp(tmp_path, lamp_settings(), ppo=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_nan_logits_is_refused_before_training(tmp_path: Path) -> None:
    network, data = make_lamp(), make_lamp_data(16)
    with torch.no_grad():
        network.body.get_submodule("linear").weight[0] = float("nan")
    with pytest.raises(NotFiniteError, match="logits are not finite in float32; look for NaN in the weights"):
        train_policy(network, data, data, tmp_path, lamp_settings(), progress=False)
    assert not (tmp_path / "policy").exists() and not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("after", [0, 1024])
def test_a_policy_loss_that_is_not_finite_stops_training(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = PPO.train

    def spoilt(self: PPO) -> None:
        if self.num_timesteps > after:
            self.ent_coef = float("nan")
        train(self)

    monkeypatch.setattr(PPO, "train", spoilt)
    message = r"the policy's loss is not finite, after \d+ steps; .*the last checkpoint, if there is one, stays"
    with pytest.raises(NotFiniteError, match=message):
        train_lamp(tmp_path, lamp_settings(**SHORT | {"total_steps": 4096}))
    assert (tmp_path / CHECKPOINT).exists() is (after > 0)
    if after:
        assert not_finite_in(PPO.load(tmp_path / CHECKPOINT).policy) is None


def test_what_resumes_compares_with_what_the_checkpoint_itself_says(tmp_path: Path) -> None:
    settings = lamp_settings(penalty=0.2, **SHORT)
    train_lamp(tmp_path, settings)
    notes = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(notes | {"penalty": 0.1}))  # another job's
    with pytest.raises(RLPruneError, match=r"penalty: 0\.2, now 0\.1"):
        train_lamp(tmp_path, replace(settings, penalty=0.1), resume=True)
    train_lamp(tmp_path, settings, resume=True)


def test_a_folder_in_which_another_process_trains_is_left_alone(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from rlprune.utils.locks import hold
with hold(Path({str(tmp_path)!r}), inside=True):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InUseError, match=f"is in use by process {other.pid} on"):
            train_lamp(tmp_path, lamp_settings(**SHORT))
        other.kill()
    assert not (tmp_path / "settings.json").exists()


@pytest.mark.parametrize("combine", [0.0, 0.5])
def test_what_it_learnt_is_what_is_deployed(tmp_path: Path, combine: float) -> None:
    settings, data = lamp_settings(max_passes=2, combine=combine, pool=0), make_lamp_data(16)
    policy = train_lamp(tmp_path, settings)
    assert policy.observer.combine == combine
    predicted = DynamicCNN(make_lamp(), policy, data.mean, data.std, data.classes)(data.images)
    assert torch.equal(predicted.labels, data.labels)
    assert predicted.profiles.tolist() == [[0, -1], [0, 1]] * 8


def test_one_policy_learns_every_penalty_of_a_range(tmp_path: Path) -> None:
    settings, data = (
        lamp_settings(max_passes=2, pool=0, penalty_range=(0.1, 4.0), total_steps=20480),
        make_lamp_data(16),
    )
    dynamic = DynamicCNN(make_lamp(), train_lamp(tmp_path, settings), data.mean, data.std, data.classes)
    assert torch.equal(dynamic(data.images, penalty=0.1).labels, data.labels)
    assert dynamic(data.images, penalty=0.1).profiles.tolist() == [[0, -1], [0, 1]] * 8
    assert dynamic(data.images, penalty=4.0).profiles.tolist() == [[0, -1]] * 16
    for penalty, share in dynamic.source_policy.budgets.tolist()[:: len(dynamic.source_policy.budgets) - 1]:
        macs = dynamic(data.images, penalty=penalty).macs.double().mean()
        assert float(macs / dynamic.prices.dense.macs) == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize("action", ["profiles", "levels", "ratios"])
def test_the_same_seed_gives_the_same_policy_and_another_another(tmp_path: Path, action: Any) -> None:
    first, again, other = (
        train_lamp(tmp_path / str(run), lamp_settings(action=action, seed=seed, **SHORT))
        for run, seed in enumerate((0, 0, 1))
    )
    assert same(first, again)
    assert not torch.equal(first.network[0].weight, other.network[0].weight)


def test_a_higher_price_buys_less(tmp_path: Path) -> None:
    cheap = train_lamp(tmp_path, lamp_settings(max_passes=1, pool=1, penalty=5.0))
    data = make_lamp_data(16)
    predicted = DynamicCNN(make_lamp(), cheap, data.mean, data.std, data.classes)(data.images)
    assert predicted.profiles.unique().tolist() == [0]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = lamp_settings(max_passes=1, pool=1, validate_every=2048)
    interrupt_at_the_first_checkpoint(monkeypatch)
    with pytest.raises(Interrupted):
        train_lamp(tmp_path, settings)
    monkeypatch.undo()
    assert PPO.load(tmp_path / "checkpoint.zip").num_timesteps == 2048
    policy = train_lamp(tmp_path, settings, resume=True)
    assert PPO.load(tmp_path / "checkpoint.zip").num_timesteps == settings.total_steps
    assert load_policy(tmp_path / "policy").metadata["steps"] == settings.total_steps
    assert same(train_lamp(tmp_path, settings, resume=True), policy)  # over: nothing more is learnt


def test_a_run_from_before_there_were_ranges_goes_on(tmp_path: Path) -> None:
    settings = lamp_settings(**SHORT)
    policy, notes = train_lamp(tmp_path, settings), tmp_path / "settings.json"
    kept = json.loads(notes.read_text())
    del kept["penalty_range"]
    notes.write_text(json.dumps(kept))
    assert same(train_lamp(tmp_path, settings, resume=True), policy)


def test_resuming_what_never_began_begins_it(tmp_path: Path) -> None:
    settings = lamp_settings(**SHORT)
    assert same(train_lamp(tmp_path / "a", settings, resume=True), train_lamp(tmp_path / "b", settings))


def test_a_run_is_neither_overwritten_nor_resumed_under_other_settings(tmp_path: Path) -> None:
    train_lamp(tmp_path, lamp_settings(**SHORT))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RLPruneError, match=r"checkpoint\.zip is from an earlier run; resume it, or name another"):
        train_lamp(tmp_path, lamp_settings(**SHORT))
    with pytest.raises(RLPruneError, match=r"other settings \(penalty: 0\.2, now 0\.4; seed: 0, now 1\); go back to"):
        train_lamp(tmp_path, lamp_settings(penalty=0.4, seed=1, **SHORT), resume=True)
    with pytest.raises(RLPruneError, match=r"""made under other settings \(ppo: '{}', now "{'clip_range': 0\.1}"\)"""):
        train_lamp(tmp_path, lamp_settings(**SHORT), resume=True, ppo={"clip_range": 0.1})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_is_not_resumed_with_another_network_other_images_or_another_codebook(tmp_path: Path) -> None:
    settings, codebook, data = lamp_settings(**SHORT), torch.tensor([[0], [1]]), make_lamp_data(64)
    train_lamp(tmp_path, settings, codebook=codebook)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = make_lamp()
    other.body.get_submodule("linear").weight.data *= 2
    for network, images, book in (
        (other, data, codebook),
        (make_lamp(), make_lamp_data(32), codebook),
        (make_lamp(), data, torch.tensor([[1]])),
        (make_lamp(), data, torch.tensor([[0]])),
    ):
        with pytest.raises(RLPruneError, match=r"checkpoint\.zip was trained on another network, other images or ano"):
            train_policy(network, images, images, tmp_path, settings, codebook=book, resume=True, progress=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    train_policy(make_lamp(), data, data, tmp_path, settings, codebook=codebook, resume=True, progress=False)


def test_a_run_of_an_earlier_version_goes_on_with_other_images_than_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reset, drawn = KeepRatioVecEnv.reset, []

    def noting(self: KeepRatioVecEnv) -> Any:
        observations = reset(self)
        drawn.append([info["image"] for info in self.reset_infos])
        return observations

    interrupt_at_the_first_checkpoint(monkeypatch)
    monkeypatch.setattr(KeepRatioVecEnv, "reset", noting)
    monkeypatch.setattr(callbacks, "keep_state", lambda agent: None)  # checkpoints of then had none
    settings = lamp_settings(**SHORT)
    for folder in ("a", "b"):
        for resume in (False, True):
            with pytest.raises(Interrupted):
                train_lamp(tmp_path / folder, settings, resume=resume)
    start, resumed, *again = drawn
    assert again == [start, resumed]  # by the seed
    assert sum(one == other for one, other in zip(start, resumed, strict=True)) < 16  # of 64; 1 is expected
    assert capsys.readouterr().out.count("is of an earlier rlprune: the run goes on, but not exactly as") == 2


def test_a_run_may_start_from_what_another_learnt(tmp_path: Path) -> None:
    higher = train_lamp(tmp_path / "higher", lamp_settings(**SHORT, penalty=0.4))
    still = lamp_settings(**SHORT, penalty=0.1, learning_rate=1e-12)
    assert not same(train_lamp(tmp_path / "alone", still), higher)
    begun = train_lamp(tmp_path / "begun", still, start=tmp_path / "higher")
    for name, value in begun.network.state_dict().items():
        torch.testing.assert_close(value, higher.network.state_dict()[name])


def test_runs_that_start_alike_go_on_by_their_own_seeds(tmp_path: Path) -> None:
    train_lamp(tmp_path / "first", lamp_settings(**SHORT))
    policies = [
        train_lamp(tmp_path / name, lamp_settings(**SHORT, seed=seed), start=tmp_path / "first")
        for name, seed in (("one", 1), ("again", 1), ("two", 2))
    ]
    assert same(policies[0], policies[1]) and not same(policies[0], policies[2])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (None, r"no run can start from .*run \(FileNotFoundError"),
        ({"hidden": (12,)}, r"the run in .* has hidden=\[12\]; a run that starts from it must have the same"),
        ({"max_passes": 1}, r"the run in .* has max_passes=1"),
    ],
)
def test_a_run_cannot_start_from_what_is_not_there_or_sees_other_things(
    tmp_path: Path, changed: dict[str, Any] | None, message: str
) -> None:
    if changed is not None:
        train_lamp(tmp_path / "run", lamp_settings(**SHORT, **changed))
    with pytest.raises(RLPruneError, match=message):
        train_lamp(tmp_path / "new", lamp_settings(**SHORT), start=tmp_path / "run")
    assert not list(tmp_path.glob("new/*"))


def test_a_run_cannot_start_from_another_codebook_or_a_damaged_one(tmp_path: Path) -> None:
    train_lamp(tmp_path / "run", lamp_settings(**SHORT))
    with pytest.raises(RLPruneError, match=r"the run in .* has another codebook"):
        train_lamp(tmp_path / "new", lamp_settings(**SHORT), start=tmp_path / "run", codebook=torch.tensor([[0]]))
    (tmp_path / "run" / "checkpoint.zip").write_bytes(b"zip")
    with pytest.raises(RLPruneError, match=r"no run can start from .*run \("):
        train_lamp(tmp_path / "new", lamp_settings(**SHORT), start=tmp_path / "run")


def test_a_run_is_resumed_from_where_it_started(tmp_path: Path) -> None:
    settings = lamp_settings(**SHORT)
    train_lamp(tmp_path / "first", settings)
    train_lamp(tmp_path / "run", settings, start=tmp_path / "first")
    with pytest.raises(RLPruneError, match="or from another start"):
        train_lamp(tmp_path / "run", settings, resume=True)
    train_lamp(tmp_path / "run", settings, start=tmp_path / "first", resume=True)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train_lamp(tmp_path, lamp_settings(**SHORT))
    (tmp_path / "checkpoint.zip").write_bytes(b"PK")
    with pytest.raises(RLPruneError, match=r"checkpoint\.zip cannot be resumed \(.*\); remove it to start anew"):
        train_lamp(tmp_path, lamp_settings(**SHORT), resume=True)


def test_arguments_of_ppo_go_before_the_settings(tmp_path: Path) -> None:
    ppo = {"clip_range": 0.07, "gae_lambda": 0.5, "n_epochs": 2, "policy_kwargs": {"activation_fn": nn.ReLU}}
    policy = train_lamp(tmp_path, lamp_settings(n_epochs=3, **SHORT), ppo=ppo)
    agent = PPO.load(tmp_path / "checkpoint.zip")
    assert (agent.clip_range(1.0), agent.gae_lambda, agent.n_epochs, agent.gamma) == (0.07, 0.5, 2, 1.0)
    assert policy.activation == "ReLU" and policy.sizes[1:-1] == (16,)
    assert json.loads((tmp_path / "settings.json").read_text())["ppo"] == repr(ppo)


@pytest.mark.parametrize(
    ("ppo", "message"),
    [
        ({"clip": 0.1}, "PPO has no argument 'clip'; allowed: learning_rate, .*clip_range"),
        ({"env": None}, "PPO has no argument 'env'; allowed: learning_rate"),
        ({"clip_range": "wide"}, r"PPO does not take {'clip_range': 'wide'}: "),
        ({"policy_kwargs": {"net_arch": [8]}}, "ppo has a net_arch; give the widths as hidden"),
    ],
)
def test_arguments_that_ppo_does_not_have_are_named(tmp_path: Path, ppo: Any, message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        train_lamp(tmp_path, lamp_settings(**SHORT), ppo=ppo)
    assert not (tmp_path / "settings.json").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"total_steps": 0}, "total_steps=0: give a whole number of 1 or more"),
        ({"n_envs": 0}, "n_envs=0: give a whole number of 1 or more"),
        (
            {"batch_size": 100},
            r"batch_size=100, n_envs=256, n_steps=8: give a batch_size that divides .*, which is 2048",
        ),
        ({"batch_size": 1}, "batch_size=1: give a whole number of 2 or more"),
        ({"cost": "time"}, "cost='time': give one of params, macs, latency"),
        (
            {"penalty": -0.1},
            r"penalty=-0\.1: give a number of 0 or more",
        ),
        ({"max_passes": 4}, "max_passes=4: give a whole number from 1 to 3"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0: give a number above 0"),
        ({"pool": -1}, r"pool=-1: give a whole number of 0 or more"),
        ({"penalty_range": (0.5, 0.1)}, r"penalty_range=\(0\.5, 0\.1\): give two numbers above 0, ascending, or none"),
        (
            {"penalty_range": (0.1, 0.5), "action": "levels"},
            r"penalty_range=\(0\.1, 0\.5\), action='levels': a range needs action='profiles'",
        ),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RLPruneError, match=message):
        PolicySettings(**wrong)


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from lamp import make_lamp, make_lamp_data
from stable_baselines3 import PPO
from rlprune.agents.callbacks import ResumeCheckpointCallback
from rlprune.agents import KeepRatioVecEnv
from rlprune.envs import World
path = Path(sys.argv[1])
agent = PPO("MlpPolicy", KeepRatioVecEnv(World(make_lamp(), make_lamp_data(4)), 4), device="cpu")
callback = ResumeCheckpointCallback(path, 1)
callback.init_callback(agent)
callback.save()
random.seed(0)
steps = []
for round in range(15):
    child = os.fork()
    if not child:
        for agent.num_timesteps in range(1, 10**6):
            callback.save()
    time.sleep(random.uniform(0.02, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    steps.append(PPO.load(path, device="cpu").num_timesteps)
print(max(steps))
"""


def test_a_kill_while_saving_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "checkpoint.zip")]
    done = subprocess.run(command, cwd=TESTS, check=True, capture_output=True)
    assert int(done.stdout) > 0
