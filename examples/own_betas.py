"""A plain PyTorch module with its own table of betas, trained on scikit-learn's digits.

    python examples/own_betas.py [--steps 3000]

First `run` samples the bare network with a plan. Then `Model.wrap` adds seeds, batches and
measurements to the same network. Needs the extra `eval`.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fastdpm import (
    Model,
    Recipe,
    SampleNoise,
    VarianceSchedule,
    ddim_rev,
    evaluate,
    levels_var,
    run,
)


class Network(nn.Module):
    """Predicts the noise in images of 8 x 8 pixels. A plain module that does not use fastdpm.

    Attributes:
        betas: beta_1 ... beta_T, shape (T,), rising along a sigmoid.
    """

    betas: Tensor

    def __init__(self, num_train_steps: int = 200, width: int = 256) -> None:
        super().__init__()
        rise = torch.linspace(-6, 6, num_train_steps, dtype=torch.float64).sigmoid()
        self.register_buffer("betas", 1e-4 + 0.1 * rise)
        self.embed = nn.Sequential(nn.Linear(32, width), nn.SiLU())
        self.first = nn.Linear(64, width)
        self.middle = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.last = nn.Linear(width, 64)
        self.gain = nn.Linear(width, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict eps, shaped like x (n, 1, 8, 8), at zero-based steps t (n,)."""
        angle = t[:, None] * torch.logspace(0, -2.5, 16, device=t.device)
        step = self.embed(torch.cat([angle.sin(), angle.cos()], dim=1))
        hidden = self.first(x.flatten(1))
        for layer in self.middle:
            hidden = hidden + layer(nn.functional.silu(hidden + step))
        out: Tensor = self.last(nn.functional.silu(hidden)) + self.gain(step) * x.flatten(1)
        return out.reshape(x.shape)


def train(network: nn.Module, data: Tensor, level: Tensor, steps: int) -> None:
    """Fit eps at random steps; level (T,) is sqrt(alpha_bar), index 0 is the step t = 0."""
    adam = torch.optim.Adam(network.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        x0 = data[torch.randint(len(data), (128,))]
        t, eps = torch.randint(len(level), (128,)), torch.randn_like(x0)
        r = level[t].reshape(-1, 1, 1, 1)
        guess = network(r * x0 + (1 - r**2).sqrt() * eps, t.float())
        adam.zero_grad()
        (guess - eps).square().mean().backward()
        adam.step()
        rate.step()


def main() -> None:
    """Train, sample with a plan, wrap the network, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000, help="training steps")
    parser.add_argument("-n", type=int, default=1000, help="samples to measure")
    args = parser.parse_args()
    torch.manual_seed(0)
    network = Network()
    data = torch.tensor(load_digits().images[:-360, None], dtype=torch.float32) / 8 - 1
    level = (1 - network.betas).cumprod(0).sqrt().float()
    train(network, data, level, args.steps)
    network.eval()

    schedule = VarianceSchedule.from_betas(network.betas.numpy())
    plan = ddim_rev(levels_var(schedule, 10, "quadratic"), kappa=1.0)
    noise = SampleNoise(seed=0, samples=range(16))
    images = run(plan, network, noise.start((1, 8, 8)), noise=noise).clamp(-1, 1)

    recipe = Recipe(num_steps=10, levels="var", spacing="quadratic", kappa=1.0)
    model = Model.wrap(network, schedule, (1, 8, 8), name="own-betas", recipe=recipe)
    apart = (model.sample(16, seed=0, batch_size=5) - images).abs().max()
    print(f"run and Model.sample differ by at most {apart:.1e}")

    real = evaluate("sklearn:digits-test").scores["frechet_distance"]
    print(f"held-out digits: FD (digits-features) {real.value:.2f} ± {real.error:.2f}")
    for name, chosen in (("T = 200", Recipe(method="standard")), ("S = 10", recipe)):
        score = evaluate(model, n=args.n, recipe=chosen).scores["frechet_distance"]
        print(f"{name}: FD (digits-features) {score.value:.2f} ± {score.error:.2f}")


if __name__ == "__main__":
    main()
