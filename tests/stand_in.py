"""A device without float64, played by the CPU: what MPS refuses is refused here too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

DEVICE = torch.device("mps", 0)


class OnDevice(Tensor):
    """A tensor that says it is on the device; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> OnDevice:
        if held.dtype in (torch.float64, torch.complex128):
            raise TypeError("the device has no float64")
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _evaluated(func, args, kwargs or {})


class StandIn(TorchDispatchMode):
    """Where tensors can be created on the device and moved to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _evaluated(func, args, kwargs or {})


def _evaluated(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors: list[Tensor] = []
    tree_map_only(Tensor, tensors.append, (args, kwargs))
    there = [x for x in tensors if isinstance(x, OnDevice)]
    here = [x for x in tensors if not isinstance(x, OnDevice) and x.ndim > 0]
    moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    indexes = func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)
    if there and here and not (moves or indexes):
        raise RuntimeError(f"{func}: expected all tensors on one device, found mps and cpu")
    on_device = bool(there)
    if kwargs.get("device") is not None:
        on_device = torch.device(kwargs["device"]).type == DEVICE.type
        kwargs = kwargs | {"device": torch.device("cpu")}
    if func is torch.ops.aten.copy_.default:
        on_device = isinstance(args[0], OnDevice)
    plain = tree_map_only(OnDevice, lambda x: x.held, (args, kwargs))
    out = func(*plain[0], **plain[1])
    for argument in there:  # an operation in place returns its argument
        if out is argument.held:
            return argument
    return tree_map_only(Tensor, OnDevice, out) if on_device else out
