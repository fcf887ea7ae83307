"""Measure the time and memory that ``run`` needs in addition to the network.

    python benchmarks/overhead.py [--repeats 5]

For the networks of ``digits`` (batch 64) and ``cifar10`` (batch 16) at S = 50 with kappa = 1,
prints two numbers: the time of ``run``, including noise, relative to the same number of bare
network calls (median and range of paired repeats); and the peak memory of live tensors above that
of the network, in units of one batch. Weights are random, because they affect neither.
"""

from __future__ import annotations

import argparse
import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastdpm import Plan, SampleNoise, VarianceSchedule, ddim_rev, levels_step, run
from fastdpm.core import multistep_3
from fastdpm.networks.build import build_network
from fastdpm.training.config import TrainConfig, read_train_config

NUM_STEPS = 50


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live tensors and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count the memory of its outputs."""
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self._note(value.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self._known or size == 0:
            return
        self._known.add(address)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, address, size)

    def _free(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.live -= size


def peak_of(call: Callable[[], Any]) -> int:
    """Return the peak bytes of tensors created by ``call``."""
    memory = LiveMemory()
    with memory:
        call()
    return memory.peak


def compare(name: str, batch: int, repeats: int) -> None:
    """Print the numbers of one network."""
    config = read_train_config(name)
    if not isinstance(config, TrainConfig):
        raise SystemExit(f"{name} is no diffusion model")
    schedule = VarianceSchedule.from_config(config.schedule)
    torch.manual_seed(0)
    network = build_network(config.network).eval().requires_grad_(False)
    noise = SampleNoise(0, range(batch))
    x = noise.start(config.data.shape)
    plan = ddim_rev(levels_step(schedule, NUM_STEPS), kappa=1.0)
    t = torch.full((batch,), 500.0)

    def bare() -> None:
        for _ in range(NUM_STEPS):
            network(x, t)

    ratios = []
    network(x, t)
    for _ in range(repeats):
        times = [_seconds(bare), _seconds(lambda: run(plan, network, x, noise=noise))]
        times += [_seconds(bare)]
        ratios.append(times[1] / (0.5 * (times[0] + times[2])))
    print(
        f"{name}, batch {batch}: run / {NUM_STEPS} bare calls = {statistics.median(ratios):.3f}"
        f" (median of {repeats}, {min(ratios):.3f} to {max(ratios):.3f})"
    )
    own = peak_of(lambda: network(x, t))
    for label, chosen in (
        ("ddim-rev", plan),
        ("multistep-3", multistep_3(levels_step(schedule, 8))),
    ):
        _print_memory(label, chosen, network, x, noise, own)


def _print_memory(
    label: str, plan: Plan, network: torch.nn.Module, x: Tensor, noise: SampleNoise, own: int
) -> None:
    state = x.nbytes
    extra = (peak_of(lambda: run(plan, network, x, noise=noise)) - own) / state
    allowed = plan.a.shape[1] + plan.b.shape[1] + 2
    # The caller created the start, which is one of the plan's states, so it is added.
    print(
        f"  {label}: peak above the network's own {own / 2**20:.1f} MiB: {extra + 1:.2f} batch"
        f" states (allowed {allowed})"
    )


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Measure both networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    compare("digits", 64, repeats)
    compare("cifar10", 16, repeats)


if __name__ == "__main__":
    main()
