"""A model with class labels and a null class, and classifier-free guidance.

    python examples/class_guidance.py [--steps 800]

Prints how often the classifier `digits-features` (97.78 ± 0.78 % accuracy on held-out digits)
recognizes the requested digit. Needs scikit-learn: install the extra `train`.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fastdpm import Model, Recipe, VarianceSchedule
from fastdpm.models.features import load_features

NO_LABEL = 10


class Network(nn.Module):
    """Predicts the noise in digits of 8 x 8 pixels, conditioned on the digit or ``NO_LABEL``."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(32, width), nn.SiLU())
        self.label = nn.Embedding(NO_LABEL + 1, width)
        self.first = nn.Linear(64, width)
        self.middle = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.last = nn.Linear(width, 64)
        self.gain = nn.Linear(width, 1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Predict eps, shaped like x (n, 1, 8, 8), at zero-based steps t (n,) for labels (n,)."""
        angle = t[:, None] * torch.logspace(0, -3, 16, device=t.device)
        step = self.embed(torch.cat([angle.sin(), angle.cos()], dim=1))
        hidden = self.first(x.flatten(1))
        for layer in self.middle:
            hidden = hidden + layer(nn.functional.silu(hidden + step + self.label(label)))
        out: Tensor = self.last(nn.functional.silu(hidden)) + self.gain(step) * x.flatten(1)
        return out.reshape(x.shape)


def train(network: nn.Module, schedule: VarianceSchedule, steps: int) -> None:
    """Fit eps at random steps, dropping one label in ten, as guidance needs."""
    digits = load_digits()
    data = torch.tensor(digits.images[:-360, None], dtype=torch.float32) / 8 - 1
    labels = torch.tensor(digits.target[:-360])
    level = torch.tensor(schedule.alpha_bar).float().sqrt()  # index 0 is the step t = 0
    adam = torch.optim.Adam(network.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(data), (128,))
        x0, label = data[chosen], labels[chosen].where(torch.rand(128) >= 0.1, NO_LABEL)
        t, eps = torch.randint(len(level), (128,)), torch.randn_like(x0)
        r = level[t].reshape(-1, 1, 1, 1)
        guess = network(r * x0 + (1 - r**2).sqrt() * eps, t.float(), label)
        adam.zero_grad()
        (guess - eps).square().mean().backward()
        adam.step()
        rate.step()


def main() -> None:
    """Train, sample at three scales, and count the recognized digits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=800, help="training steps")
    parser.add_argument("-n", type=int, default=1000, help="samples per scale")
    args = parser.parse_args()
    torch.manual_seed(0)
    network = Network()
    schedule = VarianceSchedule.linear(num_train_steps=1000, beta_start=1e-4, beta_end=0.02)
    train(network, schedule, args.steps)

    recipe = Recipe(num_steps=10, levels="var", spacing="quadratic")
    model = Model.wrap(
        network.eval(),
        schedule,
        (1, 8, 8),
        name="digits-by-class",
        classes=10,
        null_class=True,
        recipe=recipe,
    )
    classifier = load_features("digits-features")
    wanted = torch.arange(args.n) % 10
    for guidance_scale in (0.0, 1.0, 2.0):
        images = model.sample(args.n, class_labels=wanted, guidance_scale=guidance_scale, seed=0)
        seen = classifier(images)[1].argmax(1)
        share = (seen == wanted).float().mean().item()
        error = (share * (1 - share) / args.n) ** 0.5
        figures = f"{100 * share:.1f} ± {100 * error:.1f} %"
        print(f"guidance scale {guidance_scale:g}: {figures} are the requested digit")


if __name__ == "__main__":
    main()
