"""The weights of other people's models that are made sparse: which they are, and finding them again later."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakIdKeyDictionary

from codesign.basics.errors import InputError, UnsupportedError

# The rewirer of each parameter that has one. Weak on both sides: it keeps neither alive.
_owners: Any = WeakIdKeyDictionary()


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without the wrappers that prefix its parameters' names."""
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return unwrapped(model.module)
    inner = getattr(model, "_orig_mod", None)
    return unwrapped(inner) if isinstance(inner, nn.Module) else model


def plain_name(name: str) -> str:
    """A parameter's name as it is without torch.compile, which a part of a model may be wrapped in."""
    return name.replace("_orig_mod.", "")


def find_parameter(model: nn.Module, name: str) -> nn.Parameter | None:
    """What is there by a name now; None if nothing is."""
    *path, last = name.split(".")
    module: nn.Module | None = model
    for part in path:
        module = module._modules.get(part) if module is not None else None
    return module._parameters.get(last) if module is not None else None


def sparse_parameters(
    model: nn.Module, include: str | Sequence[str] | None, exclude: str | Sequence[str]
) -> dict[str, nn.Parameter]:
    """Trainable parameters of more than one dimension that the patterns choose, by name; a shared one by its first.

    A text is a single pattern.

    Raises InputError if a pattern matches nothing, nothing is left or a parameter has no values yet, UnsupportedError
    for a parameter that is not the weight that the model computes with, or not a dense real tensor.
    """
    include = [include] if isinstance(include, str) else include
    exclude = [exclude] if isinstance(exclude, str) else exclude
    names: dict[int, list[str]] = {}
    every: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        every[id(parameter)] = parameter
    for kind, patterns in (("include", include or ()), ("exclude", exclude)):
        for pattern in patterns:
            if not any(_matches(known, [pattern]) for known in names.values()):
                known = ", ".join(name for known in names.values() for name in known)
                raise InputError(f"PQRewirer: {kind} {pattern!r} matches no parameter; there are {known}")
    found = {}
    for key, known in names.items():
        parameter = every[key]
        if (include is not None and not _matches(known, include)) or _matches(known, exclude):
            continue
        if is_lazy(parameter):
            raise InputError(
                f"PQRewirer: {known[0]!r} has no values yet (a lazy module); run one batch through the model first"
            )
        if parameter.dim() > 1 and parameter.requires_grad:
            _check_supported(model, known[0], parameter)
            found[known[0]] = parameter
    if not found:
        raise InputError("PQRewirer: the model has no trainable parameter with more than one dimension to make sparse")
    return found


def _matches(names: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _check_supported(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    tensor = _computed_from(model, name)
    if tensor is not None:
        raise UnsupportedError(
            f"PQRewirer: {name!r} is not the weight itself: the model computes {tensor!r} from it (weight or spectral "
            f"norm, another parametrisation, or torch's pruning); remove that first, or exclude {name!r}"
        )
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is not None and isinstance(parameter.data, distributed.DTensor):
        raise UnsupportedError(f"PQRewirer: {name!r} is spread over several devices; exclude it")
    if parameter.is_meta:
        raise InputError(f"PQRewirer: {name!r} has no values yet (device 'meta'); load the model first")
    if parameter.layout != torch.strided or not parameter.is_floating_point():
        kind = f"{parameter.layout}, {parameter.dtype}"
        raise UnsupportedError(f"PQRewirer: {name!r} is no dense tensor of real numbers ({kind}); exclude it")


def _computed_from(model: nn.Module, name: str) -> str | None:
    """Name of the tensor that a module computes from a parameter before it is used; None if the parameter is used."""
    *path, last = name.split(".")
    if "parametrizations" in path:
        return ".".join([*path[: path.index("parametrizations")], path[path.index("parametrizations") + 1]])
    # Of the older ways each has a hook before the forward pass, which knows the tensor's name.
    for hook in model.get_submodule(".".join(path))._forward_pre_hooks.values():
        tensor = getattr(hook, "name", None) or getattr(hook, "_tensor_name", None)
        if isinstance(tensor, str) and last in (f"{tensor}_g", f"{tensor}_v", f"{tensor}_orig"):
            return ".".join([*path, tensor])
    return None


def check_unowned(parameters: Mapping[str, Tensor], owner: object | None = None) -> None:
    """InputError if another rewirer than ``owner`` works on one of the parameters."""

    def has_another(parameter: Tensor) -> bool:
        reference = _owners.get(parameter)
        return reference is not None and reference() not in (None, owner)

    for name, parameter in parameters.items():
        if has_another(parameter):
            # A rewirer and its optimiser hold each other: together they may be waiting for the garbage collector.
            gc.collect()
        if has_another(parameter):
            raise InputError(
                f"PQRewirer: another PQRewirer works on {name!r} already; call its detach() first, or exclude {name!r}"
            )


def own(parameters: Mapping[str, Tensor], owner: object) -> None:
    """Remember who rewires the parameters."""
    for parameter in parameters.values():
        _owners[parameter] = weakref.ref(owner)


def disown(parameters: Mapping[str, Tensor]) -> None:
    """Forget who rewires the parameters."""
    for parameter in parameters.values():
        _owners.pop(parameter, None)
