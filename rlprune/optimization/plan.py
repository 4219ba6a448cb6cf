"""How an optimisation spends its time: every rule by which epochs, batches, views and profiles follow from the budget.

| what | rule |
|---|---|
| time for training | what reading, the check, search, decisions, files, measuring and the report are expected to leave of 85 % of the limit |
| its parts | 35 % for slices of any width, 45 % for the few that are used, 20 % for the static rival; where the network is to be trained first, that takes 35 % of the whole |
| epochs | as many as fit into a part, at least 1, at most `MOST_EPOCHS` |
| little time | where fewer than `SCARCE` epochs fit (or, where the resolution is chosen, fewer than `MOST_EPOCHS` of the slices in use alone), slices of any width are not trained, and those in use keep the same share of channels everywhere; a step trains one slice between the narrowest and the whole, not two |
| static rival | as many steps as the slices that are used, with the same teacher |
| batch | the largest of 128, 64 and 32 that leaves `ENOUGH_STEPS` steps, of at most `MOST_PIXELS` pixels |
| learning rate | 0.05 for a batch of 128, in proportion to it; a fifth of that where the slices in use are the whole network at several resolutions |
| views | 8 of each image where there are 16 epochs or more: a teacher is then asked once; else new ones each time |
| shifts | a twelfth of the side |
| mirroring | where the network is right as often on mirrored images, up to `MOST_MIRROR_LOSS`; one that is trained first is so without, and asked then |
| slices in use | 4; 3 where fewer than 500 images teach the decisions |
| passes | 2: a cheap look, and another |
| what decisions see | the prediction so far; features of the image, too, from `MANY_IMAGES` images on |
| price of compute | decisions are learnt for all prices from 0.002 to 0.2 right answers for a run of the whole network; the point is chosen afterwards |
| price | where the goal is a time and slices of any width are trained, what slices take in what they will run on; else multiply-adds |
| slices in use | share their weights; each has its own, and the whole network stays as it is, where they are that at several resolutions |
| residual streams | are pruned, too, where less than 60 % could be saved otherwise |
| resolution | is chosen, too, where pictures have 64 pixels a side or more, and the network runs at lower ones; where there is little time, the slices in use are the whole network at several resolutions |
| slices tried | 16, up to 64 where an image takes little time |

Once slices of any width are trained, the epochs of the slices in use, and so of the static rival, are planned anew with the
time that is left: fewer, where training has taken longer than was thought. What is saved otherwise is left over.

Every training, the search, and what learns decisions have a deadline, too: their part of 95 % of the limit, less what the
steps that cannot be cut will take. While they run, the pace of their last steps says whether all that is left fits; where it
does not, steps are left out, evenly, and the learning rate falls to its end in those that are made. The static rival then
leaves out as large a share as the slices in use did. Rows in eight-bit integers, the cascade, and picking points again are
left out where time is short at the end. What is given by an option is done in full, whatever time it takes.
"""  # noqa: E501

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from rlprune.errors import RLPruneError
from rlprune.optimization.goal import PlanOptions
from rlprune.optimization.pace import Pace

DEFAULT_MINUTES = 60.0
"""Time limit if none is given."""
SHARES = (0.6, 0.2, 0.2)
"""Of the images that do not test: for the network, for the decisions, and for choosing."""
USED = 0.85
"""Share of the limit that is planned for; the rest is for what takes longer than was thought."""
PARTS = {"slices": 0.35, "profiles": 0.45, "static": 0.2}
"""Of the time for training."""
PRETRAINING = 0.35
MOST_EPOCHS = 30
SCARCE = 8
ENOUGH_STEPS = 400
LEARNING_RATE, GENTLE = 0.05, 0.01
"""For a batch of 128; and where what is trained is right about most images before."""
MOST_PIXELS = 2**21
"""In a batch: with more, activations leave the caches, and an image takes several times as long on a processor."""
MANY_IMAGES = 5000
MOST_MIRROR_LOSS = 0.05
_SMALL = 0.4
"""Multiply-adds that a slice is expected to take."""
_POLICY_STEPS_PER_SECOND = 8000
"""Decisions that are learnt from in a second, about; the network does not run meanwhile."""
_N_WHOLE = (2, 4)
"""Rows that are one network: the dense and the static one; and those in eight-bit integers, where there is time."""
_N_DECIDING = (2, 7)
"""Networks that decide, of three parts more than there are slices: a learnt one and its rival; and where there is time
one in eight-bit integers, and those that points are picked by again."""
_MORE_FILES = 1 / 3
"""Of the time beyond one epoch of each training that those networks may take."""
_N_TESTED = 5
"""Whole networks that a test image runs through, about, until every row is measured."""
_N_INT8 = 2
"""Those in eight-bit integers, which validation images run through, too."""
LOOKING = "looking at the network"
"""What reading and the check are called as a step."""
PRETRAIN = "training the network"
SLICES = "training slices"
PRICING = "timing slices"
SEARCHING = "searching slices"
SLICES_IN_USE = "training the slices in use"
DECIDING = "learning to decide"
STATIC = "training the static rival"
WRITING = "writing networks"
CHOOSING = "choosing"
MEASURING = "measuring"
REPORTING = "writing the report"
_REPORT_SECONDS = 6.0
FEWEST_CANDIDATES = 16
_MOST_TIMING = 24.0
_TIMING = 0.02
"""Share of the limit in which rows are timed, once to choose and once to measure."""
_N_TIMINGS = 3.0
"""How often: slices, and what points are picked by, a little before, too."""
_N_ROUNDS = 6
"""In which a batch goes through every row, however long that takes."""
_N_ROWS = 9


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done; the rules are those of the module.

    Attributes:
        pretrain_epochs: to train a network of random weights first; 0 for one that has been trained.
        slice_epochs: under random profiles; 0 where there is little time.
        profile_epochs: under the profiles of the codebook.
        n_random: slices that a step trains between the narrowest and the whole.
        separate: whether slices in use have weights of their own, and a step trains one of them alone.
        batch_size: of all trainings.
        learning_rate: peak, of all but the first training.
        flip: whether images are mirrored.
        padding: pixels by which they are shifted.
        views: kept views of each image; 0 for new ones.
        n_profiles: of the codebook.
        n_candidates: of the search.
        max_passes: of an image.
        policy_steps: of PPO.
        penalties: lowest and highest, of the policy.
        pool: cells per side of the features that decisions see.
        timing: seconds in which rows are timed, once to choose and once to measure.
        seconds: that each step takes, about, by its name.
    """

    pretrain_epochs: int
    slice_epochs: int
    profile_epochs: int
    n_random: int
    separate: bool
    batch_size: int
    learning_rate: float
    flip: bool
    padding: int
    views: int
    n_profiles: int
    n_candidates: int
    max_passes: int
    policy_steps: int
    penalties: tuple[float, float]
    pool: int
    timing: float
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        """Seconds that all steps take, about."""
        return sum(self.seconds.values())

    def figures(self) -> dict[str, float]:
        """Its numbers, for the report."""
        figures = {name: float(value) for name, value in asdict(self).items() if isinstance(value, int | float)}
        return figures | {"lowest_penalty": self.penalties[0], "highest_penalty": self.penalties[1]}


@dataclass(frozen=True)
class Size:
    """What a plan depends on, beside the pace and the time limit.

    Attributes:
        n_network: images that train the network.
        n_policy: images that teach the decisions.
        n_validation: images by which the choice is made.
        n_test: images that test.
        side: pixels of an image, the longer side.
        trained: whether the network has been trained.
        mirrored: whether mirrored images may be trained on.
        resolution: whether the resolution is chosen.
    """

    n_network: int
    n_policy: int
    n_validation: int
    n_test: int
    side: int
    trained: bool
    mirrored: bool
    resolution: bool = False


def make_plan(
    options: PlanOptions,
    size: Size,
    pace: Pace,
    minutes: float,
    spent: float = 0.0,
    pricing: float = 0.0,
    batch: int = 1,
) -> Plan:
    """Plan by the time limit.

    Args:
        options: what is given, and so does not follow from the rules.
        size: of the task.
        pace: of this machine.
        minutes: time limit.
        spent: seconds that have gone already, with reading and looking.
        pricing: seconds to measure what slices take, if slices of any width are trained.
        batch: images at once where rows are timed.

    Raises:
        RLPruneError: not one epoch of each training fits into the limit; the message says how long would do; or an
            option would do nothing.
    """
    n_profiles = options.n_profiles or (4 if size.n_policy >= 500 else 3)
    n_candidates = options.n_candidates or _n_candidates(size, pace)
    if options.slice_epochs == 0:
        n_candidates = min(n_candidates, FEWEST_CANDIDATES)
    policy_steps = options.policy_steps or 200_000
    timing = min(_MOST_TIMING, 60 * minutes * _TIMING)
    at_least = _N_ROUNDS * _N_ROWS * batch * pace.measured * _SMALL
    seconds = {LOOKING: spent} | _fixed(size, pace, n_profiles, n_candidates, policy_steps, timing + at_least)
    left = 60 * minutes * USED - sum(seconds.values())
    needed = _least(size, pace)
    if left < needed and None in (options.pretrain_epochs, options.profile_epochs)[size.trained :]:
        enough = _enough(needed + sum(seconds.values()) - _N_TIMINGS * timing)
        raise RLPruneError(
            f"time_limit={minutes:g} minutes: not one epoch of each training fits into it on this machine; give "
            f"{enough} or more, or fewer images"
        )
    fewest, most = (pace.piece * _n_pieces(n_profiles, which) for which in (0, 1))
    more = min(most - fewest, _MORE_FILES * max(left - needed, 0.0))
    seconds[WRITING] += more
    left -= more
    first, slices, profiles = _epochs(options, size, pace, max(left - pricing, needed))
    if options.n_candidates is not None and not slices:
        raise RLPruneError(
            f"n_candidates={options.n_candidates}: the time is too short for a search, so this would do nothing; leave "
            "it out, or give a longer time_limit, or slice_epochs"
        )
    n_random = 2 if slices else 1
    separate = size.resolution and not slices
    trainings = {
        PRICING: pricing if slices else 0.0,
        PRETRAIN: first * size.n_network * pace.train,
        SLICES: slices * size.n_network * pace.slices(n_random),
        SLICES_IN_USE: profiles * size.n_network * (_scarce(size, pace) if separate else pace.slices(n_random)),
        STATIC: profiles * size.n_network * pace.static(_SMALL),
    }
    n_epochs = slices + profiles
    batch_size = options.batch_size or _batch_size(size, n_epochs)
    return Plan(
        pretrain_epochs=first,
        slice_epochs=slices,
        profile_epochs=profiles,
        n_random=n_random,
        separate=separate,
        batch_size=batch_size,
        learning_rate=options.learning_rate or (GENTLE if separate else LEARNING_RATE) * batch_size / 128,
        flip=size.mirrored if options.flip == "auto" else options.flip == "yes",
        padding=max(1, size.side // 12) if options.padding is None else options.padding,
        views=options.views if options.views is not None else (8 if n_epochs >= 2 * 8 else 0),
        n_profiles=n_profiles,
        n_candidates=n_candidates,
        max_passes=options.max_passes or 2,
        policy_steps=policy_steps,
        penalties=options.penalties,
        pool=options.pool if options.pool is not None else (2 if size.n_policy >= MANY_IMAGES else 0),
        timing=timing,
        seconds={name: each for name, each in (trainings | seconds).items() if each > 0},
    )


def _n_candidates(size: Size, pace: Pace) -> int:
    """Profiles to try: as many as a minute allows, 16 to 64."""
    return min(64, max(FEWEST_CANDIDATES, int(60 / max(size.n_policy * pace.forward * _SMALL, 1e-6))))


def _fixed(
    size: Size, pace: Pace, n_profiles: int, n_candidates: int, policy_steps: int, timing: float
) -> dict[str, float]:
    """Seconds of everything that trains no network; of networks that are written, the fewest."""
    per_slice = pace.forward * _SMALL
    return {
        SEARCHING: n_candidates * (size.n_policy * per_slice + 0.1),
        DECIDING: policy_steps / _POLICY_STEPS_PER_SECOND
        + n_profiles * (size.n_policy + size.n_validation) * per_slice,
        WRITING: _n_pieces(n_profiles, 0) * pace.piece,
        CHOOSING: n_profiles * size.n_validation * pace.measured * _SMALL + (_N_TIMINGS - 1) * timing,
        MEASURING: (_N_TESTED * size.n_test + _N_INT8 * size.n_validation) * pace.measured + timing,
        REPORTING: _REPORT_SECONDS,
    }


def _n_pieces(n_profiles: int, which: int) -> int:
    """Parts of networks that are written: at least (0), or where there is time (1)."""
    return _N_WHOLE[which] + n_profiles + _N_DECIDING[which] * (n_profiles + 3)


def _least(size: Size, pace: Pace) -> float:
    """Seconds of one epoch of each training that cannot be left out."""
    per_image = _scarce(size, pace) + pace.static(_SMALL) + (0 if size.trained else pace.train)
    return size.n_network * per_image


def _scarce(size: Size, pace: Pace) -> float:
    """Seconds of an image in a step that trains slices in use where those of any width are not trained."""
    return pace.static(_SMALL) if size.resolution else pace.slices(1)


def _epochs(options: PlanOptions, size: Size, pace: Pace, left: float) -> tuple[int, int, int]:
    """Epochs of pretraining, of slices of any width and of those in use."""
    first = 0 if size.trained else options.pretrain_epochs
    if first is None:
        first = _fitting(PRETRAINING * left, size.n_network * pace.train)
    left -= first * size.n_network * pace.train
    slices = options.slice_epochs
    if slices is None:
        slices = _fitting(PARTS["slices"] * left, size.n_network * pace.slices(2))
    share = PARTS["profiles"] + PARTS["static"]
    profiles = _fitting(share * left, size.n_network * (pace.slices(2) + pace.static(_SMALL)))
    alone = _fitting(left, size.n_network * (_scarce(size, pace) + pace.static(_SMALL)))
    if options.slice_epochs is None and (slices + profiles < SCARCE or (size.resolution and alone < MOST_EPOCHS)):
        slices, profiles = 0, alone
    return first, slices, profiles if options.profile_epochs is None else options.profile_epochs


def profile_epochs_within(plan: Plan, size: Size, seconds_per_image: float, pace: Pace, seconds: float) -> int:
    """Epochs for the slices in use, with the time that is left; the static rival's are counted in.

    Args:
        plan: as it was made.
        size: of the task.
        seconds_per_image: that training slices has taken.
        pace: as it was measured first.
        seconds: that are left for both trainings.
    """
    slower = seconds_per_image / pace.slices(plan.n_random)
    per_epoch = size.n_network * (seconds_per_image + slower * pace.static(_SMALL))
    return min(plan.profile_epochs, _fitting(seconds, per_epoch)) if slower > 1 else plan.profile_epochs


def _fitting(seconds: float, per_epoch: float) -> int:
    return min(MOST_EPOCHS, max(1, int(seconds / max(per_epoch, 1e-9))))


def _batch_size(size: Size, n_epochs: int) -> int:
    n_seen = size.n_network * max(n_epochs, 1)
    most = MOST_PIXELS / size.side**2
    wanted = next((batch for batch in (128, 64) if n_seen / batch >= ENOUGH_STEPS and batch <= most), 32)
    return max(2, min(wanted, size.n_network))


def _enough(seconds: float) -> int:
    """Whole minutes of a limit that leaves so many seconds beside those in which rows are timed."""
    minutes = seconds / (60 * (USED - _N_TIMINGS * _TIMING))
    if 60 * minutes * _TIMING > _MOST_TIMING:
        minutes = (seconds + _N_TIMINGS * _MOST_TIMING) / (60 * USED)
    return math.floor(minutes) + 1
