"""From a trained network and images to a verdict and a folder that is ready to deploy."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.agents.train import train_policy
from rlprune.cluster.connection import Cluster, connected
from rlprune.cluster.sweeps.learning import learn_policy, search_on
from rlprune.cluster.sweeps.logits import check_room as check_store
from rlprune.data.image_set import Splits
from rlprune.errors import RLPruneError
from rlprune.optimization.check import examine
from rlprune.optimization.deploy import write_deploy
from rlprune.optimization.entry.examined import Examined
from rlprune.optimization.entry.limit import TimeLimit, given_steps
from rlprune.optimization.entry.memory import Memory, plan_from, plan_in
from rlprune.optimization.entry.origin import origin_of
from rlprune.optimization.goal import MOST_MINUTES, Backend, Goal, PlanOptions
from rlprune.optimization.inputs import Given, read_subject
from rlprune.optimization.plan import DEFAULT_MINUTES, LOOKING, REPORTING
from rlprune.optimization.reports.page import write_page
from rlprune.optimization.result import REPORT, CheckResult, OptimizeResult
from rlprune.optimization.subject import Subject
from rlprune.optimization.verdict.comparison import Comparison
from rlprune.optimization.verdict.summary import summarise
from rlprune.optimization.work import Work
from rlprune.storage.provenance import check_ours, noted, others_in, plain
from rlprune.utils.files import check_room, check_target_folder, write_json
from rlprune.utils.finite import check_numbers, check_whole
from rlprune.utils.hardware import check_device
from rlprune.utils.imports import require
from rlprune.utils.locks import hold
from rlprune.utils.progress import WholeBar

WORK = "work"
"""Folder of everything that is trained: checkpoints, networks, events; it may be removed once all is done."""
PAGE = "report.html"
_SETTINGS = "settings.json"
_PLAN = "plan.json"
_COPIES = 12
"""Networks, checkpoints and files that are written, each about as large as the network."""


def optimize(
    model: str | nn.Module,
    data: str | Path | Splits,
    *,
    weights: str | Path | None = None,
    preprocess: Given = None,
    heldout: str | Path | None = None,
    image_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    shares: tuple[float, float, float] | None = None,
    split_seed: int | None = None,
    test_split: str | None = None,
    max_drop: float | None = None,
    min_speedup: float | None = None,
    max_ms: float | None = None,
    max_macs: float | None = None,
    batch: int = 1,
    backend: Backend = "onnxruntime",
    time_limit: float = DEFAULT_MINUTES,
    out: str | Path = "runs/optimized",
    plan: PlanOptions | None = None,
    device: str = "cpu",
    seed: int = 0,
    trust_pickle: bool = False,
    quiet: bool = False,
    cluster: str | None = None,
) -> OptimizeResult:
    """Make a trained network spend less where less is enough, and say honestly whether that was worth it.

    The network is made adjustable and its slices are trained; which slice an image needs is learnt; one small network
    of the same cost, eight-bit integers and a tuned threshold are made beside it, trained as long. Which of them to
    deploy is chosen on validation images; the test images measure once. With none of the targets, the most is saved
    within one point. Run again after an interruption, it resumes.

    Args:
        model: a network, which is copied; or one by name, as for `rlprune.models.build`, or `timm:...`,
            `torchvision:...`, `package.module:callable`. One of this project's own without weights is trained first.
        data: images, as for `rlprune.data.load`; or splits of them.
        weights: of a network by name; what `rlprune.models.load_weights` reads.
        preprocess: how pictures are prepared, as for `rlprune.data.load`.
        heldout: images of the same classes that the network has not seen, to learn decisions from and choose by; all of
            them count, whatever parts they have.
        image_size: pixels of a side to which images are scaled and cut, as for `rlprune.data.load`.
        image_column: of tables, likewise; of those that are held out, too.
        label_column: likewise.
        shares: of the images that do not test: to train the network, to learn decisions from, and to choose by; 0.6,
            0.2 and 0.2 if None.
        split_seed: of that division; 0 if None.
        test_split: name of the part that tests, as for `rlprune.data.load`.
        max_drop: accuracy that may be lost, in points.
        min_speedup: how many times as fast as the network in its fastest form here.
        max_ms: instead, milliseconds that a batch may take here.
        max_macs: multiply-adds that an image may cost on average, as a share of the network's.
        batch: images at once, for all times.
        backend: what it will run on, `onnxruntime` or `pytorch`.
        time_limit: minutes that all may take.
        out: folder for `report.html`, `report.json`, `deploy/`, and `work/`, which holds checkpoints and events.
        plan: what otherwise follows from time limit, network and images.
        device: where networks are trained; times are measured on the processor.
        seed: of everything but times.
        trust_pickle: read weights that run code, too.
        quiet: show no progress.
        cluster: `local`, `auto` or the address of Ray's head: slices that a search tries, and the logits that decisions
            are learnt from, are then computed side by side by its processors. All else is one chain, each training
            begun with the one before, and is done here; so is learning the one policy. Processors compute with one
            thread each, so figures are those of a run without it on one thread.

    Returns:
        The result, as `report.json` has it.

    Raises:
        DataError: images that cannot be read.
        MissingExtraError: onnx, onnxscript, onnxruntime or matplotlib is not installed.
        ModelError: a network that cannot be pruned, or does not fit its weights or the images.
        RLPruneError: targets that exclude each other or cannot be reached; a time limit that is too short; or a folder
            that holds other things, or was begun with others; or an argument that would do nothing.
    """
    goal = Goal(
        max_drop=max_drop, min_speedup=min_speedup, max_ms=max_ms, max_macs=max_macs, batch=batch, backend=backend
    )
    job = Optimization(
        goal, out, time_limit=time_limit, plan=plan or PlanOptions(), device=device, seed=seed, quiet=quiet
    )
    with job.on(cluster):
        job.read(
            model,
            data,
            weights=None if weights is None else Path(weights),
            preprocess=preprocess,
            heldout=heldout,
            trust_pickle=trust_pickle,
            image_size=image_size,
            image_column=image_column,
            label_column=label_column,
            shares=shares,
            split_seed=split_seed,
            test_split=test_split,
        )
        return job.run()


class Optimization:
    """An optimisation in a folder: `read`, `check`, `run`.

    Args:
        goal: what is asked for.
        out: the folder.
        time_limit: minutes.
        plan: what of the plan is given.
        device: where networks are trained.
        seed: of everything but times.
        quiet: show no progress.
        may: names of what the folder may hold beside what was begun there.
        since: when the time limit began, by `time.monotonic`; None for when images are read.

    Raises:
        MissingExtraError: onnx, onnxscript, onnxruntime or matplotlib is not installed.
        RLPruneError: an argument is out of range, or the folder holds other things.
        WriteError: the folder may not be written.
    """

    def __init__(
        self,
        goal: Goal,
        out: str | Path,
        *,
        time_limit: float = DEFAULT_MINUTES,
        plan: PlanOptions | None = None,
        device: str = "cpu",
        seed: int = 0,
        quiet: bool = False,
        may: Collection[str] = (),
        since: float | None = None,
    ) -> None:
        check_numbers(time_limit=time_limit, most=MOST_MINUTES)
        check_whole(seed=seed, least=0, most=2**32 - 1)
        if time_limit <= 0:
            raise RLPruneError(f"time_limit={time_limit:g}: give minutes above 0")
        try:
            check_device(device)
        except ValueError as error:
            raise RLPruneError(f"device={device!r}: {error}") from error
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, "onnx")
        require("matplotlib", "plots")
        self.goal = goal
        self.out = Path(out)
        self.time_limit = time_limit
        self.options = plan or PlanOptions()
        self.device = device
        self.seed = seed
        self.quiet = quiet
        self._subject: Subject | None = None
        self._examined: Examined | None = None
        self._origin: dict[str, Any] | None = None
        self._cluster: Cluster | None = None
        self._since, self._began, self._looked = since, time.monotonic(), 0.0
        if not others_in(self.out / WORK, ()):  # what a start that was refused has left
            may = (*may, WORK)
        check_ours(self.out, (self.out / WORK / _SETTINGS).exists(), may)
        check_target_folder(self.out)

    @contextmanager
    def on(self, address: str | None) -> Iterator[None]:
        """Let a cluster compute, within the block, what can be computed side by side; see `optimize`.

        Args:
            address: of the cluster; None: nothing is.

        Raises:
            ClusterError: nothing answers there.
            MissingExtraError: Ray is not installed.
            RLPruneError: networks are trained on another device than the processor.
        """
        if address is None:
            yield
            return
        if self.device != "cpu":
            raise RLPruneError(f"device={self.device}: a cluster computes on processors; leave one of them out")
        with connected(address) as self._cluster:
            yield
        self._cluster = None

    def read(self, model: str | nn.Module, data: str | Path | Splits, **more: Any) -> Subject:
        """Load network and images; the arguments are those of `rlprune.optimization.inputs.read_subject`.

        Raises:
            InUseError: another process works in the folder.
        """
        if self.out.exists():  # before anything long begins
            with hold(self.out, inside=True):
                pass
        self._began = time.monotonic() if self._since is None else self._since
        torch.manual_seed(self.seed)  # a network of random weights is the same when it is gone on with
        self._subject, self._examined, self._origin = read_subject(model, data, **more), None, None
        return self._subject

    @property
    def subject(self) -> Subject:
        """What is optimised."""
        assert self._subject is not None, "read it first"
        return self._subject

    def check(self) -> CheckResult:
        """Look at network and images, time some steps, and plan; nothing is written.

        Raises:
            RLPruneError: it cannot work; the message says what would.
        """
        return self._examine().result

    def _examine(self) -> Examined:
        if self._examined is None:
            begun = None if self.finished() else plan_in(self.out / WORK / _PLAN)  # a finished one is replaced
            bar = WholeBar({LOOKING: 30.0}, quiet=self.quiet)
            with ExitStack() as stack:
                stack.callback(bar.close)
                stack.enter_context(bar.step(LOOKING))
                how: dict[str, Any] = {"device": self.device, "since": self._began}
                self._examined = examine(self.subject, self.goal, self.options, self.time_limit, begun, **how)
            self._looked = time.monotonic() - self._began
        return self._examined

    def finished(self) -> OptimizeResult | None:
        """The result that the folder holds already, if it is finished."""
        return OptimizeResult.load(path) if (path := self.out / REPORT).exists() else None

    def run(self) -> OptimizeResult:
        """Do all of it, or what is left of it.

        Raises:
            InUseError: another process works in the folder.
            RLPruneError: the folder was begun with other things.
        """
        if self.finished() is None:
            self._examine()  # what is refused leaves nothing behind
        note = noted(
            self.out / WORK / _SETTINGS,
            self._made_of(),
            what=f"what {self.out} holds",
            cure="go back to those, or name another folder",
            made=self.out / WORK / _PLAN,
        )
        with hold(self.out, inside=True), note:
            done = self.finished()
            return self._run(self._examine()) if done is None else done

    def _made_of(self) -> dict[str, Any]:
        """What the folder is begun with."""
        if self._origin is None:  # once: a network of random weights is trained in its place
            self._origin = origin_of(self.subject)
        asked = {"goal": self.goal, "time_limit": self.time_limit, "plan": self.options, "seed": self.seed}
        made_of: dict[str, Any] = plain(asked | self._origin)
        return made_of

    def _run(self, examined: Examined) -> OptimizeResult:
        folder = self.out / WORK
        check_room(self.out, _COPIES * sum(value.nbytes for value in self.subject.model.state_dict().values()))
        planned = plan_from(folder / _PLAN, examined.plan)
        with ExitStack() as stack:
            to_do = {name: seconds for name, seconds in planned.seconds.items() if name != LOOKING}
            bar = WholeBar(to_do, quiet=self.quiet)
            stack.callback(bar.close)
            (memory := Memory(folder)).count(LOOKING, self._looked)
            limit = TimeLimit(planned.seconds, self.time_limit, memory.seconds, given=given_steps(self.options))
            how: dict[str, Any] = {"seed": self.seed, "limit": limit, "bar": bar, "device": self.device}
            how["learn"] = train_policy
            if self._cluster is not None:
                splits = self.subject.splits
                sets = (splits.policy, splits.validation)
                check_store(self._cluster, self.subject.model, sets, [planned.n_profiles])
                how["learn"], how["search"] = (
                    partial(learn_policy, self._cluster, train_policy),
                    partial(search_on, self._cluster),
                )
            return self._reach(examined, Work(self.subject, examined, self.goal, planned, folder, **how))

    def _reach(self, examined: Examined, work: Work) -> OptimizeResult:
        """Train, choose, measure, and write what was found; the report comes last."""
        trained, test = work.trained(), self.subject.splits.test
        comparison = Comparison(trained, self.subject.splits, self.goal)
        chosen = comparison.choose()
        measured = comparison.measure(chosen)
        files = comparison.files(chosen)
        done: dict[str, Any] = {"minutes": self.time_limit, "seed": self.seed, "seconds": work.limit.elapsed}
        done["cut"] = work.memory.cut_short()
        plan = replace(work.plan, profile_epochs=work.profile_epochs(), flip=work.flip())
        result = summarise(self.goal, examined.result, plan, trained, measured, test, **done)
        answers = measured.answers["rlprune"]
        with work.step(REPORTING):
            write_deploy(self.out, result, self.subject, trained.elastic, chosen.dynamic, files)
            write_page(self.out / PAGE, result, test, answers.shares.float(), answers.labels)
        write_json(self.out / REPORT, result.to_json())
        return result
