"""Makes an ordinary copy of what a user hands over: unwrapped, in float32, every weight plain and a layer's own."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from rlprune.errors import ModelError

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_STATISTICS = ("weight", "bias", "running_mean", "running_var")
_BASES = (
    nn.Conv2d,
    nn.Conv1d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.BatchNorm2d,
    nn.BatchNorm1d,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.PReLU,
)


def plain_copy(model: object) -> nn.Module:
    """A copy of a network that computes the same with ordinary layers, on the CPU, in float32 and in eval mode.

    Wrappers (`DataParallel`, `torch.compile`) are taken off. What `weight_norm`, `spectral_norm`, `prune` and
    parametrisations compute becomes the weight itself. A weight that layers share becomes one weight for each of them.

    Args:
        model: a network.

    Raises:
        ModelError: it is no network whose layers and weights are all there.
    """
    network = _unwrapped(_checked(model))
    _check_weights(network)
    kept = {id(value): value.detach().clone() for value in _computed_tensors(network)}
    try:
        network = copy.deepcopy(network, dict(kept))
    except Exception as error:
        raise ModelError(f"{type(network).__name__} cannot be copied: {type(error).__name__}: {error}") from error
    network = network.cpu().eval()
    _remove_reparametrisations(network)
    network = network.float().requires_grad_(True) if _is_other_float(network) else network
    _separate_shared_weights(network)
    network = _with_plain_norms(network)
    for name, module in network.named_modules():
        _check_statistics(name, module)
    return network


def _checked(model: object) -> nn.Module:
    """The model, if it is one whose forward can be read."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "a TorchScript module has no layers that can be read; give the nn.Module that it was made from"
        )
    if isinstance(model, nn.Module):
        scripted = next(
            (name for name, part in model.named_modules() if isinstance(part, torch.jit.ScriptModule)), None
        )
        if scripted is not None:
            raise ModelError(
                f"{scripted} is a TorchScript module; put the nn.Module that it was made from in its place"
            )
        return model
    if isinstance(model, dict):
        raise ModelError(
            f"a {type(model).__name__} with {len(model)} entries is no network; if these are its weights, build the "
            "network and call network.load_state_dict(weights)"
        )
    if inspect.isclass(model):
        raise ModelError(f"{model.__name__} is a class, not a network; build one: {model.__name__}()")
    raise ModelError(f"a {type(model).__name__} is no network; a torch.nn.Module is needed")


def _unwrapped(network: nn.Module) -> nn.Module:
    """What is inside wrappers that only distribute or compile."""
    while True:
        if isinstance(network, _WRAPPERS):
            network = network.module
        elif isinstance(getattr(network, "_orig_mod", None), nn.Module):
            network = network._orig_mod  # type: ignore[assignment]
        else:
            return network


def _check_weights(network: nn.Module) -> None:
    """Refuse weights that are not there yet, or that no float32 network can hold."""
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if nn.parameter.is_lazy(value):
            raise ModelError(f"{name} has no shape yet; run the network on one batch of images before handing it over")
        if value.is_meta:
            raise ModelError(f"{name} is on the meta device, where it has no values; load the weights first")
        if value.is_complex() or value.is_quantized:
            raise ModelError(f"{name} has dtype {value.dtype}; networks of real floating-point numbers are needed")


def _computed_tensors(network: nn.Module) -> list[Tensor]:
    """Tensors that modules hold as the results of computations, which Python cannot copy."""
    values = [value for module in network.modules() for value in vars(module).values()]
    return [value for value in values if isinstance(value, Tensor) and not value.is_leaf]


def _remove_reparametrisations(network: nn.Module) -> None:
    """Turn weights that are computed anew for every pass into plain ones."""
    for module in network.modules():
        if parametrize.is_parametrized(module):
            kind = type(module)  # removal edits the class, which the copy shares with the original
            own = {key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")}
            module.__class__ = type(kind.__name__, kind.__bases__, own)
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
                if name in module._buffers:  # what torch leaves of a weight that is computed without gradients
                    value = module._buffers.pop(name)
                    module.register_parameter(name, nn.Parameter(value.detach().clone()))  # type: ignore[union-attr]
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]


def _is_other_float(network: nn.Module) -> bool:
    tensors: list[Tensor] = [*network.parameters(), *network.buffers()]
    return any(value.is_floating_point() and value.dtype != torch.float32 for value in tensors)


def _separate_shared_weights(network: nn.Module) -> None:
    """Give every layer weights of its own: one could not be sliced without the other."""
    seen: set[int] = set()
    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None and id(value) in seen:
                module._parameters[name] = nn.Parameter(value.detach().clone(), value.requires_grad)
            seen.add(id(value))


def _with_plain_norms(network: nn.Module) -> nn.Module:
    """Replace synchronised and frozen norms, and subclasses that change nothing, by the layers that they amount to."""
    for module in network.modules():
        for base in _BASES:
            if type(module) is not base and isinstance(module, base) and _inherits_forward(type(module), base):
                module.__class__ = base
        for name, child in module.named_children():
            setattr(module, name, _plain_norm(child))
    return _plain_norm(network)


def _check_statistics(name: str, module: nn.Module) -> None:
    """Refuse a batch norm whose results depend on the other images of a batch.

    Raises:
        ModelError: it is one.
    """
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is None:
        raise ModelError(
            f"{name} ({type(module).__name__}) has no running statistics (track_running_stats=False): what it gives "
            "for an image depends on the others of its batch; train the network with statistics, or use a GroupNorm"
        )


def _inherits_forward(kind: type[nn.Module], base: type[nn.Module]) -> bool:
    """Whether a subclass computes as its base does."""
    changed = {name for parent in kind.__mro__[: kind.__mro__.index(base)] for name in vars(parent)}
    return not changed & {"forward", "_conv_forward", "_check_input_dim", "weight", "bias", "__call__", "__getattr__"}


def _plain_norm(module: nn.Module) -> nn.Module:
    if type(module) is nn.SyncBatchNorm:
        return _batch_norm(module, module.eps)
    frozen = not any(True for _ in module.parameters()) and not any(True for _ in module.children())
    tensors: Any = module._buffers
    if frozen and type(module).__name__.startswith("Frozen") and set(_STATISTICS) <= set(tensors):
        return _batch_norm(module, float(getattr(module, "eps", 0.0)))
    return module


def _batch_norm(module: nn.Module, eps: float) -> nn.BatchNorm2d:
    """A batch norm with the parameters and statistics of another module."""
    weight, bias, mean, var = (getattr(module, name) for name in _STATISTICS)
    some = next(value for value in (mean, weight) if value is not None)
    norm = nn.BatchNorm2d(len(some), eps, affine=weight is not None, track_running_stats=mean is not None)
    with torch.no_grad():
        for name, value in zip(_STATISTICS, (weight, bias, mean, var), strict=True):
            if value is not None:
                getattr(norm, name).copy_(value)
    return norm.eval()
