"""Measure the time and memory that ``run`` needs in addition to the network.

    python benchmarks/overhead.py [--repeats 5]

For the networks of ``digits`` (batch 64) and ``cifar10`` (batch 16) at S = 50 with kappa = 1,
prints three numbers: the time of ``run``, including noise, relative to the same number of bare
network calls (median and range of paired repeats); the time of the guard (copies and checks of the
state, the output and the noise) as a share of ``run`` (median and quartiles of pairs of the loop
with and without it, around a network and noise that cost nothing); and the peak memory of live
tensors above that of the network, in units of one batch. Weights are random, because they affect
none of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastdpm import Plan, SampleNoise, VarianceSchedule, ddim_rev, levels_step, run
from fastdpm.core import multistep_3
from fastdpm.networks.build import build_network
from fastdpm.sampling.loop import combine
from fastdpm.sampling.network import Network, steps_like
from fastdpm.sampling.noise import Noise
from fastdpm.training.config import TrainConfig, read_train_config

NUM_STEPS = 50
_PAIRS = 200


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live tensors and their peak, without views of ``weights``."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known = {weight.untyped_storage().data_ptr() for weight in weights}

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


def peak_of(call: Callable[[], Any], network: torch.nn.Module) -> int:
    """Return the peak bytes of tensors created by ``call``, without the network's weights."""
    memory = LiveMemory([*network.parameters(), *network.buffers()])
    with memory:
        call()
    return memory.peak


@torch.no_grad()
def unguarded(plan: Plan, network: Network, x: Tensor, noise: Noise) -> Tensor:
    """Run a first-order plan without any copy or check, except that outputs are finite."""
    for row in range(plan.num_rows):
        eps = network(x, steps_like(x, float(plan.t[row])))
        if not torch.isfinite(eps).all():
            raise SystemExit("not finite")
        new = combine(plan, row, [x], [eps])
        if plan.c[row] > 0:
            new.add_(noise(row, x), alpha=float(plan.c[row]))
        x = new
    return x


def guard_cost(
    schedule: VarianceSchedule, network: torch.nn.Module, x: Tensor, noise: SampleNoise
) -> str:
    """Time the guard alone: pairs of both loops, with a network and noise that cost nothing."""
    plan, short = (ddim_rev(levels_step(schedule, count), kappa=1.0) for count in (10, 2))
    out, z = network(x, steps_like(x, 500.0)), noise(0, x)
    loops: list[Callable[[], Any]] = [
        lambda: unguarded(plan, lambda x, t: out, x, lambda row, x: z),
        lambda: run(plan, lambda x, t: out, x, noise=lambda row, x: z),
    ]
    calls = [_seconds(lambda: run(short, network, x, noise=noise)) for _ in range(5)]
    row = statistics.median(calls) / short.num_rows
    shares = []
    for pair in range(_PAIRS):
        order = [0, 1] if pair % 2 else [1, 0]
        times = {which: _seconds(loops[which]) for which in order}
        shares.append(100 * (times[1] - times[0]) / plan.num_rows / row)
    low, middle, high = statistics.quantiles(shares, n=4)
    return f"{middle:.3f} % (median of {_PAIRS} pairs, quartiles {low:.3f} to {high:.3f} %)"


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
    print(f"  guard: {guard_cost(schedule, network, x, noise)} of run")
    own = peak_of(lambda: network(x, t), network)
    for label, chosen in (
        ("ddim-rev", plan),
        ("multistep-3", multistep_3(levels_step(schedule, 8))),
    ):
        _print_memory(label, chosen, network, x, noise, own)


def _print_memory(
    label: str, plan: Plan, network: torch.nn.Module, x: Tensor, noise: SampleNoise, own: int
) -> None:
    state = x.nbytes
    extra = (peak_of(lambda: run(plan, network, x, noise=noise), network) - own) / state
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
