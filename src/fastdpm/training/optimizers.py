"""Optimizers: Adam, or Muon for the convolutions and Adam for all other weights.

Source of Muon: K. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError

OPTIMIZERS = ("adam", "muon")


class Optimizers:
    """One or more optimizers that are stepped together and share a schedule.

    Args:
        optimizers: The optimizers, each with its largest learning rate.
        clipped: The parameters whose gradients are clipped together.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer | ConvolutionMuon],
        clipped: Iterable[nn.Parameter],
    ) -> None:
        self.optimizers, self.clipped = optimizers, list(clipped)
        self._rates = [group["lr"] for group in self._groups()]

    def _groups(self) -> list[dict[str, Any]]:
        """The groups of parameters, which PyTorch replaces when it loads a state."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, share_of_rate: float, gradient_clip: float) -> None:
        """Clip the gradients, take a step at a share of the learning rates, and clear them.

        Args:
            share_of_rate: Factor of every learning rate, in [0, 1].
            gradient_clip: Maximum norm of the gradient, above 0.
        """
        nn.utils.clip_grad_norm_(self.clipped, gradient_clip)
        for group, rate in zip(self._groups(), self._rates, strict=True):
            group["lr"] = rate * share_of_rate
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of every optimizer."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Load the states of :meth:`state_dict`."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


class ConvolutionMuon:
    """PyTorch's Muon, which takes matrices, for the kernels of convolutions.

    A kernel of shape (out, in, ...) is a matrix of ``out`` rows that shares its memory.

    Args:
        kernels: Kernels with three or more axes.
        rate: The largest learning rate.
    """

    def __init__(self, kernels: Sequence[nn.Parameter], rate: float) -> None:
        self.kernels = kernels
        self._matrices = [nn.Parameter(_matrix(kernel.detach(), kernel)) for kernel in kernels]
        self._muon = torch.optim.Muon(self._matrices, lr=rate, weight_decay=0.0)
        self.state_dict, self.load_state_dict = self._muon.state_dict, self._muon.load_state_dict

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of parameters, as of any optimizer of PyTorch."""
        return self._muon.param_groups

    def step(self) -> None:
        """Take a step by the gradients of the kernels."""
        for kernel, matrix in zip(self.kernels, self._matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _matrix(kernel.grad, kernel)
        self._muon.step()  # type: ignore[no-untyped-call]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        for weight in (*self.kernels, *self._matrices):
            weight.grad = None


def adam(network: nn.Module, rate: float) -> Optimizers:
    """Adam, with a decay of squared gradients that suits short runs."""
    return Optimizers([_adam(network.parameters(), rate)], network.parameters())


def muon(network: nn.Module, rate: float, muon_rate: float) -> Optimizers:
    """Muon for the kernels of all convolutions except the first and the last; Adam for the rest.

    Muon makes the update of a kernel independent of the size of its gradient, so only the other
    gradients are clipped.

    Args:
        network: The network.
        rate: Learning rate of Adam.
        muon_rate: Learning rate of Muon.

    Raises:
        InvalidArgumentError: If PyTorch has no Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise InvalidArgumentError(
            f"`optimizer` muon needs torch 2.9 or later, but {torch.__version__} is installed"
        )
    kernels = [w for w in network.parameters() if w.ndim > 2 and w.numel() > len(w)][1:-1]
    known = {id(kernel) for kernel in kernels}
    rest = [weight for weight in network.parameters() if id(weight) not in known]
    return Optimizers([_adam(rest, rate), ConvolutionMuon(kernels, muon_rate)], rest)


def _adam(weights: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(weights, lr=rate, betas=(0.9, 0.99), fused=True)


def _matrix(values: Tensor, kernel: Tensor) -> Tensor:
    """Values of a kernel, shape (out, in, ...), as a matrix (out, the rest).

    The order of the columns follows the kernel's memory, so that the kernel itself is not copied.
    """
    if kernel.ndim == 4 and kernel.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)
    return values.flatten(1)
