"""Training with classes: labels reach the network, and some of them become the null class."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastdpm import DataError, InvalidArgumentError, load_model
from fastdpm.data.run_folder import RunFolder
from fastdpm.training.config import DiffusionOptions, TrainConfig
from fastdpm.training.data import TrainingData
from fastdpm.training.denoising import Denoising
from fastdpm.training.loop import Trainer
from tests.conftest import CLASSES
from tests.messages import tells

OPTIONS = DiffusionOptions(steps=3, batch_size=8, warmup_steps=0, label_dropout=0.5)
CONFIG = TrainConfig(
    name="tiny",
    network=CLASSES.network,
    data=CLASSES.data,
    schedule=CLASSES.schedule,
    recipe=CLASSES.recipe,
    training=OPTIONS,
)


def make_data(*labels: int) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    shape = (len(labels), 1, 8, 8)
    values = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return TrainingData(CLASSES.data, values, labels=torch.tensor(labels))


def train(config: TrainConfig, out: Path) -> torch.Tensor:
    """How far each row of the embedding moved."""
    run = RunFolder.open(out, "train", {})
    trainer = Trainer(config, make_data(0, 1, 1, 0), run, torch.device("cpu"), "", lambda _: None)
    table = trainer.network.label_emb.weight  # type: ignore[union-attr]
    before = table.detach().clone()  # type: ignore[operator]
    with run:
        trainer.train()
    return (table - before).abs().amax(dim=1)  # type: ignore[operator]


def test_dropped_labels_train_the_null_row_and_no_other(tmp_path):
    moved = train(CONFIG, tmp_path / "run")
    assert (moved > 0).tolist() == [True, True, False, True]
    model = load_model(tmp_path / "run" / "model")
    assert (model.null_class, model.config.data.class_names) == (3, ("cat", "dog", "horse"))
    assert not torch.equal(
        model.sample(1, class_labels="cat"), model.sample(1, class_labels="cat", guidance_scale=2)
    )


def test_the_share_of_dropped_labels_is_that_of_the_configuration():
    seen = []

    def predict(x, t, labels):
        seen.append(labels)
        return x

    options = replace(OPTIONS, batch_size=4000, label_dropout=0.2)
    task = Denoising(replace(CONFIG, training=options), make_data(0, 2))
    task.loss(predict, 0, torch.Generator().manual_seed(0))
    shares = torch.bincount(seen[0], minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.4, 0, 0.4, 0.2]), rtol=0, atol=0.03)


def test_classes_without_a_null_class_keep_all_labels(tmp_path):
    network = {n: v for n, v in CLASSES.network.items() if n != "null_class"}
    options = replace(OPTIONS, label_dropout=0.0)
    moved = train(replace(CONFIG, network=network, training=options), tmp_path / "run")
    assert (moved > 0).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"training": replace(OPTIONS, label_dropout=0.0)}, ["null_class", "label_dropout"]),
        (
            {"network": {n: v for n, v in CLASSES.network.items() if n != "null_class"}},
            ["label_dropout", 0.5, "null_class"],
        ),
    ],
)
def test_dropout_and_null_class_need_each_other(changes, expected):
    with pytest.raises(InvalidArgumentError, match=tells(*expected)):
        replace(CONFIG, **changes)
    with pytest.raises(InvalidArgumentError, match=tells("label_dropout", "[0, 1)", "1.0")):
        DiffusionOptions(steps=1, batch_size=1, label_dropout=1.0)


@pytest.mark.parametrize(
    ("labels", "expected"), [((0, 3), ["[0, 2]", 3]), ((-1, 0), ["[0, 2]", -1])]
)
def test_labels_out_of_range_are_refused(labels, expected):
    with pytest.raises(DataError, match=tells(*expected)):
        Denoising(CONFIG, make_data(*labels))
    with pytest.raises(DataError, match=tells("label")):
        Denoising(CONFIG, replace(make_data(0), labels=None))


def test_a_network_of_other_classes_is_refused():
    with pytest.raises(InvalidArgumentError, match=tells(4, 3, "data.classes")):
        Denoising(replace(CONFIG, network=CLASSES.network | {"num_classes": 4}), make_data(0))
    network = {n: v for n, v in CLASSES.network.items() if n != "num_classes"}
    with pytest.raises(InvalidArgumentError, match=tells("null_class", "num_classes")):
        Denoising(replace(CONFIG, network=network), make_data(0))
