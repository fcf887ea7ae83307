"""Noise that depends on (seed, sample, row) only, so that it is the same on every device.

Philox is a counter-based generator: the noise of a row does not depend on earlier rows.
Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.tensors import device_of

Noise = Callable[[int, Tensor], Tensor]

_START = 0


def draw(noise: Noise, row: int, x: Tensor) -> Tensor:
    """Draw the noise of a row for states ``x``.

    Raises:
        InvalidArgumentError: If ``noise`` returns anything but a tensor in the shape, type and
            device of ``x``, or changes ``x``.
    """
    # Inference tensors have no version counter.
    own, before = (x.clone(), 0) if x.is_inference() else (x, x._version)
    z = noise(row, own)
    if own is x and x._version != before:
        raise InvalidArgumentError(
            f"row {row}: `noise` changed the state in place: return a new tensor, such as"
            " torch.randn_like(x)"
        )
    found = _described(z) if isinstance(z, Tensor) else type(z).__name__
    if not isinstance(z, Tensor) or found != _described(x):
        raise InvalidArgumentError(
            f"row {row}: `noise` must return a tensor like the state, {_described(x)}, got {found}"
        )
    return z


def _described(x: Tensor) -> str:
    return f"shape {tuple(x.shape)}, {x.dtype} on {x.device}"


class SampleNoise:
    """Reproducible standard normal noise for a batch of samples.

    Pass it to :func:`fastdpm.run` as ``noise``; :meth:`start` draws the first states. Numbers are
    drawn on the CPU in float64 and then cast. They do not depend on the device, the type of the
    state, the batch size or the order of calls, but may change with the version of NumPy.

    Args:
        seed: Seed in [0, 2^64).
        samples: Index of each sample of the batch, in [0, 2^64).

    Raises:
        InvalidArgumentError: If the seed or an index is out of range.
    """

    @checked
    def __init__(self, seed: int, samples: Sequence[int]) -> None:
        for name, value in (("seed", seed), *(("samples", index) for index in samples)):
            if not 0 <= value < 2**64:
                raise InvalidArgumentError(
                    f"`{name}` must be an integer in [0, 2^64), got {value}"
                )
        self.seed = seed
        self.samples = tuple(samples)

    @checked
    def start(
        self,
        shape: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw the first states, shape (samples, *shape)."""
        if any(size < 0 for size in shape):
            raise InvalidArgumentError(f"`shape` must be sizes of at least 0, got {tuple(shape)}")
        return self._draw(_START, tuple(shape), dtype, device_of(device))

    @checked
    def __call__(self, row: int, x: Tensor) -> Tensor:
        """Draw the noise of a zero-based ``row`` in the shape, type and device of ``x``."""
        if not 0 <= row < 2**62:
            raise InvalidArgumentError(f"`row` must be in [0, 2^62), got {row}")
        if x.ndim == 0 or x.shape[0] != len(self.samples):
            raise InvalidArgumentError(
                f"the batch `x` has shape {tuple(x.shape)}, but its noise was created for"
                f" {len(self.samples)} samples"
            )
        return self._draw(row + 1, tuple(x.shape[1:]), x.dtype, x.device)

    def _draw(
        self, counter: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        if not dtype.is_floating_point:
            raise InvalidArgumentError(f"noise needs a floating-point `dtype`, got {dtype}")
        out = torch.empty(
            (len(self.samples), *shape),
            dtype=dtype,
            device="cpu",
            pin_memory=device.type == "cuda",
        )
        for i, sample in enumerate(self.samples):
            key = np.array([self.seed, sample], dtype=np.uint64)
            bits = np.random.Philox(key=key, counter=[0, 0, 0, counter])
            values = np.random.Generator(bits).standard_normal(shape)
            out[i] = torch.from_numpy(np.asarray(values))
        return out.to(device, non_blocking=True)
