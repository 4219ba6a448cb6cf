"""The allow-list of what a stored network may consist of: loading looks names up here and nowhere else."""

from __future__ import annotations

import builtins
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

_LAYER_NAMES = """Conv1d Conv2d ConvTranspose1d ConvTranspose2d Linear BatchNorm1d BatchNorm2d GroupNorm LayerNorm
    InstanceNorm1d InstanceNorm2d LocalResponseNorm RMSNorm
    CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish PReLU ReLU ReLU6
    RReLU SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink Softsign Tanh Tanhshrink Threshold
    AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveMaxPool1d AdaptiveMaxPool2d AvgPool1d AvgPool2d LPPool1d LPPool2d
    MaxPool1d MaxPool2d
    AlphaDropout Dropout Dropout1d Dropout2d FeatureAlphaDropout
    CircularPad2d ConstantPad1d ConstantPad2d ReflectionPad1d ReflectionPad2d ReplicationPad1d ReplicationPad2d
    ZeroPad1d ZeroPad2d
    ChannelShuffle Flatten Fold Identity PixelShuffle PixelUnshuffle Unflatten Unfold Upsample UpsamplingBilinear2d
    UpsamplingNearest2d""".split()
_OPERATOR_NAMES = "add sub mul truediv floordiv neg getitem pow mod gt ge lt le eq ne and_ or_ invert matmul".split()
_TORCH_NAMES = """abs adaptive_avg_pool1d add amax amin bmm cat ceil celu channel_shuffle chunk clamp clip concat conv1d
    conv2d conv_transpose2d cos cumsum div einsum erf exp expm1 flatten flip floor frac group_norm
    instance_norm layer_norm log log1p log2 log_softmax logical_and logical_not logical_or logsumexp matmul
    max maximum mean min minimum movedim mul neg norm permute pixel_shuffle pixel_unshuffle pow prelu prod
    reciprocal relu reshape roll round rsqrt selu sigmoid sign sin softmax split sqrt square squeeze stack
    std sub sum tanh tile transpose unbind unflatten unsqueeze var var_mean where""".split()
_FUNCTIONAL_NAMES = """adaptive_avg_pool2d adaptive_max_pool2d alpha_dropout avg_pool1d avg_pool2d batch_norm celu
    dropout dropout1d dropout2d elu gelu glu group_norm hardshrink hardsigmoid hardswish hardtanh instance_norm
    interpolate layer_norm leaky_relu linear log_softmax logsigmoid lp_pool2d max_pool1d max_pool2d mish
    normalize pad relu relu6 rms_norm scaled_dot_product_attention selu sigmoid silu softmax softmin
    softplus softshrink softsign tanh tanhshrink threshold unfold upsample""".split()


def _by_qualified_name() -> dict[str, Any]:
    functions = [getattr(operator, name) for name in _OPERATOR_NAMES]
    functions += [getattr(torch, name) for name in _TORCH_NAMES]
    functions += [getattr(F, name) for name in _FUNCTIONAL_NAMES]
    functions.append(builtins.getattr)
    return {fx.node._get_qualified_name(function): function for function in functions}


LAYERS: dict[str, type[nn.Module]] = {name: getattr(nn, name) for name in _LAYER_NAMES}
"""Layer classes by name."""
LATER_ARGUMENTS: dict[str, dict[str, Any]] = {
    name: {"bias": True} for name in "BatchNorm1d BatchNorm2d GroupNorm InstanceNorm1d InstanceNorm2d".split()
}
"""Arguments that layers have in later versions of torch than the lowest supported one, with their defaults there."""
FUNCTIONS = _by_qualified_name()
"""Functions by qualified name."""
METHODS = frozenset(
    """abs add amax amin bmm ceil chunk clamp clip contiguous cumsum detach dim div eq exp expand expand_as flatten
    flip float floor ge gt le log log_softmax logsumexp lt matmul max maximum mean min minimum movedim mul
    narrow ne neg norm permute pow prod reciprocal relu repeat reshape reshape_as roll round rsqrt select
    sigmoid sign size softmax split sqrt square squeeze std sub sum t tanh to transpose type_as unbind
    unflatten unfold unsqueeze var view view_as where""".split()
)
"""Names of tensor methods."""
ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device"})
"""Names of tensor attributes that `getattr` may read."""
DTYPES = {str(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)}
"""Number formats by name."""
