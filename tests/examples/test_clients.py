"""The example of each client runs, learns, and hears no warning of ours; without the client, it is skipped."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "clients"
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "loop, batched": ("torch", "cleanrl_loop", {"mode": "vector_entry_point", "n_envs": 32, "steps": 4096}),
    "loop, sync": ("torch", "cleanrl_loop", {"mode": "sync", "n_envs": 4, "steps": 768}),
    "loop, async": ("torch", "cleanrl_loop", {"mode": "async", "n_envs": 4, "steps": 768}),
    "Tianshou, sync": ("tianshou", "tianshou_ppo", {"n_envs": 4, "steps": 1024}),
    "Tianshou, async": ("tianshou", "tianshou_ppo", {"n_envs": 4, "steps": 1024, "asynchronous": True}),
    "TorchRL, sync": ("torchrl", "torchrl_ppo", {"n_envs": 4, "steps": 1024}),
    "TorchRL, async": ("torchrl", "torchrl_ppo", {"n_envs": 4, "steps": 1024, "asynchronous": True}),
    # Ray may be there without RLlib, which needs dm-tree.
    "RLlib, sync": ("tree", "rllib_ppo", {"n_envs": 8, "steps": 1024}),
    "RLlib, async": ("tree", "rllib_ppo", {"n_envs": 4, "steps": 1024, "n_runners": 2}),
}


def example(name: str, needs: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of an example, if what it needs is installed."""
    package = needs.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; `make clients` runs this example where it is")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's own imports
        return importlib.import_module(name)


def of_ours(heard: list[warnings.WarningMessage]) -> list[str]:
    """What was warned of in this library, or by Gymnasium of its environments."""
    return [str(each.message) for each in heard if "rlprune" in each.filename or "gymnasium" in each.filename]


@pytest.mark.parametrize("case", CASES)
def test_the_return_rises(case: str, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs, name, options = CASES[case]
    script = example(name, needs, monkeypatch)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        returns = script.main(script.Settings(network=str(network), **options))
    quarter = len(returns) // 4
    assert sum(returns[-quarter:]) > sum(returns[:quarter])
    assert of_ours(heard) == []


def test_a_search_finds_settings(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = example("optuna_search", "optuna", monkeypatch)
    found = script.search(script.Settings(network=str(network), steps=1024, trials=2))
    assert [trial.state.name for trial in found.trials] == ["COMPLETE"] * 2
    assert found.best_value == max(trial.value for trial in found.trials) > -0.3
