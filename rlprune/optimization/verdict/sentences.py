"""The verdict in words: whether the goal was reached, whether that can be told, what to deploy; and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rlprune.optimization.goal import Goal
from rlprune.optimization.plan import MOST_EPOCHS, Plan
from rlprune.optimization.result import Bounds, Row
from rlprune.optimization.verdict.choice import Choice, images_to_choose

_NARROW = 1.5
"""How much more of the time than of the multiply-adds the narrowest slice takes where layers are too narrow."""
_KINDS = {
    "dense": "leave the network as it is",
    "int8": "deploy eight-bit integers",
    "static": "deploy the one small network",
    "dynamic": "deploy the network that decides per image",
}
_MAYBE_SEEN = (
    " They are of the same folder as the others: if your network was trained on that folder, it has seen them, and "
    "these figures are too good."
)
_BY_THRESHOLD = "deploy the network that decides per image, by a threshold"


def sentences(
    goal: Goal,
    choice: Choice,
    row: Row,
    rows: tuple[Row, ...],
    n_test: int,
    needed: int | None,
    *,
    maybe_seen: bool = False,
) -> Iterator[str]:
    """The three sentences.

    Args:
        goal: what was asked for.
        choice: what is to be deployed, chosen on the validation images.
        row: its figures on the test images.
        rows: all rows.
        n_test: test images.
        needed: test images that it would take to tell whether the drop is within the goal, that of the nearest row
            where the network is left as it is; None if these tell.
        maybe_seen: whether the test images are of the same folder as the others, so that the network may have been
            trained on them.
    """
    yield _reached(goal, row)
    yield _certain(goal, row, rows, n_test, needed) + (_MAYBE_SEEN if maybe_seen else "")
    yield _deploy(goal, choice, row, rows)


def _reached(goal: Goal, row: Row) -> str:
    what = f"{row.title} {_figures(row)}"
    return f"Goal {'reached' if row.meets else 'not reached'}: {goal.text}; {what}."


def _figures(row: Row) -> str:
    lost = f"loses {row.drop:.2f} points" if row.drop >= 0 else f"gains {-row.drop:.2f} points"
    return f"{lost} at {100 * row.macs_share:.1f} % of the multiply-adds and {row.speedup:.2f} times the speed"


def _certain(goal: Goal, row: Row, rows: tuple[Row, ...], n_test: int, needed: int | None) -> str:
    """Of the network as it is there is nothing to tell, but of what comes nearest to the goal."""
    stays = row.kind == "dense" and row.drop == 0
    judged = nearest(goal, rows) if stays else row
    if judged is None or (stays and needed is None):
        return "Nothing is lost, as nothing is changed, so the test images have nothing to tell."
    of = f"Of {judged.title}, which is nearest, it" if stays else "That"
    said = _measured(goal, judged, n_test)
    near = _too_near(goal, judged)
    if needed is not None:
        return f"{of} cannot be told for sure: {said}; about {needed:,} would tell{f'; and {near}' if near else ''}."
    if near:
        return f"{of} cannot be told for sure: {near}. The {said}."
    return f"The {said}." if goal.drop is None else f"{of} can be told: {said}."


def _measured(goal: Goal, row: Row, n_test: int) -> str:
    low, high = row.drop_interval
    found = f"{n_test:,} test images put the drop at {low:.2f} to {high:.2f} points (95 %)"
    if goal.drop is None:
        return found
    return f"{found}; {goal.drop:g} {'point is' if goal.drop == 1 else 'points are'} allowed"


def _too_near(goal: Goal, row: Row) -> str:
    """What of the time leaves it open whether a goal is met; nothing if all of it is on one side."""
    allowed = goal.ms_allowed(row.ms * row.speedup)
    if not row.ms_low <= allowed < row.ms_high:
        return ""
    return f"half of all batches took {row.ms_low:.3g} to {row.ms_high:.3g} ms, and {allowed:.3g} ms are allowed"


def nearest(goal: Goal, rows: Sequence[Row]) -> Row | None:
    """The row other than the network as it is that is nearest to the goal on the test images; for words alone."""
    others = [each for each in rows if each.kind != "dense"]
    return min(others, key=lambda each: _distance(goal, each), default=None)


def _deploy(goal: Goal, choice: Choice, row: Row, rows: tuple[Row, ...]) -> str:
    what = _BY_THRESHOLD if row.name == "cascade" else _KINDS[row.kind]
    what = what[0].upper() + what[1:]
    if choice.reason == "nothing gained":
        return f"{what}: {_nothing_gained(rows)}."
    others = {each.name: each for each in rows}
    if choice.reason == "simpler":
        found = others[choice.best.name]
        return f"{what}: it is simpler than {found.title}, and as good within what the validation images tell."
    if choice.reason == "nearest":
        return f"{what}: {_nearest_to(goal, choice)}."
    rival = _nearest_rival(row, others)
    measure = "the most accurate" if goal.bounds_cost else "the fastest"
    beside = "" if rival is None else f"; {rival.title} {_figures(rival)}"
    return f"{what}: of what meets the goal on the validation images, it is {measure}{beside}."


def _nothing_gained(rows: tuple[Row, ...]) -> str:
    if all(each.kind == "dense" for each in rows):
        return "nothing else could be made; see what was left out"
    return "nothing that was tried is faster without losing more than is allowed"


def _nearest_to(goal: Goal, choice: Choice) -> str:
    """Why the nearest is recommended, though it does not meet the goal for sure."""
    option = choice.option
    if not choice.unsure or goal.drop is None:
        return "nothing meets the goal on the validation images, and this is nearest to it"
    needed = images_to_choose(option, goal.drop)
    enough = "" if needed is None else f"; about {max(needed, len(option.right) + 1):,} would do"
    return (
        f"it loses {max(option.drop, 0):.2f} points on the {len(option.right):,} validation images, which are too few "
        f"to be sure that it meets the goal{enough}"
    )


def _nearest_rival(row: Row, others: dict[str, Row]) -> Row | None:
    """The row that the deployed one has to be compared with: one small network, or deciding by what was learnt."""
    names = ("static", "cascade") if row.kind == "dynamic" else ("rlprune", "cascade", "static")
    return next((others[name] for name in names if name in others and name != row.name), None)


def kept_time(cut: Mapping[str, float], minutes: float, seconds: float) -> Iterator[str]:
    """What was cut short to keep a time limit, and whether it was kept.

    Args:
        cut: share of each step that was left out, by its name; 0 where that was not counted.
        minutes: the limit.
        seconds: that everything took.
    """
    if cut:
        parts = "; ".join(f"{name}{f' ({max(100 * share, 1):.0f} %)' if share else ''}" for name, share in cut.items())
        yield f"The machine was slower than when the time was planned, so some was left out of these steps: {parts}."
    if seconds > 60 * minutes:
        yield f"It took {seconds / 60:.1f} minutes, more than the {minutes:g} of the time limit."


def advice(
    goal: Goal, choice: Choice, bounds: Bounds, plan: Plan, rows: tuple[Row, ...], minutes: float
) -> Iterator[str]:
    """What to know where the goal was not reached: the nearest point, what bounds it, which options would help.

    Args:
        goal: what was asked for.
        choice: what is to be deployed.
        bounds: what bounds the saving.
        plan: how it was trained.
        rows: all rows.
        minutes: time limit that was given.
    """
    near = nearest(goal, rows)
    if near is not None and near.meets and near.name != choice.option.name:
        yield (
            f"On the test images {near.title} meets the goal ({_figures(near)}). On the validation images, which "
            "choose, it did not for sure."
        )
    elif near is not None:
        yield f"Nearest on the test images: {near.title} {_figures(near)}."
    yield (
        f"What bounds it: every image costs {100 * bounds.always_runs:.0f} % of the multiply-adds, the first layers "
        f"alone {100 * bounds.stem_share:.0f} %."
    )
    deciding = next((each for each in rows if each.name == "rlprune"), None)
    if bounds.decision_ms is not None and deciding is not None:
        share = 100 * bounds.decision_ms / max(deciding.ms, 1e-9)
        yield (
            f"Deciding takes {deciding.title} {bounds.decision_ms:.3f} ms of a batch of {goal.batch}, {share:.0f} % of "
            "its time."
        )
    if bounds.narrowest_ms_share is not None:
        narrow = bounds.narrowest_ms_share > _NARROW * bounds.always_runs
        why = ": its layers are too narrow for this processor to gain as much" if narrow else ""
        yield (
            f"The narrowest slice takes {100 * bounds.narrowest_ms_share:.0f} % of the time for "
            f"{100 * bounds.always_runs:.0f} % of the multiply-adds{why}."
        )
    yield from _options(goal, plan, minutes)


def _distance(goal: Goal, row: Row) -> float:
    excess = max(0.0, row.drop - goal.drop) / max(goal.drop, 0.5) if goal.drop is not None else 0.0
    if goal.min_speedup is not None:
        excess += max(0.0, goal.min_speedup / row.speedup - 1)
    if goal.max_ms is not None:
        excess += max(0.0, row.ms / goal.max_ms - 1)
    if goal.max_macs is not None:
        excess += max(0.0, row.macs_share / goal.max_macs - 1)
    return excess


def _options(goal: Goal, plan: Plan, minutes: float) -> Iterator[str]:
    helpful = []
    if plan.profile_epochs < MOST_EPOCHS:
        helpful.append(f"--time-limit {2 * minutes:g} ({_trained(plan)}; up to {MOST_EPOCHS} make sense)")
    if goal.bounds_time and goal.batch < 16:
        helpful.append("a larger --batch, which shares what deciding takes among images")
    if goal.drop is not None and goal.bounds_cost:
        helpful.append("a larger --max-drop, or a smaller saving")
    helpful.append("more images, or --heldout with some that the network has not seen")
    yield f"What may help: {'; '.join(helpful)}."


def _trained(plan: Plan) -> str:
    n_epochs = plan.slice_epochs + plan.profile_epochs
    return f"slices were trained for {n_epochs} {'epoch' if n_epochs == 1 else 'epochs'}"
