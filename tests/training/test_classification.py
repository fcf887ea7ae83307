"""Classifiers learn from labels, are evaluated on held-out data, and refuse unusable labels."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastdpm import DataError, InvalidArgumentError
from fastdpm.cli.app import run as fastdpm
from fastdpm.data.run_folder import RunFolder
from fastdpm.data.spec import DataSpec
from fastdpm.models.features import load_features
from fastdpm.training.classification import Accuracy, Classification
from fastdpm.training.config import ClassifierConfig, ClassifierOptions, read_train_config
from fastdpm.training.data import TrainingData, load_training_data
from fastdpm.training.loop import Trainer
from tests.conftest import IMAGE, SOUND
from tests.messages import tells

CPU = torch.device("cpu")
TONES = replace(SOUND.data, shape=(1, 512))


def classifier_config(**options: Any) -> ClassifierConfig:
    """A tiny classifier of bright and dark images."""
    settings = {"steps": 60, "batch_size": 4, "learning_rate": 0.05, "warmup_steps": 5}
    return ClassifierConfig(
        name="tiny-classifier",
        network={
            "type": "image-classifier",
            "in_channels": 1,
            "num_classes": 2,
            "widths": [4, 8],
            "stem_channels": 4,
        },
        data=IMAGE.data,
        classes=("dark", "bright"),
        training=ClassifierOptions(**{**settings, **options}),
    )


def _images(count: int = 40, seed: int = 0) -> TrainingData:
    """Noise whose left half (label 0) or right half (label 1) is brighter."""
    generator = np.random.default_rng(seed)
    labels = torch.from_numpy(np.arange(count) % 2)
    values = generator.integers(0, 128, (count, 1, 8, 8))
    values[::2, ..., :4] += 100
    values[1::2, ..., 4:] += 100
    return TrainingData(IMAGE.data, torch.from_numpy(values.astype(np.uint8)), labels=labels)


def _train(config: ClassifierConfig, out: Path, held_out: TrainingData | None) -> list[str]:
    messages: list[str] = []
    with RunFolder.open(out, "train", {}) as run:
        trainer = Trainer(config, _images(), run, CPU, "fastdpm train", messages.append, held_out)
        assert trainer.train()
    return messages


def test_a_classifier_learns_and_reports_its_held_out_accuracy(tmp_path):
    held_out = _images(30, seed=1)
    messages = _train(classifier_config(ema_decay=0.9), tmp_path, held_out)
    network = load_features(tmp_path / "model")
    assert held_out.labels is not None
    right = network(held_out.middle(torch.arange(30)))[1].argmax(1) == held_out.labels
    made = network.config.provenance
    assert made["held_out_accuracy"] == round(float(right.float().mean()), 5) > 0.9
    assert (made["held_out_count"], made["steps"], made["batch_size"]) == (30, 60, 4)
    assert messages[-1].startswith("held-out accuracy ")
    assert "not comparable to FID" in (tmp_path / "model" / "README.md").read_text()
    assert (tmp_path / "samples.png").stat().st_size > 0


def test_without_held_out_data_no_accuracy_is_claimed(tmp_path):
    log = _train(classifier_config(steps=2), tmp_path, None)
    assert not [line for line in log if "accuracy" in line]
    provenance = load_features(tmp_path / "model").config.provenance
    assert not [name for name in provenance if name.startswith("held_out")]


def test_the_accuracy_comes_with_its_standard_error():
    held_out = _images(20)
    labels = held_out.labels
    assert labels is not None
    task = Classification(classifier_config(), _images(), replace(held_out, labels=labels * 0))

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            side = (x[..., 4:].mean((1, 2, 3)) > x[..., :4].mean((1, 2, 3))).float()
            return side[:, None], torch.stack([1 - side, side], dim=1)

    found = task._accuracy(Half())
    assert (found.value, found.count) == (0.5, 20)
    assert found.error == pytest.approx(np.sqrt(0.5 * 0.5 / 20))
    assert str(Accuracy(0.975, 0.00823, 1360)) == "97.50 ± 0.82 % of 1,360"


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own():
    task = Classification(classifier_config(batch_size=10), _images())
    first = torch.cat([task._rows(step) for step in range(4)])
    second = torch.cat([task._rows(step) for step in range(4, 8)])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(40))
    assert first.tolist() != second.tolist()


def test_a_batch_larger_than_the_data_is_filled_by_repeating_it():
    rows = Classification(classifier_config(batch_size=100), _images())._rows(3)
    assert len(rows) == 100
    assert sorted(torch.bincount(rows, minlength=40).tolist()) == [2] * 20 + [3] * 20


def test_shifted_images_are_the_images_moved_with_their_edges_repeated():
    data = _images(1)
    task = Classification(classifier_config(shift=2), data)
    index = torch.zeros(300, dtype=torch.int64)
    seen = task._augmented(index, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(data.middle(index[:1]), (2, 2, 2, 2), mode="replicate")
    moves = {(i, j): padded[0, :, i : i + 8, j : j + 8] for i in range(5) for j in range(5)}
    found = {move for x in seen for move, image in moves.items() if torch.equal(x, image)}
    assert all(any(torch.equal(x, image) for image in moves.values()) for x in seen)
    assert len(found) == 25


def test_gain_and_noise_of_sounds_stay_within_the_configured_bounds():
    tones = TrainingData(
        TONES,
        torch.full((2, 512), 16384).short(),
        torch.tensor([512, 512]),
        labels=torch.arange(2),
    )
    network = {
        "type": "sound-classifier",
        "num_classes": 2,
        "widths": [4, 4],
        "mel": {"sample_rate": 8000, "n_fft": 64, "hop_length": 16, "bands": 8}
        | {"f_min": 0, "f_max": 4000},
    }
    base = replace(classifier_config(), network=network, data=TONES)
    index, generator = torch.zeros(200, dtype=torch.int64), torch.Generator().manual_seed(0)
    softer = replace(base, training=replace(base.training, gain_db=6.0206))
    level = Classification(softer, tones)._augmented(index, generator)[:, 0, 0]
    assert 0.25 <= float(level.min()) < 0.27
    assert 0.48 < float(level.max()) <= 0.5
    noisy = replace(base, training=replace(base.training, noise=0.1))
    spread = Classification(noisy, tones)._augmented(index, generator).std(-1)
    assert float(spread.min()) < 0.01
    assert 0.09 < float(spread.max()) < 0.12


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (None, ["label", "sklearn:digits"]),
        (torch.arange(40), [0, 1, 39]),
        (torch.arange(40) % 2 - 1, [0, 1, -1]),
    ],
)
def test_data_that_cannot_teach_or_measure_is_refused_before_the_training(
    tmp_path, labels, values
):
    wrong = replace(_images(), labels=labels)
    for data, held_out in ((wrong, None), (_images(), wrong)):
        with pytest.raises(DataError, match=tells(*values)) as caught:
            Trainer(classifier_config(), data, tmp_path / "run", CPU, "x", print, held_out)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_held_out_digits_are_those_that_training_leaves_out():
    spec = DataSpec("image", (1, 8, 8))
    train, test = (load_training_data(p, spec) for p in ("sklearn:digits", "sklearn:digits-test"))
    assert (len(train), len(test)) == (1437, 360)
    assert test.labels is not None
    assert test.labels.bincount().min() > 30


def test_the_command_trains_and_measures_a_classifier(tmp_path, capsys):
    out = str(tmp_path / "run")
    arguments = ["train", "digits-features", "--data", "sklearn:digits", "--device", "cpu"]
    rehearsal = [*arguments, "--steps", "3", "--out", out]
    assert fastdpm([*rehearsal, "--test", "sklearn:digits-test"]) == 0
    printed = capsys.readouterr().out
    provenance = load_features(f"{out}/model").config.provenance
    assert provenance["held_out_count"] == 360
    accuracy = 100 * provenance["held_out_accuracy"]
    assert re.search(tells(f"{accuracy:.2f}", 360), printed)


def test_a_classifier_does_not_start_from_a_model(tmp_path, capsys):
    arguments = ["train", "digits-features", "--data", "sklearn:digits", "--from", "digits"]
    assert fastdpm([*arguments, "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert re.search(tells("--from", "digits-features"), err)
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ("gain_db = 6", ["gain_db", "audio", "image"]),
        ("label_smoothing = 1.0", ["label_smoothing", "[0, 1)", "1.0"]),
        ("shift = -1", ["shift", 0, -1]),
        ("dropout = 0.1", ["dropout", "batch_size"]),
    ],
)
def test_a_broken_classifier_configuration_is_refused(tmp_path, change, values):
    path = tmp_path / "x.toml"
    path.write_text(
        'name = "x"\nclasses = ["a", "b"]\n[network]\n[data]\nmodality = "image"\n'
        f"shape = [1, 8, 8]\n[training]\nsteps = 1\nbatch_size = 1\n{change}\n"
    )
    with pytest.raises(InvalidArgumentError, match=tells(path, *values)):
        read_train_config(path)


def test_a_classifier_has_no_schedule(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('name = "x"\nclasses = ["a", "b"]\n[schedule]\ntype = "linear"\n')
    with pytest.raises(InvalidArgumentError, match=tells(path, "schedule")):
        read_train_config(path)
