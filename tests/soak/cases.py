"""The commands that write, each on networks so small that it takes a moment."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.conftest import IMAGE, SOUND, write_model

SMALL = {"channel_multipliers": [1], "attention_resolutions": []}

TRAINING = """
name = "tiny"
license = "CC0-1.0"
{classes}
[data]
modality = "image"
shape = [1, 8, 8]
[network]
{network}
[training]
steps = 2
batch_size = 2
warmup_steps = 1
checkpoint_minutes = 0.0
"""
UNET = """
type = "unet"
image_size = 8
in_channels = 1
out_channels = 1
base_channels = 8
channel_multipliers = [1]
num_res_blocks = 1
attention_resolutions = []
num_groups = 4
[schedule]
type = "linear"
num_train_steps = 20
beta_start = 1e-4
beta_end = 0.3
[recipe]
num_steps = 2
"""
CLASSIFIER = """
type = "image-classifier"
in_channels = 1
num_classes = 10
widths = [4, 8]
stem_channels = 4
"""
IMAGES = "../inputs/images/a.png ../inputs/images/b.png"


@dataclass(frozen=True)
class Case:
    """A command that writes.

    Attributes:
        name: Its name.
        line: The command, after ``fastdpm``. It writes to ``out``, or to the files it names.
        before: Commands that have run in the folder earlier.
        lost: Network evaluations that a stop may cost: those of one batch. None for a command
            that starts from the beginning again.
        estimate: Network evaluations of an estimate of the time, which each start makes.
        guests: Names of a user's files in ``out`` from the start.
    """

    name: str
    line: str
    before: tuple[str, ...] = ()
    lost: int | None = None
    estimate: int = 0
    guests: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """What follows ``fastdpm``."""
        return shlex.split(self.line)


def _again(case: str, older: str, **settings: Any) -> Case:
    """A case whose command replaces the outcome of an older one."""
    base = next(c for c in CASES if c.name == case)
    line = base.line + " --overwrite"
    return Case(
        f"{case}-overwrite", line, (*base.before, older), base.lost, base.estimate, **settings
    )


SAMPLE = "sample ../inputs/image -n 3 -S 2 --batch-size 1 --out out"
SOUNDS = "sample ../inputs/sound -n 2 -S 2 --batch-size 1 --out out"
GRID = "--methods var-linear-k0,step-linear-k1 -S 2 -n 20 --batch-size 5 --cache cache"
COMPARE = f"compare ../inputs/image {GRID} --out out"
RECOMMEND = f"recommend ../inputs/image {GRID} --out out"
TUNE = (
    "tune ../inputs/image -S 1,2 -n 32 --until paths --evaluations 400 --teacher-steps 16"
    " --out out"
)
ENCODE = f"encode ../inputs/image {IMAGES} -S 2 --batch-size 1 --out z.safetensors"
DECODE = "decode ../inputs/image ../inputs/z.safetensors --batch-size 1 --out out"
EDIT = f"edit ../inputs/image {IMAGES} -S 2 --batch-size 1 --out out"
INTERPOLATE = f"interpolate ../inputs/image {IMAGES} -S 2 -n 3 --batch-size 1 --out out"
RECONSTRUCT = f"reconstruct ../inputs/image {IMAGES} -S 2,3 --by first --batch-size 2 --out out"
LIKELIHOOD = f"likelihood ../inputs/image {IMAGES} -S 2 --save bits.json --plot bits.svg"
CONVERT = "convert ../inputs/image --out out"
EVALUATE = "evaluate ../inputs/image -S 2 -n 20 --batch-size 5 --cache cache --save fd.json"
STATISTICS = "evaluate ../inputs/many.npz --cache cache --save-statistics some.safetensors"
PLAN = "plan ../inputs/image -S 2 --save plan.json --plot plan.svg"
TRAIN = "train ../inputs/model.toml --data sklearn:digits --out out"
FEATURES = "train ../inputs/features.toml --data sklearn:digits --out out"
CLEAR = "cache --cache cache --clear"

CASES: list[Case] = [
    Case("sample-png", SAMPLE, lost=2),
    Case("sample-webp", f"{SAMPLE} --format webp", lost=2),
    Case("sample-npz", f"{SAMPLE} --format npz", lost=2),
    Case("sample-wav", SOUNDS, lost=2),
    Case("sample-flac", f"{SOUNDS} --format flac", lost=2),
    Case("compare", COMPARE, lost=10, estimate=27),
    Case("recommend", RECOMMEND, lost=10, estimate=27),
    Case("tune", TUNE),
    Case("evaluate", EVALUATE, lost=10, estimate=27),
    Case("statistics", STATISTICS, lost=0),
    Case("train", TRAIN, lost=2 + 16 * 2),
    Case("train-features", FEATURES, lost=0),
    Case("encode", ENCODE),
    Case("decode", DECODE, lost=1),
    Case("edit", EDIT, lost=1),
    Case("interpolate", INTERPOLATE),
    Case("reconstruct", RECONSTRUCT, lost=12),
    Case("likelihood", LIKELIHOOD),
    Case("convert", CONVERT),
    Case("plan", PLAN),
    Case("cache-clear", CLEAR, (EVALUATE,)),
]
CASES += [
    _again("sample-png", f"{SAMPLE} --seed 1 -n 4", guests=("notes.txt", "000009.png")),
    _again("sample-npz", f"{SAMPLE} --format npz --seed 1", guests=("notes.txt",)),
    _again("compare", f"{COMPARE} --seed 1 --format svg", guests=("notes.txt", "README.md")),
    _again("recommend", f"{RECOMMEND} --seed 1 --format svg", guests=("notes.txt", "README.md")),
    _again("encode", f"{ENCODE} -S 3"),
    _again("decode", f"{EDIT} --seed 1"),
    _again("edit", f"{EDIT} --seed 1"),
    _again("interpolate", f"{EDIT} --seed 1"),
    _again("reconstruct", f"{EDIT} --seed 1"),
    _again("convert", f"{CONVERT} --half --name older"),
]


def write_inputs(folder: Path) -> None:
    """Write the models and files that the commands read."""
    write_model(folder / "image", replace(IMAGE, network={**IMAGE.network, **SMALL}))
    write_model(folder / "sound", SOUND)
    chooser = np.random.default_rng(0)
    (folder / "images").mkdir()
    for name in "ab":
        pixels = chooser.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    np.savez(folder / "many.npz", chooser.integers(0, 256, (24, 8, 8, 1), dtype=np.uint8))
    names = ", ".join(f'"{i}"' for i in range(10))
    texts = {"model": ("", UNET), "features": (f"classes = [{names}]", CLASSIFIER)}
    for name, (classes, network) in texts.items():
        text = TRAINING.format(classes=classes, network=network)
        (folder / f"{name}.toml").write_text(text)
    torch.manual_seed(0)


def outputs() -> Iterator[tuple[str, str]]:
    """Every command with each of its options that names what is written."""
    from typer.main import get_command

    from fastdpm.cli.app import make_app

    for name, command in getattr(get_command(make_app()), "commands", {}).items():
        for parameter in command.params:
            option, metavar = parameter.opts[0], str(parameter.metavar).upper()
            written = getattr(parameter, "rich_help_panel", "") == "Output"
            if option.startswith("--") and written and "PATH" in metavar:
                yield name, option


def resumes(command: str) -> bool:
    """Whether a command continues an unfinished run with --resume."""
    from typer.main import get_command

    from fastdpm.cli.app import make_app

    commands = getattr(get_command(make_app()), "commands", {})
    return any("--resume" in parameter.opts for parameter in commands[command].params)
