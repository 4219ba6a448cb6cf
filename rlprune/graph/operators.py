"""What a stored network may consist of: loading looks names up here and nowhere else."""

from __future__ import annotations

import builtins
import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

# What a stored network may consist of. Loading looks names up here and nowhere else: a file can call nothing but these.
LAYERS: dict[str, type[nn.Module]] = {
    name: getattr(nn, name)
    for name in """Conv2d ConvTranspose2d Linear BatchNorm2d BatchNorm1d GroupNorm LayerNorm InstanceNorm2d
    LocalResponseNorm ReLU ReLU6 LeakyReLU PReLU ELU GELU SiLU Mish Sigmoid Tanh Hardswish Hardsigmoid Hardtanh Softplus
    Softmax LogSoftmax MaxPool2d AvgPool2d AdaptiveAvgPool2d AdaptiveMaxPool2d Dropout Dropout2d Identity Flatten
    Unflatten Upsample PixelShuffle ZeroPad2d ReflectionPad2d ChannelShuffle""".split()
}
FUNCTIONS = {
    fx.node._get_qualified_name(function): function
    for function in (
        *(getattr(operator, name) for name in "add sub mul truediv floordiv neg getitem pow mod".split()),
        *(
            getattr(torch, name)
            for name in """add sub mul div flatten cat concat mean sum relu sigmoid tanh softmax clamp reshape permute
            transpose squeeze unsqueeze chunk split stack exp sqrt rsqrt abs maximum minimum amax amin matmul bmm
            adaptive_avg_pool1d channel_shuffle conv2d""".split()
        ),
        *(
            getattr(F, name)
            for name in """relu relu6 leaky_relu elu gelu silu mish hardswish hardsigmoid hardtanh softplus softmax
            log_softmax max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d dropout dropout2d pad interpolate
            normalize batch_norm layer_norm linear""".split()
        ),
        builtins.getattr,
    )
}
METHODS = frozenset(
    """add sub mul div view reshape flatten permute transpose contiguous mean sum amax amin max relu
    sigmoid tanh softmax clamp size dim squeeze unsqueeze chunk split expand expand_as
    view_as reshape_as repeat pow sqrt rsqrt exp float type_as to""".split()
)
ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device"})
DTYPES = {str(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)}
