"""What a network learns, at which noise levels, and with which optimizer."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdpm import InvalidArgumentError, VarianceSchedule, load_model
from fastdpm.cli.app import run as fastdpm
from fastdpm.data.run_folder import RunFolder
from fastdpm.models.find import find_model
from fastdpm.networks.adm_unet import ADMUNet
from fastdpm.training.config import DiffusionOptions, TrainConfig, read_train_config
from fastdpm.training.data import TrainingData
from fastdpm.training.denoising import Denoising
from fastdpm.training.loop import Trainer, share_of_rate
from fastdpm.training.optimizers import ConvolutionMuon, muon
from fastdpm.training.steps import TrainingSteps
from fastdpm.training.task import as_saved
from tests.conftest import IMAGE
from tests.messages import tells

CPU = torch.device("cpu")
SCHEDULE = VarianceSchedule.linear()
WHITE = TrainingData(IMAGE.data, torch.full((8, 1, 8, 8), 255, dtype=torch.uint8))


def _config(prediction: str = "epsilon", **options: Any) -> TrainConfig:
    settings = {"steps": 40, "batch_size": 8, "learning_rate": 2e-3, "warmup_steps": 5}
    return TrainConfig(
        name="white",
        network=IMAGE.network,
        schedule=IMAGE.schedule,
        data=IMAGE.data,
        prediction=prediction,
        training=DiffusionOptions(**{**settings, **options}),
    )


def _trainer(config: TrainConfig, out: Path, **more: Any) -> Trainer:
    with RunFolder.open(out, "train", {}) as run:
        return Trainer(config, WHITE, run, CPU, "fastdpm train", print, **more)


class Knowing(nn.Module):
    """Predicts exactly what there is to predict in noisy white images; off by ``error``."""

    def __init__(self, config: TrainConfig, error: float = 0.0) -> None:
        super().__init__()
        self.schedule = VarianceSchedule.from_config(config.schedule)
        self.prediction, self.error = config.prediction, error

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        levels = torch.tensor(self.schedule.R(t.double().numpy() + 1))
        r = levels.reshape(-1, 1, 1, 1)
        sigma = (1 - r**2).sqrt()
        eps = (x - r) / sigma
        answers = {"epsilon": eps, "sample": torch.ones_like(eps)}
        return answers.get(self.prediction, r * eps - sigma).float() + self.error


@pytest.mark.parametrize("weight", ["simple", "min-snr"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_of_a_network_that_knows_the_answer_is_zero(prediction, weight):
    config = _config(prediction, loss_weight=weight, uniform_share=0.5)
    task = Denoising(config, WHITE)
    loss = task.loss(Knowing(config), 0, torch.Generator().manual_seed(0))
    assert float(loss) < 1e-3
    assert float(task.loss(Knowing(config, 0.5), 0, torch.Generator().manual_seed(0))) > 0.02


def test_min_snr_weights_the_error_of_the_clean_data(monkeypatch):
    """An error of eps is one of sigma / r times its size in the clean data."""
    found = {}
    for prediction in ("epsilon", "v_prediction", "sample"):
        config = _config(prediction, loss_weight="min-snr", min_snr=1.5)
        task, generator = Denoising(config, WHITE), torch.Generator().manual_seed(0)
        r = task.steps.draw(8, torch.Generator().manual_seed(0))[1].double()
        snr = r**2 / (1 - r**2)
        monkeypatch.setattr(task.steps, "draw", lambda *_, r=r: (torch.zeros(8), r.float()))
        network = lambda x, t: torch.zeros_like(x)  # noqa: E731
        losses = task._losses(network, torch.ones(8, 1, 8, 8), None, generator)
        found[prediction] = losses.double(), snr
    losses, snr = found["sample"]
    torch.testing.assert_close(losses, snr.clamp_max(1.5), rtol=1e-4, atol=0)
    losses, snr = found["epsilon"]  # the squared noise is about 1
    assert float((losses / (snr.clamp_max(1.5) / snr)).mean()) == pytest.approx(1, abs=0.2)
    losses, snr = found["v_prediction"]  # as is the square of r eps - sigma x0
    assert float((losses / (snr.clamp_max(1.5) / (snr + 1))).mean()) == pytest.approx(1, abs=0.2)


def test_a_trained_model_says_what_it_predicts_and_samples(tmp_path):
    config = _config("v_prediction", steps=40, optimizer="muon", uniform_share=0.5)
    trainer = _trainer(config, tmp_path)
    trainer.train()
    model = load_model(tmp_path / "model")
    assert model.config.prediction == "v_prediction"
    assert trainer.losses.last(trainer.step) < 0.9
    assert float(model.sample(4).mean()) > 0.5


def test_real_steps_have_the_levels_of_the_schedule_and_the_stated_distribution():
    steps = TrainingSteps(SCHEDULE, CPU, uniform_share=0.25, log_sigma=(-0.5, 0.8))
    t, r = steps.draw(4000, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(r, SCHEDULE.R(t.double().numpy() + 1), atol=2e-6)
    assert (t != t.round()).double().mean() > 0.9
    uniform, rest = t[:1000].double(), r[1000:].double()
    assert float(uniform.mean()) == pytest.approx(499.5, abs=1)
    assert float(uniform.std()) == pytest.approx(999 / 12**0.5, abs=1)
    log_sigma = ((1 - rest**2) / rest**2).log() / 2
    assert float(log_sigma.mean()) == pytest.approx(-0.5, abs=0.01)
    assert float(log_sigma.std()) == pytest.approx(0.8, abs=0.01)
    whole, _ = TrainingSteps(SCHEDULE, CPU, real=False).draw(1000, torch.Generator())
    assert whole.sort().values.tolist() == list(range(1000))


def test_levels_outside_the_schedule_are_its_ends():
    steps = TrainingSteps(SCHEDULE, CPU, uniform_share=0, log_sigma=(0.0, 100.0))
    t, r = steps.draw(64, torch.Generator().manual_seed(0))
    assert (float(t.min()), float(t.max())) == (0, 999)
    assert float(r.min()) == pytest.approx(float(SCHEDULE.R(1000)))


def test_muon_of_a_kernel_is_that_of_its_matrix():
    torch.manual_seed(0)
    start, gradient = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    matrix = nn.Parameter(start.flatten(1).clone())
    matrix.grad = gradient.flatten(1).clone()
    torch.optim.Muon([matrix], lr=0.1, weight_decay=0).step()
    for layout in (torch.contiguous_format, torch.channels_last):
        kernel = nn.Parameter(start.clone(memory_format=layout))
        kernel.grad = gradient.clone(memory_format=layout)
        ConvolutionMuon([kernel], 0.1).step()
        torch.testing.assert_close(kernel.detach().flatten(1), matrix.detach(), rtol=0, atol=5e-3)
        assert float((kernel.detach() - start).norm()) > 0.1


def test_muon_takes_the_convolutions_between_the_first_and_the_last():
    network = ADMUNet(
        image_size=8,
        model_channels=32,
        channel_mult=[1, 2],
        num_res_blocks=1,
        attention_resolutions=[4],
        num_classes=3,
    )
    _, found = muon(network, 1e-3, 1e-2).optimizers
    assert isinstance(found, ConvolutionMuon)
    kernels = {id(kernel) for kernel in found.kernels}
    names = {n for n, w in network.named_parameters() if id(w) in kernels}
    shapes = dict(network.named_parameters())
    assert {n for n, w in shapes.items() if w.ndim > 2} - names == {
        "input_blocks.0.0.weight",
        "out.2.weight",
    }
    assert not [n for n in names if shapes[n].ndim < 3]


def test_the_rate_is_constant_and_falls_at_the_end():
    options = _config(steps=100, warmup_steps=10, decay="linear", decay_share=0.2).training
    rates = [share_of_rate(options, step) for step in range(100)]
    assert rates[0] == 0.1
    assert set(rates[10:80]) == {1.0}
    assert rates[90] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.05)
    assert share_of_rate(replace(options, decay_share=0.0), 99) == 1


def test_the_rate_has_no_jump_where_warm_up_and_decay_meet():
    options = _config(steps=440, warmup_steps=300, decay="linear", decay_share=0.4).training
    rates = [share_of_rate(options, step) for step in range(440)]
    assert max(abs(b - a) for a, b in pairwise(rates)) < 0.006
    assert rates[263] == pytest.approx(264 / 300)
    assert rates[-1] < 0.01


def test_held_out_data_measures_the_averaged_weights(tmp_path):
    held_out = replace(WHITE, values=WHITE.values[:4])
    config = _config(steps=2)
    trainer = _trainer(config, tmp_path, held_out=held_out)
    trainer.train()
    provenance = load_model(tmp_path / "model").config.provenance
    task = Denoising(config, WHITE, held_out)
    saved = as_saved(trainer.ema, task.build())
    loss, error = task.measure(saved, held_out)
    assert (loss, error) == task.measure(saved, held_out)
    assert provenance["held_out_loss"] == pytest.approx(loss, rel=1e-3)
    assert provenance["held_out_loss_error"] == pytest.approx(error, rel=1e-2)
    assert provenance["held_out_count"] == 4


def test_a_run_can_start_from_the_weights_of_a_model(tmp_path):
    first = _trainer(_config(steps=3), tmp_path / "a")
    first.train()
    model = find_model(tmp_path / "a" / "model")
    second = _trainer(_config(steps=3), tmp_path / "b", start=model)
    second.resume()
    saved = load_model(tmp_path / "a" / "model").network.state_dict()
    for network in (second.network, second.ema):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, saved[name], rtol=0, atol=0)
    before = second.ema.conv_in.bias.clone()  # type: ignore[union-attr, operator]
    second.take_step()
    moved = (second.ema.conv_in.bias - before).abs().max()  # type: ignore[union-attr, operator]
    assert 0 < moved < 1e-4  # the average goes on from the weights
    second.export()
    provenance = load_model(tmp_path / "b" / "model").config.provenance
    assert provenance["started_from"] == f"white (SHA-256 {model.config.weights_sha256})"
    other = _trainer(_config("sample"), tmp_path / "c", start=model)
    with pytest.raises(InvalidArgumentError, match=tells("white", "prediction")):
        other.resume()


def test_the_model_that_a_run_starts_from_is_not_replaced(tmp_path, capsys):
    config = read_train_config("digits").replace(steps=1)
    assert isinstance(config, TrainConfig)
    _trainer(config, tmp_path / "a").train()
    before = (tmp_path / "a" / "model" / "model.safetensors").read_bytes()
    command = ["train", "digits", "--data", "sklearn:digits", "--steps", "1", "--overwrite"]
    command += ["--from", str(tmp_path / "a" / "model")]
    assert fastdpm([*command, "--out", str(tmp_path / "a")]) == 2
    assert re.search(tells("model", "input", "--out"), capsys.readouterr().err)
    assert (tmp_path / "a" / "model" / "model.safetensors").read_bytes() == before
    assert fastdpm([*command, "--out", str(tmp_path / "b")]) == 0
    assert "starting from the weights of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"optimizer": "sgd"}, ["optimizer", "adam", "muon", "sgd"]),
        ({"muon_learning_rate": 0.0}, ["muon_learning_rate", 0]),
        ({"decay": "step"}, ["decay", "cosine", "linear", "step"]),
        ({"decay_share": 0.5}, ["decay_share", "decay", "cosine", "linear"]),
        ({"muon_learning_rate": 0.1}, ["muon_learning_rate", "optimizer", "adam", "muon"]),
        ({"min_snr": 3.0}, ["min_snr", "loss_weight", "simple", "min-snr"]),
        ({"log_sigma_mean": 1.0}, ["log_sigma_mean", "uniform_share", 1]),
        ({"decay_share": 1.5}, ["decay_share", "[0, 1]", 1.5]),
        ({"loss_weight": "p2"}, ["loss_weight", "simple", "min-snr", "p2"]),
        ({"min_snr": -1.0}, ["min_snr", 0, -1]),
        ({"uniform_share": 0.5, "real_steps": False}, ["uniform_share", "real_steps", 0.5]),
        ({"log_sigma_std": 0.0}, ["log_sigma_std", 0]),
        ({"log_sigma_mean": float("nan")}, ["log_sigma_mean", "nan"]),
    ],
)
def test_options_out_of_range_are_refused(options, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        _config(**options)
