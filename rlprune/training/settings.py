"""How networks are trained: one set of settings, checked when it is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field

from rlprune.utils.hardware import check_device
from rlprune.utils.settings import (
    AtMost,
    BatchSize,
    Epochs,
    LearningRate,
    Must,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    ShareBelowOne,
    as_tuple,
    settings_dataclass,
)

NO_COMPILING = (
    "compile=True: here every step runs other parts of a network, each of which would be compiled; leave it out"
)
"""Why what is not trained as a whole is not compiled."""
CropScale = Annotated[
    tuple[PositiveFloat, PositiveFloat],
    as_tuple,
    Must(lambda scale: scale[0] <= scale[1] <= 1, "two shares above 0 and up to 1, the smaller one first"),
]


@settings_dataclass
class TrainingSettings:
    """Stochastic gradient descent with momentum, a short warm-up and a cosine, to zero unless weights are averaged."""

    epochs: Epochs = 20
    """Passes over the training images; 0 leaves the network as it is."""
    batch_size: BatchSize = 128
    """Images per step."""
    learning_rate: LearningRate = 0.1
    """Peak learning rate."""
    momentum: ShareBelowOne = 0.9
    """Nesterov momentum."""
    weight_decay: Annotated[NonNegativeFloat, AtMost(10)] = 5e-4
    """L2 penalty on convolution and linear weights; norms and biases have none."""
    scale_penalty: Annotated[NonNegativeFloat, AtMost(10)] = 0.0
    """L1 penalty on the scales of batch norms, which makes those of unimportant channels small: they can then be ranked
    by `bn_scale` (Liu et al., "Network Slimming", ICCV 2017)."""
    warm_up: ShareBelowOne = 0.1
    """Share of the steps in which the learning rate rises."""
    clip_norm: PositiveFloat = 5.0
    """Gradients are scaled down to this norm."""
    padding: Annotated[NonNegativeInt, AtMost(4096)] = 4
    """Pixels by which images are shifted at random in every direction; 0 for none."""
    crop_scale: CropScale | None = None
    """Smallest and largest share of a picture's area that is cut out at random and scaled, in place of shifts, as
    pretrained networks expect: 0.08 1 is usual for ImageNet. Width / height is 3/4 to 4/3. Pictures in memory are cut
    as they are there, streamed ones before their middle is."""
    flip: bool = True
    """Mirror images at random; wrong for digits."""
    views: Annotated[NonNegativeInt, AtMost(1000)] = 0
    """Number of shifted and mirrored views of each image, always the same ones; 0 draws new ones every time."""
    early_size: Annotated[NonNegativeInt, AtMost(4096)] = 0
    """Pixels to which images are shrunk early in training, which is faster; 0 for never."""
    early_share: Share = 0.6
    """Share of the epochs that count as early, if `early_size` is given."""
    average_share: Share = 0.0
    """Share of the epochs, the last ones, over whose steps the weights are averaged; the learning rate stays what it
    has fallen to by then. 0 takes the last weights. (Izmailov et al., "Averaging Weights Leads to Wider Optima and
    Better Generalization", UAI 2018.)"""
    temperature: Annotated[float, Field(ge=0.01, le=1000)] = 2.0
    """Softens teacher and student alike, where there is a teacher."""
    distillation: Share = 0.7
    """Weight of the teacher's soft labels against the true ones, in [0, 1], where there is a teacher."""
    bf16: bool | None = None
    """Run convolutions in bfloat16 (autocast); if not given, where the hardware computes in it."""
    channels_last: bool = True
    """Keep tensors in channels-last memory format."""
    workers: Annotated[NonNegativeInt, AtMost(256)] | None = None
    """Processes that decode streamed images ahead; 0 decodes in the process that trains. As many as there are
    processors, at most 8, if not given. Results are the same for any number."""
    device: Annotated[str, AfterValidator(check_device)] = "cpu"
    """Where to train, such as cpu or cuda."""
    accumulate: Annotated[PositiveInt, AtMost(1024)] = 1
    """Pieces in which the images of a step go through the network, one after the other, for less memory; the gradient
    is that of the whole batch, but that norms see the statistics of each piece."""
    fp16: bool = False
    """Run convolutions in float16 on a GPU, with losses scaled so that small gradients are not lost: for cards that do
    not compute in bfloat16."""
    compile: bool = False
    """Compile the network (torch.compile) before it is trained, which pays for large ones; in one process alone."""
    seed: Seed = 0
    """Fixes the order of images, augmentation and random profiles: with it, on the same machine and as many threads, a
    training gives the same weights, byte for byte."""

    def _conflicts(self) -> Iterator[str]:
        if self.fp16 and self.bf16:
            yield "fp16=True and bf16=True are different numbers; give only one"
        if self.fp16 and torch.device(self.device).type != "cuda":
            yield f"fp16=True, device={self.device!r}: float16 is for GPUs; give device='cuda', or leave fp16 out"

    @property
    def memory_format(self) -> torch.memory_format:
        """Of networks and images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def size_in(self, epoch: int) -> int:
        """Pixels to which images are shrunk in an epoch; 0 leaves them."""
        return self.early_size if epoch < round(self.early_share * self.epochs) else 0

    @property
    def first_averaged(self) -> int:
        """The first epoch over whose steps weights are averaged; none has this number if they are not."""
        return self.epochs - round(self.average_share * self.epochs)

    @property
    def computes_in_bf16(self) -> bool:
        """Whether it was asked for, or, if nothing was said, whether the hardware computes in it."""
        if self.bf16 is None:
            return not self.fp16 and _computes_in_bf16(torch.device(self.device).type)
        return self.bf16

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for forward passes."""
        dtype = torch.float16 if self.fp16 else torch.bfloat16
        return torch.autocast(torch.device(self.device).type, dtype, enabled=self.fp16 or self.computes_in_bf16)


def _computes_in_bf16(device: str) -> bool:
    """Whether bfloat16 is a number format of the hardware, not one that is emulated."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))
    return False
