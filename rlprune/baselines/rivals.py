"""Rivals of your own in a comparison: what they are given, what they give, and the checks of both."""

from __future__ import annotations

import inspect
import reprlib
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.policies.policy import Policy, check_fit
from rlprune.profiles.codebook import uniform_codebook
from rlprune.profiles.cost import Cost
from rlprune.training.adaptation import SpecialiseSettings
from rlprune.training.distillation import Teacher
from rlprune.utils.imports import find

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pixels uint8 (B, C, H, W) -> predicted classes int64 (B,), and the MACs that each image cost, int64 (B,)."""

_KINDS = "a Policy, a profile as an int64 tensor (G,), or a callable from pixels to labels and MACs"
_N_REHEARSED = 256
"""Images of each part that a rehearsal takes, at most."""
_N_TRIED = 2
"""Images that every point is tried on."""


@dataclass(frozen=True, eq=False)
class RivalInputs:
    """What a rival may work with. The test images are not among it: they choose nothing.

    Attributes:
        adapted: the network as `rlprune adapt` left it.
        network: the same, trained on for the profiles of the codebook; policies and profiles run on it.
        codebook: int64 (K, G), cheapest first.
        training_images: what networks are trained on.
        policy_images: what policies are trained on; no network has seen them.
        validation_images: what settings are chosen on.
        training: how long, and how, all networks of the comparison are trained.
        teacher: whose predictions trainings follow, as for `rlprune.training.adaptation.adapt`; None for the whole
            network's own.
        folder: for what the rival makes and wants to find again the next time; it is the rival's own, and not there at
            first.
    """

    adapted: ElasticCNN
    network: ElasticCNN
    codebook: Tensor
    training_images: ImageSet
    policy_images: ImageSet
    validation_images: ImageSet
    training: SpecialiseSettings
    teacher: Teacher | None
    folder: Path


class RivalPoint(NamedTuple):
    """One point of a rival; a plain pair will do.

    Attributes:
        label: tells it from the rival's other points: the price or the share at which it was made, say.
        how: a policy; or a profile, int64 (G,), for all images; or what predicts by itself, and counts its MACs.
    """

    label: str
    how: Policy | Tensor | Predict


class Rival(Protocol):
    """What `package.module:callable` has to name: a function, or a class, of one argument."""

    def __call__(self, given: RivalInputs, /) -> Iterable[RivalPoint | tuple[str, Policy | Tensor | Predict]]:
        """Make the rival's points, one after the other."""


def find_rival(name: str) -> Rival:
    """The rival that `package.module:callable` names.

    Raises:
        RLPruneError: it cannot be imported, cannot be called, or does not take one argument.
    """
    found = find(name, RLPruneError, works="with one argument")
    if not callable(found):
        raise RLPruneError(f"rival {name!r} is {_shown(found)}; name a function of one argument, RivalInputs")
    try:
        inspect.signature(found).bind(None)
    except TypeError as error:
        raise RLPruneError(
            f"rival {name!r} takes {inspect.signature(found)}: {error}; it is called with one argument, RivalInputs"
        ) from error
    except ValueError:  # what is written in C does not say what it takes
        pass
    rival: Rival = found
    return rival


def rehearse(name: str, given: RivalInputs) -> None:
    """Call a rival once, for a few images and networks that are not trained, so that mistakes show in seconds.

    Args:
        name: of the rival, `package.module:callable`.
        given: what it will be given; network, codebook and folder are others in the rehearsal, and trainings last for
            one epoch.

    Raises:
        RLPruneError: as `points_of`.
    """
    network, codebook = deepcopy(given.adapted), given.adapted.codebook
    if codebook is None:
        codebook = uniform_codebook(network, Cost(network))
        network.specialise(codebook)
    with tempfile.TemporaryDirectory() as folder:
        few = replace(
            given,
            adapted=deepcopy(given.adapted),
            network=network,
            codebook=codebook,
            training_images=_few(given.training_images),
            policy_images=_few(given.policy_images),
            validation_images=_few(given.validation_images),
            training=replace(given.training, epochs=min(1, given.training.epochs), shares=()),
            teacher=None if isinstance(given.teacher, Tensor) else given.teacher,
            folder=Path(folder, "rival"),
        )
        for _ in points_of(name, few):
            pass


def points_of(name: str, given: RivalInputs) -> Iterator[RivalPoint]:
    """The points of a rival, each tried on two images as soon as it is there.

    Args:
        name: of the rival, `package.module:callable`.
        given: what it is given.

    Raises:
        RLPruneError: the rival gives something else than points, or none, or fails.
    """
    rival = find_rival(name)
    torch.manual_seed(given.training.seed)  # or it would begin as what came before it has left the generator
    labels: set[str] = set()
    for point in _given_by(name, rival, given):
        if not isinstance(point, tuple) or len(point) != 2 or not isinstance(point[0], str) or not point[0]:
            raise RLPruneError(f"rival {name!r} gave {_shown(point)}; a pair of a label and {_KINDS} is needed")
        label, how = point
        if label in labels:
            raise RLPruneError(f"rival {name!r} gave the label {label!r} twice; each point needs its own")
        labels.add(label)
        yield RivalPoint(label, _checked(f"point {label!r} of rival {name!r}", how, given))
    if not labels:
        raise RLPruneError(f"rival {name!r} gave no point; at least one is needed")


def _few(images: ImageSet) -> ImageSet:
    return images.subset(slice(_N_REHEARSED))


def _shown(found: Any) -> str:
    """What something is, in few words."""
    if isinstance(found, Tensor):
        kind = f"{str(found.dtype).removeprefix('torch.')} tensor of shape {tuple(found.shape)}"
    else:
        kind = f"tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
    return f"{'an' if kind[0] in 'aeiouAEIO' else 'a'} {kind}"


def _given_by(name: str, rival: Rival, given: RivalInputs) -> Iterator[Any]:
    """What a rival gives; what fails in it says so in a line."""
    try:
        yield from rival(given)
    except RLPruneError:
        raise
    except Exception as error:
        raise RLPruneError(f"rival {name!r} failed with {_failure(error)}") from error


def _failure(error: Exception) -> str:
    """An error in one line, with the place where it happened."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"


def _checked(where: str, how: Any, given: RivalInputs) -> Policy | Tensor | Predict:
    """What decides at a point, if it can."""
    network, images = given.network, given.validation_images
    if isinstance(how, Policy):
        check_fit(network, how, images.classes)
        return how
    if isinstance(how, Tensor):
        allowed = how.dtype == torch.int64 and how.shape == (network.n_groups,)
        if not allowed or not (network.keep_levels.clamp(how) == how).all():
            raise RLPruneError(
                f"{where} is {_shown(how)}, {reprlib.repr(how.tolist())}; a profile has a level for each of "
                f"{network.n_groups} groups, int64, from {network.min_level.tolist()} to {network.n_levels - 1}"
            )
        return how
    if not callable(how):
        raise RLPruneError(f"{where} is {_shown(how)}; {_KINDS} is needed")
    predict = _counted(where, how, len(images.classes))
    with torch.inference_mode():
        predict(images.images[:_N_TRIED])
    return predict


def _counted(where: str, predict: Predict, n_classes: int) -> Predict:
    """The same, with a check of everything that it gives."""

    def checked(images: Tensor) -> tuple[Tensor, Tensor]:
        try:
            found: Any = predict(images)
        except RLPruneError:
            raise
        except Exception as error:
            raise RLPruneError(f"{where} failed on {_shown(images)} with {_failure(error)}") from error
        if not isinstance(found, tuple) or len(found) != 2:
            raise RLPruneError(f"{where} gave {_shown(found)}; a tuple of two, labels and MACs, is needed")
        for name, part in zip(("labels", "MACs"), found, strict=True):
            if not isinstance(part, Tensor) or part.dtype != torch.int64 or part.shape != (len(images),):
                raise RLPruneError(
                    f"{where} gave {name} as {_shown(part)} for {len(images)} images; int64 ({len(images)},) is needed"
                )
        labels, macs = (part.cpu() for part in found)
        if labels.min() < 0 or labels.max() >= n_classes:
            raise RLPruneError(
                f"{where} gave labels from {labels.min()} to {labels.max()}; there are 0 to {n_classes - 1}"
            )
        if macs.min() < 1:
            raise RLPruneError(f"{where} gave {macs.min()} MACs for an image; 1 or more are needed")
        return labels, macs

    return checked
