"""A 1-D model for sound: a small convolutional network on plucked tones of five pitches.

    python examples/sound_1d.py [--steps 600] [--out plucked.wav]

Writes 16 samples one after another into a sound file. Prints how far samples are from the five
pitches, in cents (100 to a semitone), and how often each pitch occurs.
"""

import argparse

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from fastdpm import Model, Recipe, VarianceSchedule

RATE, LENGTH, PATCH = 4000, 1024, 8
NOTES = {"A3": 220.0, "C4": 261.63, "D4": 293.66, "E4": 329.63, "G4": 392.0}  # in Hz


def plucked(n: int, seed: int) -> Tensor:
    """Decaying tones, shape (n, 1, LENGTH): a pitch and four overtones at random phases."""
    rng = np.random.default_rng(seed)
    seconds, order = np.arange(LENGTH) / RATE, np.arange(1, 6)[:, None]
    pitch = rng.choice(list(NOTES.values()), (n, 1, 1))
    phase = rng.uniform(0, 2 * np.pi, (n, 5, 1))
    waves = (
        np.exp(-6 * order * seconds) / order * np.sin(2 * np.pi * order * pitch * seconds + phase)
    )
    sounds = waves.sum(1, keepdims=True)
    return torch.tensor(0.9 * sounds / np.abs(sounds).max(-1, keepdims=True), dtype=torch.float32)


def nearest_note(sounds: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the note nearest to the strongest partial, and its distance in cents, each (n,)."""
    padded = 16 * LENGTH  # bins of 0.25 Hz, 1 or 2 cents
    spectrum = torch.fft.rfft(sounds[:, 0] * torch.hann_window(LENGTH), n=padded).abs()
    frequency = (1 + spectrum[:, 1:].argmax(1)) * (RATE / padded)
    cents = 1200 * torch.log2(frequency[:, None] / torch.tensor(list(NOTES.values()))).abs()
    return cents.argmin(1), cents.amin(1)


class Network(nn.Module):
    """Predicts the noise in sounds with dilated convolutions over patches of eight samples."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(32, width), nn.SiLU())
        self.first = nn.Conv1d(PATCH, width, 1)
        self.middle = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=gap, dilation=gap) for gap in (1, 2, 4, 8, 16, 32)
        )
        self.last = nn.Conv1d(width, PATCH, 1)
        self.gain = nn.Linear(width, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict eps, shaped like x (n, 1, LENGTH), at zero-based steps t (n,)."""
        angle = t[:, None] * torch.logspace(0, -2.5, 16, device=t.device)
        step = self.embed(torch.cat([angle.sin(), angle.cos()], dim=1))[..., None]
        hidden = self.first(x.reshape(len(x), -1, PATCH).mT)
        for layer in self.middle:
            hidden = hidden + layer(nn.functional.silu(hidden + step))
        patches = self.last(nn.functional.silu(hidden))
        out: Tensor = patches.mT.reshape(x.shape) + self.gain(step.mT) * x
        return out


def train(network: nn.Module, schedule: VarianceSchedule, steps: int) -> None:
    """Fit eps at random steps."""
    data = plucked(2000, seed=0)
    level = torch.tensor(schedule.alpha_bar).float().sqrt()  # index 0 is the step t = 0
    adam = torch.optim.Adam(network.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=4e-3, total_steps=steps)
    for _ in range(steps):
        x0 = data[torch.randint(len(data), (16,))]
        t, eps = torch.randint(len(level), (16,)), torch.randn_like(x0)
        r = level[t].reshape(-1, 1, 1)
        guess = network(r * x0 + (1 - r**2).sqrt() * eps, t.float())
        adam.zero_grad()
        (guess - eps).square().mean().backward()
        adam.step()
        rate.step()


def main() -> None:
    """Train, sample, measure the pitches, and write the sound file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="training steps")
    parser.add_argument("-n", type=int, default=100, help="samples to measure")
    parser.add_argument("--out", default="plucked.wav", help="sound file to write")
    args = parser.parse_args()
    torch.manual_seed(0)
    network = Network()
    schedule = VarianceSchedule.linear(num_train_steps=200, beta_start=1e-4, beta_end=0.1)
    train(network, schedule, args.steps)
    network.eval()

    model = Model.wrap(network, schedule, (1, LENGTH), name="plucked", sample_rate=RATE)
    few = Recipe(num_steps=20, levels="var", spacing="quadratic", kappa=0.0)
    sounds = {
        "data": plucked(args.n, seed=1),
        "noise": torch.randn(args.n, 1, LENGTH),
        "T = 200": model.sample(args.n, method="standard"),
        "S = 20": model.sample(args.n, plan=few.compile(schedule)),
    }
    for name, found in sounds.items():
        note, cents = nearest_note(found)
        off, error = cents.mean(), cents.std() / args.n**0.5
        counts = ", ".join(f"{key} {(note == i).sum()}" for i, key in enumerate(NOTES))
        print(f"{name}: {off:.1f} ± {error:.1f} cents off, {counts}")
    soundfile.write(args.out, sounds["S = 20"][:16].flatten().numpy(), RATE)


if __name__ == "__main__":
    main()
