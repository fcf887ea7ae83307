"""Points on a spiral: train a network, choose noise levels, sample, draw and measure."""

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastdpm import VarianceSchedule, ddim_rev, levels_var, run
from fastdpm.core import standard

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=4000, help="training steps")
parser.add_argument("--out", default="toy-2d.png", help="picture to write")
args = parser.parse_args()
torch.manual_seed(0)


def spiral(n: int, seed: int) -> Tensor:
    """Points of a swiss roll, shape (n, 2), scaled to about unit variance."""
    rng = np.random.default_rng(seed)
    angle = 1.5 * np.pi * (1 + 2 * rng.random((n, 1)))
    points = angle / 6.5 * np.hstack([np.cos(angle), np.sin(angle)])
    return torch.tensor(points + 0.03 * rng.normal(size=(n, 2)), dtype=torch.float32)


def network(x: Tensor, t: Tensor) -> Tensor:
    """Predict the noise in points x (n, 2) at zero-based, real-valued steps t (n,)."""
    wave = t[:, None] * torch.logspace(-1.5, -3, 4)  # slow waves, so that any t between will do
    out: Tensor = layers(torch.cat([x, wave.sin(), wave.cos()], dim=1))
    return out


hidden = [m for size in (10, 128, 128, 128) for m in (nn.Linear(size, 128), nn.ReLU())]
layers = nn.Sequential(*hidden, nn.Linear(128, 2))
schedule = VarianceSchedule.linear(num_train_steps=1000, beta_start=1e-4, beta_end=0.02)
r = torch.tensor(schedule.alpha_bar).float().sqrt()[:, None]  # index 0 is the network's t = 0
data, adam = spiral(20_000, seed=0), torch.optim.Adam(layers.parameters())
rate = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=6e-3, total_steps=args.steps)
for _ in range(args.steps):
    x0, t = data[torch.randint(20_000, (256,))], torch.randint(1000, (256,))
    eps = torch.randn_like(x0)
    guess = network(r[t] * x0 + (1 - r[t] ** 2).sqrt() * eps, t.float())
    adam.zero_grad()
    (guess - eps).square().mean().backward()  # type: ignore[no-untyped-call]
    adam.step()
    rate.step()

plans = {f"S = {n}": ddim_rev(levels_var(schedule, n, "quadratic"), 1.0) for n in (20, 10, 5)}
points = {"data": spiral(2000, seed=1)}
for name, plan in ({"T = 1000": standard(schedule)} | plans).items():
    points[name] = run(plan, network, torch.randn(2000, 2), noise=lambda _, x: torch.randn_like(x))
figure = Figure(figsize=(13, 3), layout="constrained")
for axes, (name, p) in zip(figure.subplots(1, 5), points.items(), strict=True):
    off = torch.cdist(p, data).amin(1)  # to the nearest point that was trained on
    print(f"{name}: off by {off.mean():.4f} ± {off.std() / 2000**0.5:.4f}")
    axes.scatter(*p.T, s=1)
    axes.set(title=name, xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
figure.savefig(args.out)
