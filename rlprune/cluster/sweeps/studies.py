"""How a sweep searches ranges: a study of Optuna for each combination of the listed values, by Ray's adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlprune.cluster.sweeps.space import Range, Space, Value
from rlprune.utils.imports import require


def studies(space: Space, seed: int) -> Any:
    """A searcher of Ray Tune that asks the studies in turn.

    Rewards at two penalties, or of two seeds, are not comparable: a single study would drift to the penalty that is
    cheapest to pay, and to the seed that is luckiest.

    Args:
        space: what is listed and searched.
        seed: of the first study; each has another.
    """
    base: Any = require("ray.tune.search", "cluster").Searcher
    pickler = require("ray.cloudpickle", "cluster")
    combinations = list(space.combinations())
    asked = [_study(space.ranges, seed + index) for index in range(len(combinations))]

    class Studies(base):  # type: ignore[misc]
        """Hands trials to the studies in turn."""

        def __init__(self) -> None:
            super().__init__(metric="reward", mode="max")
            self.studies = asked
            self.of: dict[str, int] = {}

        def suggest(self, trial_id: str) -> dict[str, Any]:
            """What a trial tries."""
            index = self.of.setdefault(trial_id, len(self.of) % len(self.studies))
            found: dict[str, Value] = self.studies[index].suggest(trial_id)
            return {"values": combinations[index] | {name: found[name] for name in space.ranges}}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            """Tell its study what a trial has found."""
            failed = error or not result or "reward" not in result
            told = {} if failed else {"result": result}
            self.studies[self.of[trial_id]].on_trial_complete(trial_id, error=failed, **told)

        def save(self, checkpoint_path: str) -> None:
            """Write what was tried."""
            Path(checkpoint_path).write_bytes(pickler.dumps((self.studies, self.of)))

        def restore(self, checkpoint_path: str) -> None:
            """Read what was tried, which this process wrote, or an earlier one of the same sweep."""
            self.studies, self.of = pickler.loads(Path(checkpoint_path).read_bytes())

    return Studies()


def _study(ranges: Any, seed: int) -> Any:
    optuna = require("ray.tune.search.optuna", "cluster")
    distributions = {name: _distribution(each) for name, each in ranges.items()}
    return optuna.OptunaSearch(distributions, metric="reward", mode="max", seed=seed)


def _distribution(ends: Range) -> Any:
    distributions = require("optuna.distributions", "cluster")
    whole = isinstance(ends.low, int)
    kind = distributions.IntDistribution if whole else distributions.FloatDistribution
    return kind(ends.low, ends.high, log=ends.log)
