"""The deployed network: a policy picks each image's profile, and the image runs through that profile's slice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.data.image_set import InputFormat, PixelScale, normalise
from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.described import costs_in_words, described
from rlprune.deployment.images import Images, as_batch
from rlprune.deployment.inputs import BATCH_SIZE, Pictures, batches
from rlprune.deployment.prediction import Prediction, predicted, predictions_of
from rlprune.deployment.pretrained import Pretrained
from rlprune.deployment.slices import Slices
from rlprune.elastic.module import ElasticModule
from rlprune.errors import RLPruneError
from rlprune.policies.loop import first_profile, folded, run_policy
from rlprune.policies.one_image import SingleImagePolicy
from rlprune.policies.passes import CostBreakdown, Limit, PassResult, Run
from rlprune.policies.policy import Policy, check_fit
from rlprune.profiles.cost import Cost
from rlprune.utils.finite import finite_logits
from rlprune.utils.hardware import check_device
from rlprune.utils.process import MOST_KEPT

_NO_FEATURES = torch.zeros(1, 0)
"""What is observed of an image by a policy that observes no features; to ask for it takes as long as a decision."""


class DynamicCNN(Pretrained):
    """Predicts with as much of the network as each image needs.

    Args:
        elastic: the network.
        policy: the policy, with its codebook.
        mean: per channel, of pixel values in [0, 1].
        std: per channel, likewise.
        classes: class names.
        device: where the network runs, such as cpu or cuda; predictions are on the CPU.
        memory: room for prepared slices, in multiples of the dense network's parameters; see
            `rlprune.deployment.slices.Slices`.
        compiled: speed the slices up with `torch.compile`; the first batches then take a while.
        max_batch: how many images run together; larger batches are split. If None, on the CPU as many as have stem
            features of at most 32 MiB, above which memory is allocated anew for every batch, but at least 16; on other
            devices all.
        dtype: number format the network computes in: float32, bfloat16 or float16; the policy decides in float32.
        preprocessing: how pictures come to their size, and the order of channels that the network reads.

    With a policy for a range of penalties, the cost of images can change from call to call; see `at`.

    Several threads may call it at once. It can be pickled and copied.

    Raises:
        BundleError: the policy was trained for another network.
        RLPruneError: `max_batch` is below 1, `memory` is below 0, or `dtype` is not supported.

    Attributes:
        codebook: int64 (K, G).
        metadata: notes from the bundle it was loaded from.
        source_policy: the policy that was given.
        policy: the policy that decides: `source_policy` at `penalty`.
        folded: the same, as it runs.
        penalty: the penalty decided at, where the policy was trained for a range; else None.
        prices: active parameters and MACs of stem, bodies, decision and dense network.
        first: profile that every image runs first, where the policy observes no features; else None.
        max_batch: how many images run together; None for all.
        dtype: number format the network computes in.
        slices: the stem, and the bodies of all profiles, as many of them prepared as there is room for.
    """

    _limit: Limit | None = None

    def __init__(
        self,
        elastic: ElasticModule,
        policy: Policy,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        classes: tuple[str, ...],
        device: str | torch.device = "cpu",
        *,
        memory: float = 2.0,
        compiled: bool = False,
        max_batch: int | None = None,
        dtype: torch.dtype = torch.float32,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        check_fit(elastic, policy, classes)
        if max_batch is not None and (type(max_batch) is not int or max_batch < 1):
            raise RLPruneError(f"max_batch is {max_batch!r}; 1 or more images, or None, is needed")
        try:
            check_device(str(device))
        except ValueError as error:
            raise RLPruneError(f"device={str(device)!r}: {error}") from error
        self.elastic = elastic.to(device).eval()
        self.device = torch.device(device)
        self.source_policy = policy.eval()
        self.mean = mean
        self.std = std
        self.classes = classes
        self.preprocessing = Preprocessing() if preprocessing is None else preprocessing
        self.metadata: dict[str, Any] = {}
        self.codebook = policy.codebook
        self.max_batch = max_batch or (_default_max_batch(elastic) if self.device.type == "cpu" else None)
        self.prices = CostBreakdown.of(Cost(elastic), policy.at())
        self._decide_at(policy.chosen())
        self.slices = Slices(self.elastic, self.codebook, memory=memory, compiled=compiled, dtype=dtype)
        self.dtype = dtype
        self._scale = PixelScale(self)
        self._ratios = torch.tensor(elastic.keep_ratios)[self.codebook]

    @classmethod
    def for_images(
        cls,
        elastic: ElasticModule,
        policy: Policy,
        images: InputFormat,
        device: str | torch.device = "cpu",
        **more: Any,
    ) -> DynamicCNN:
        """A network for images that are prepared like these.

        Args:
            elastic: the network.
            policy: the policy.
            images: an image set, or what is stored with a network.
            device: where the network runs.
            **more: further arguments of the class.
        """
        of_images = (images.mean, images.std, images.classes)
        return DynamicCNN(elastic, policy, *of_images, device, preprocessing=images.preprocessing, **more)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled or copied: all but the loop for one image, which is made anew where it arrives."""
        return {name: value for name, value in self.__dict__.items() if name != "_one_image"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was pickled or copied."""
        self.__dict__.update(state)
        self._decide_at(self.penalty)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images."""
        return self.elastic.image_shape

    def slice(self, profile: int) -> nn.Sequential:
        """The static network of one profile, norms folded.

        Args:
            profile: index into the codebook.

        Returns:
            Normalised images of `dtype`, (B, C, H, W) -> logits (B, classes).
        """
        return nn.Sequential(self.slices.stem, self.slices.prepared(profile))

    def at(self, *, budget: float | None = None, penalty: float | None = None) -> DynamicCNN:
        """The same network at another penalty; everything else, the prepared slices too, is shared.

        Args:
            budget: mean share of the dense network's MACs that images may cost.
            penalty: instead, the price of running the whole network, in correct predictions. If neither is given, the
                middle of the policy's range on the logarithmic scale.

        Raises:
            RLPruneError: both are given; the penalty or the budget is outside what the policy was trained for; or the
                policy was trained for a single penalty.
        """
        other = object.__new__(type(self))  # no copy, which would decide at the old penalty first
        other.__dict__.update(self.__dict__)
        other._decide_at(self.source_policy.chosen(penalty, budget))
        return other

    def limited(self, limit: Limit) -> DynamicCNN:
        """The same network, of whose passes only those run that a limit permits; everything else is shared.

        Args:
            limit: asked before every pass, or group of images that run one together.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._limit = limit
        return other

    @property
    def is_limited(self) -> bool:
        """Whether a limit was set, so that not all that the policy chooses runs."""
        return self._limit is not None

    def _decide_at(self, penalty: float | None) -> None:
        self.penalty = penalty
        self.policy = self.source_policy.at(penalty)
        self.first = first_profile(self.policy, self.prices)
        self.folded = folded(self.policy, self.first)
        self._one_image = SingleImagePolicy(self.policy, self.prices, self.first)

    @torch.inference_mode()
    def __call__(self, images: Images, *, budget: float | None = None, penalty: float | None = None) -> Prediction:
        """Classify a batch of any size.

        Args:
            images: a tensor or a NumPy array, uint8 in [0, 255] or float in [0, 1], (B, C, H, W), in any layout and on
                any device; or a PIL image, or a list of them, of any size.
            budget: for this call, as in `at`.
            penalty: for this call, as in `at`.

        Raises:
            DataError: images of another shape, type or range, or in another container.
            NotFiniteError: the logits overflow `dtype`, or are NaN.
            RLPruneError: a budget or a penalty that the policy was not trained for.
        """
        if budget is not None or penalty is not None:
            return self.at(budget=budget, penalty=penalty)(images)
        batch = as_batch(images, self.elastic.image_shape, self.preprocessing)
        if self.max_batch is None or len(batch) <= self.max_batch:
            return self._run(self.normalise(batch))
        return Prediction.joined([self._run(self.normalise(part)) for part in batch.split(self.max_batch)])

    def predict(
        self,
        images: Pictures,
        *,
        budget: float | None = None,
        penalty: float | None = None,
        batch_size: int = BATCH_SIZE,
        skip_unreadable: bool = False,
    ) -> Prediction:
        """Classify pictures of any size, prepared as the network was trained; files are read a batch at a time.

        Args:
            images: a file, a folder (searched with all that is below it, by name), a PIL image, an array (H, W) or
                (H, W, C), a tensor (C, H, W), or any number of them; numbers are uint8, or float in [0, 1]. What has
                the shape of the network's images, (C, H, W) or (B, C, H, W), is taken as it is.
            budget: as in `at`.
            penalty: as in `at`.
            batch_size: how many pictures are in memory at a time.
            skip_unreadable: leave out files that cannot be read, and say which; otherwise they are an error, which
                comes before anything runs, unless a file is damaged behind its first bytes.

        Returns:
            What calling it returns, with `Prediction.names`: the path of each picture.

        Raises:
            DataError: there are no pictures, or some cannot be read.
            NotFiniteError: the logits overflow `dtype`, or are NaN.
            RLPruneError: a budget or a penalty that the policy was not trained for.
        """
        how = {"batch_size": batch_size, "skip_unreadable": skip_unreadable}
        return Prediction.joined([*self.predictions(images, budget=budget, penalty=penalty, **how)])

    def predictions(
        self, images: Pictures, *, budget: float | None = None, penalty: float | None = None, **how: Any
    ) -> Iterator[Prediction]:
        """What `predict` does, one batch after another, for more pictures than there is memory for.

        Args:
            images: as for `predict`.
            budget: as for `predict`.
            penalty: as for `predict`.
            **how: `batch_size` and `skip_unreadable` of `predict`.
        """
        network = self if budget is None and penalty is None else self.at(budget=budget, penalty=penalty)
        return predictions_of(network, batches(images, self.image_shape, self.preprocessing, **how))

    def __repr__(self) -> str:
        costs = costs_in_words(self.prices, self.policy.observer.max_passes)
        runs = f"{self.device}, {str(self.dtype).removeprefix('torch.')}"
        penalties = self.source_policy.observer.penalties
        if penalties is None:
            return described(type(self).__name__, self.classes, self.image_shape, costs, runs)
        low, high = self.source_policy.limits
        price = f"penalty {self.penalty:.3g} of {penalties}, budgets {low:.3f} to {high:.3f}"
        return described(type(self).__name__, self.classes, self.image_shape, costs, price, runs)

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise images: uint8 in [0, 255] or float in [0, 1] -> float32, (B, C, H, W)."""
        whole = images.ndim == 4 and images.shape[1] == len(self.mean)
        if images.is_cpu and images.dtype == torch.uint8 and whole:
            scaled: Tensor = self._scale(images)
            return scaled
        return normalise(images, self.mean, self.std, bgr=self.preprocessing.bgr)

    def run_stem(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) -> features (B, F, H', W'), in the network's number format, on its device."""
        features: Tensor = self.slices.stem(images.to(self.device, self.dtype, memory_format=torch.channels_last))
        return features

    def run_body(self, profile: int, features: Tensor) -> Tensor:
        """Features (B, F, H', W') -> logits of a profile's slice, float32 (B, classes), on the CPU.

        Args:
            profile: index into the codebook.
            features: as `run_stem` returns them.

        Raises:
            NotFiniteError: the logits overflow `dtype`, or are NaN.
        """
        return finite_logits(self._body(profile, features).float().cpu(), self.dtype)

    def prediction_of(self, logits: Tensor, profiles: Tensor) -> Prediction:
        """The prediction that passes led to.

        Args:
            logits: final ones, float32 (B, classes).
            profiles: index into the codebook of every pass, int64 (B, max_passes); -1 where there was none.
        """
        return predicted(logits, profiles, self._ratios, self.prices, self.classes)

    def _run(self, images: Tensor) -> Prediction:
        features = self.run_stem(images)

        def run(bucket: Tensor, profile: int) -> Tensor:
            return self.run_body(profile, features if len(bucket) == len(features) else self._gather(features, bucket))

        passes = self._passes(features, run)
        return self.prediction_of(passes.logits, passes.profiles)

    def _gather(self, features: Tensor, bucket: Tensor) -> Tensor:
        return gathered(features, bucket)

    def _body(self, profile: int, features: Tensor) -> Tensor:
        logits: Tensor = self.slices[profile](features.contiguous(memory_format=torch.channels_last))
        return logits

    def _passes(self, features: Tensor, run: Run) -> PassResult:
        if len(features) == 1 and self.first is not None:
            return self._one_image.run(_NO_FEATURES, run, self._limit)
        observed = self._observed(features)
        if len(features) == 1:
            return self._one_image.run(observed, run, self._limit)
        return run_policy(self.folded, observed, self.prices, run, self.first, self._limit)

    def _observed(self, features: Tensor) -> Tensor:
        return self.policy.observer.features(features.float())


def gathered(features: Tensor, bucket: Tensor) -> Tensor:
    """The features of some images; since channels come last in memory, each image is copied as one block."""
    return features.permute(0, 2, 3, 1).index_select(0, bucket.to(features.device)).permute(0, 3, 1, 2)


def _default_max_batch(elastic: ElasticModule) -> int:
    """How many images have features that fit into memory which the C library keeps; see `rlprune.utils.process`."""
    return max(16, MOST_KEPT // (4 * math.prod(elastic.feature_shape)))
