"""A latent model and its decoder: diffusion over 16 principal components of scikit-learn's digits.

    python examples/latent_decoder.py [--steps 1500]

The same network is trained twice, on latents scaled to unit variance and on unscaled ones, to
show why scaling matters. Needs the extra `eval`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fastdpm import Model, Recipe, VarianceSchedule, evaluate
from fastdpm.models import Decoder

SIZE = 16
SCHEDULE = VarianceSchedule.linear(num_train_steps=1000, beta_start=1e-4, beta_end=0.02)


class Autoencoder:
    """Principal components of scikit-learn's digits: 8 x 8 pixels from 0 to 16.

    Attributes:
        mean: Of the images, shape (64,).
        axes: The components, shape (SIZE, 64).
    """

    def __init__(self, images: Tensor) -> None:
        flat = images.flatten(1)
        self.mean: Tensor = flat.mean(0)
        self.axes: Tensor = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh[:SIZE]

    def encode(self, images: Tensor) -> Tensor:
        """Latents, shape (n, SIZE), of images, shape (n, 1, 8, 8)."""
        return (images.flatten(1) - self.mean) @ self.axes.T

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents."""
        return (self.mean + latents @ self.axes).reshape(-1, 1, 8, 8)


class Network(nn.Module):
    """Predicts the noise in latents."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(32, width), nn.SiLU())
        self.first = nn.Linear(SIZE, width)
        self.middle = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.last = nn.Linear(width, SIZE)
        self.gain = nn.Linear(width, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict eps, shaped like x (n, SIZE), at zero-based steps t (n,)."""
        angle = t[:, None] * torch.logspace(0, -3, 16, device=t.device)
        step = self.embed(torch.cat([angle.sin(), angle.cos()], dim=1))
        hidden = self.first(x)
        for layer in self.middle:
            hidden = hidden + layer(nn.functional.silu(hidden + step))
        out: Tensor = self.last(nn.functional.silu(hidden)) + self.gain(step) * x
        return out


def trained(latents: Tensor, steps: int) -> nn.Module:
    """Train a network on latents."""
    torch.manual_seed(0)
    network = Network()
    level = torch.tensor(SCHEDULE.alpha_bar).float().sqrt()[:, None]  # index 0 is the step t = 0
    adam = torch.optim.Adam(network.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        x0 = latents[torch.randint(len(latents), (256,))]
        t, eps = torch.randint(len(level), (256,)), torch.randn_like(x0)
        r = level[t]
        guess = network(r * x0 + (1 - r**2).sqrt() * eps, t.float())
        adam.zero_grad()
        (guess - eps).square().mean().backward()
        adam.step()
        rate.step()
    return network.eval()


def distance(samples: str | Path | Model, n: int | None = None) -> str:
    """Frechet distance to scikit-learn's digits and its standard error."""
    score = evaluate(samples, n=n).scores["frechet_distance"]
    return f"FD (digits-features) {score.value:.2f} ± {score.error:.2f}"


def main() -> None:
    """Encode, train, wrap network and decoder, and measure the decoded samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="training steps per network")
    parser.add_argument("-n", type=int, default=1000, help="samples to measure")
    args = parser.parse_args()
    images = torch.tensor(load_digits().images[:-360, None], dtype=torch.float32)
    coder = Autoencoder(images)
    latents = coder.encode(images)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "round-trip.npz"
        np.savez(file, (coder.decode(latents) / 8 - 1).clamp(-1, 1))
        print(f"digits, encoded and decoded: {distance(file)}")

    recipe = Recipe(num_steps=10, levels="var", spacing="quadratic", kappa=1.0)
    for name, scale in (("scaled", latents.std()), ("as-they-are", torch.ones(()))):

        def decode(x: Tensor, scale: Tensor = scale) -> Tensor:
            return coder.decode(x * scale) / 8 - 1  # from 0 ... 16 to the [-1, 1] of a model

        network = trained(latents / scale, args.steps)
        decoder = Decoder((SIZE,), decode)
        model = Model.wrap(
            network, SCHEDULE, (1, 8, 8), name=f"latents-{name}", decoder=decoder, recipe=recipe
        )
        print(f"latents {name}, deviation {(latents / scale).std():.2f}", end=", ")
        print(f"S = 10: {distance(model, args.n)}")


if __name__ == "__main__":
    main()
