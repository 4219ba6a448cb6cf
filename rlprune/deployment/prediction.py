"""Predictions of a dynamic network, with the cost of each image."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.policies.passes import CostBreakdown

_MOST_NAMED = 5
"""How many classes a prediction says when it is printed."""
_COSTS = ("keep_ratios", "passes", "params", "macs")
"""What follows from the profiles, and is computed when it is first asked for: that takes longer than some networks."""


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Predictions for a batch, with the cost of each image.

    Attributes:
        labels: predicted classes, int64 (B,).
        probabilities: float32 in [0, 1], (B, classes); of the last pass, or of the passes' combined logits.
        profiles: index into the codebook of every pass, int64 (B, max_passes); -1 where there was none.
        keep_ratios: of the last pass, float32 in [0, 1], (B, G).
        passes: number of passes, int64 (B,).
        params: active parameters summed over passes, the policy included, int64 (B,).
        macs: MACs summed over passes, stem and policy included, int64 (B,).
        dense_macs: MACs of the whole network, which `macs_share` divides by.
        class_names: names of all classes, in the order of the probabilities.
        names: of `predict`, for each image its path, or ``picture 0`` and so on where it is from no file; else none.
    """

    labels: Tensor
    probabilities: Tensor
    profiles: Tensor
    keep_ratios: Tensor
    passes: Tensor
    params: Tensor
    macs: Tensor
    dense_macs: int = 1
    class_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Tensor:
            """What is computed when it is first asked for; all else is there."""
            if name not in _COSTS or not ("_prices" in self.__dict__ or "_whole" in self.__dict__):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            if "_whole" in self.__dict__:
                whole, row = self.__dict__["_whole"]
                self.__dict__[name] = getattr(whole, name)[row : row + 1]
                return self.__dict__[name]
            of_profile, prices = self.__dict__["_prices"]
            with torch.inference_mode(self.profiles.is_inference()):
                self.__dict__.update(zip(_COSTS, _costs(self.profiles, of_profile, prices), strict=True))
            return self.__dict__[name]

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled or copied: all attributes, and nothing to compute them with."""
        return {field.name: _alone(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def joined(cls, parts: Sequence[Prediction]) -> Prediction:
        """The predictions for several batches, one at least, as one."""
        first = parts[0]
        if len(parts) == 1:
            return first
        joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in _tensors(first)}
        names = tuple(name for part in parts for name in part.names)
        return dataclasses.replace(first, **joined, names=names)

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of the predicted class of each image, B of them; its number where classes have no names."""
        return tuple(self.class_names[label] if self.class_names else str(label) for label in self.labels.tolist())

    @property
    def confidence(self) -> Tensor:
        """The probability of the predicted class of each image, float32 in [0, 1], (B,)."""
        return self.probabilities.max(1).values

    @property
    def macs_share(self) -> Tensor:
        """What each image cost, as a share of the dense network's MACs, float64 (B,)."""
        return self.macs.double() / self.dense_macs

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        counts = Counter(self.classes)
        means = float(self.passes.double().mean()), float(self.macs_share.mean())
        return f"Prediction({in_words(len(self), counts, *means)})"

    def rows(self, order: Tensor) -> Prediction:
        """The predictions for the images at some indices, int64 (n,), in their order."""
        tensors: dict[str, Any] = {name: getattr(self, name)[order] for name in _tensors(self)}
        names = tuple(self.names[i] for i in order.tolist()) if self.names else ()
        return dataclasses.replace(self, **tensors, names=names)

    def row(self, index: int) -> Prediction:
        """The prediction for one image, which shares its memory with this one.

        Args:
            index: of the image, 0 or more.
        """
        if len(self) == 1:
            return self
        taken = slice(index, index + 1)
        one = object.__new__(Prediction)
        one.__dict__.update(
            labels=self.labels[taken],
            probabilities=self.probabilities[taken],
            profiles=self.profiles[taken],
            dense_macs=self.dense_macs,
            class_names=self.class_names,
            names=self.names[taken],
            _whole=(self, index),
        )
        return one


def _alone(value: Any) -> Any:
    """An attribute without the memory of other images, which would be stored with it."""
    shares = isinstance(value, Tensor) and value.untyped_storage().nbytes() > value.nbytes
    return value.clone() if shares else value


def _tensors(prediction: Prediction) -> list[str]:
    """Names of the attributes that are tensors."""
    names = [field.name for field in dataclasses.fields(prediction)]
    return [name for name in names if isinstance(getattr(prediction, name), Tensor)]


def in_words(n_images: int, counts: Mapping[str, int], passes: float, macs_share: float) -> str:
    """Predictions for some images in one line.

    Args:
        n_images: how many.
        counts: how many of each predicted class.
        passes: mean per image.
        macs_share: mean per image, as a share of the dense network's MACs.
    """
    ordered = sorted(counts.items(), key=lambda count: (-count[1], count[0]))
    shown = [f"{n} {name}" for name, n in ordered[:_MOST_NAMED]]
    if len(ordered) > _MOST_NAMED:
        shown.append(f"{sum(n for _, n in ordered[_MOST_NAMED:])} of {len(ordered) - _MOST_NAMED} other classes")
    images = "1 image" if n_images == 1 else f"{n_images} images"
    cost = f"on average {passes:.2f} passes and {macs_share:.3f} of the dense network's MACs"
    return f"{images}: {', '.join(shown)}; {cost}"


def predicted(
    logits: Tensor, profiles: Tensor, keep_ratios: Tensor, prices: CostBreakdown, class_names: tuple[str, ...] = ()
) -> Prediction:
    """Build a prediction from the results of all passes.

    Args:
        logits: of the final predictions, float32 (B, classes).
        profiles: index into the codebook of every pass, int64 (B, max_passes); -1 where there was none.
        keep_ratios: of every profile of the codebook, float32 (K, G).
        prices: cost of the network's parts.
        class_names: names of all classes.
    """
    probabilities = logits.softmax(1)
    prediction = object.__new__(Prediction)
    prediction.__dict__.update(
        labels=probabilities.argmax(1),
        probabilities=probabilities,
        profiles=profiles,
        dense_macs=int(prices.dense.macs),
        class_names=class_names,
        _prices=(keep_ratios, prices),
    )
    return prediction


def _costs(profiles: Tensor, keep_ratios: Tensor, prices: CostBreakdown) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keep ratios of the last pass, number of passes, active parameters and MACs of images; arguments as above."""
    passes = (profiles >= 0).sum(1)
    last = profiles.gather(1, passes[:, None] - 1)[:, 0]
    return keep_ratios[last], passes, *prices.of_passes(profiles)


def predictions_of(
    run: Callable[[Tensor], Prediction], prepared: Iterable[tuple[tuple[str, ...], Tensor]]
) -> Iterator[Prediction]:
    """What a network says of batches, one after another, with the names of their pictures.

    Args:
        run: the network.
        prepared: names and pixels of each batch, as `rlprune.deployment.inputs.batches` gives them.
    """
    for names, pixels in prepared:
        yield dataclasses.replace(run(pixels), names=names)
