"""Training reduces the loss, resumes exactly, and writes a model that samples."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdpm import DataError, FastDPMError, InvalidArgumentError, Recipe, load_model
from fastdpm.data.run_folder import RunFolder
from fastdpm.training.config import DiffusionOptions, TrainConfig
from fastdpm.training.data import TrainingData
from fastdpm.training.loop import Progress, Trainer, share_of_rate, time_left
from tests.conftest import IMAGE, VOCODER
from tests.messages import tells
from tests.training.test_classification import classifier_config

CPU = torch.device("cpu")


def _config(model, **options) -> TrainConfig:
    settings = {"steps": 60, "batch_size": 16, "learning_rate": 2e-3, "warmup_steps": 5}
    return TrainConfig(
        name=model.name,
        network=model.network,
        schedule=model.schedule,
        data=model.data,
        recipe=model.recipe,
        training=DiffusionOptions(**{**settings, **options}),
    )


def _claimed(folder: Path) -> RunFolder:
    """A new run or its continuation, which may be claimed again."""
    run = RunFolder.open(folder, "train", {}, resume=True)
    run.close()
    return run


def _images() -> TrainingData:
    return TrainingData(IMAGE.data, torch.full((8, 1, 8, 8), 255, dtype=torch.uint8))


@pytest.fixture
def make(tmp_path) -> Callable[..., Trainer]:
    def make(name: str = "run", config: TrainConfig | None = None) -> Trainer:
        run = _claimed(tmp_path / name)
        return Trainer(config or _config(IMAGE), _images(), run, CPU, "fastdpm train", print)

    return make


@pytest.fixture(params=["diffusion", "classifier"])
def make_any(request, tmp_path) -> Callable[..., Trainer]:
    """Runs of either task, for what both of them promise."""

    def make(name: str = "run", **options: Any) -> Trainer:
        run = _claimed(tmp_path / name)
        images = _images()
        if request.param == "diffusion":
            return Trainer(_config(IMAGE, **options), images, run, CPU, "fastdpm train", print)
        images = replace(images, labels=torch.arange(8) % 2)
        config = classifier_config(**options)
        return Trainer(config, images, run, CPU, "fastdpm train", print)

    return make


def _lost(trainer: Trainer) -> Callable[..., Any]:
    """The network's answer, times NaN."""

    def predict(*inputs: torch.Tensor) -> Any:
        answer = trainer.network(*inputs)
        if isinstance(answer, torch.Tensor):
            return answer * float("nan")
        return tuple(part * float("nan") for part in answer)

    return predict


def test_the_loss_falls_and_the_model_samples_what_it_saw(make):
    trainer = make(config=_config(IMAGE, steps=250, ema_decay=0.98))
    first = float(trainer.take_step())
    assert trainer.train()
    assert trainer.losses.last(trainer.step) < 0.3 * first
    model = load_model(trainer.run.folder / "model")
    assert float(model.sample(4, num_steps=20).mean()) > 0.3
    assert model.config.provenance["steps"] == 250
    assert "CC" not in model.config.license
    for name in ("checkpoint.pt", "loss.csv", "loss.png", "samples.png", "model/README.md"):
        assert (trainer.run.folder / name).stat().st_size > 0


def _check_resumed(make: Callable[[str], Trainer]) -> None:
    whole = make("whole")
    for _ in range(12):
        whole.take_step()
    part = make("part")
    for _ in range(7):
        part.take_step()
    part.save()
    part.take_step()  # lost with the kill
    resumed = make("part")
    resumed.resume()
    assert resumed.step == 7
    for _ in range(5):
        resumed.take_step()
    for a, b in ((whole.network, resumed.network), (whole.ema, resumed.ema)):
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)


def test_a_killed_run_takes_the_same_steps_when_resumed(make_any):
    _check_resumed(make_any)


def test_a_resumed_run_with_muon_takes_the_same_steps(make):
    config = _config(IMAGE, optimizer="muon", uniform_share=0.5, decay="linear", decay_share=0.5)
    _check_resumed(lambda name: make(name, config))


def test_the_averaged_weights_of_a_checkpoint_have_the_networks_names(make_any):
    trainer = make_any()
    trainer.take_step()
    trainer.save()
    saved = torch.load(trainer.run.folder / "checkpoint.pt", weights_only=True)
    assert list(saved["ema"]) == list(saved["network"]) == list(trainer.network.state_dict())
    torch.testing.assert_close(saved["ema"], trainer.ema.state_dict(), rtol=0, atol=0)


def test_a_resumed_run_has_the_dropout_of_an_uninterrupted_one(make):
    config = replace(_config(IMAGE), network={**IMAGE.network, "dropout": 0.2})
    _check_resumed(lambda name: make(name, config))


def test_stopping_leaves_a_checkpoint_and_no_model(make_any):
    trainer = make_any()
    assert not trainer.train(should_stop=lambda: trainer.step == 3)
    assert not (trainer.run.folder / "model").exists()
    resumed = make_any()
    resumed.resume()
    assert resumed.step == 3
    assert resumed.train(seconds=0)
    assert (resumed.run.folder / "model" / "model.safetensors").is_file()


def test_a_vocoder_trains_on_its_own_mel(tmp_path):
    generator = torch.Generator().manual_seed(0)
    values = (torch.rand(4, 700, generator=generator) * 20000 - 10000).to(torch.int16)
    rows = TrainingData(VOCODER.data, values, torch.tensor([700, 700, 600, 300]))
    config = _config(VOCODER, steps=3, batch_size=2)
    trainer = Trainer(config, rows, _claimed(tmp_path), CPU, "fastdpm train", print)
    assert trainer.train()
    assert load_model(tmp_path / "model").config.data.mel == VOCODER.data.mel


@pytest.mark.parametrize("steps", [1, 2, 12])
def test_averaged_weights_follow_faster_as_long_as_there_were_few_steps(make_any, steps):
    """By the sum over all steps, d_k = min(ema_decay, (1 + k) / (10 + k)) of step k."""
    trainer = make_any(ema_decay=0.5)
    decays = [min(0.5, (1 + k) / (10 + k)) for k in range(1, steps + 1)]
    states = [_copied(trainer.network)]
    for _ in range(steps):
        trainer.take_step()
        states.append(_copied(trainer.network))
    weights = [1 - d for d in [0.0, *decays]]
    weights[0] = 1.0
    shares = [w * math.prod(decays[k:]) for k, w in enumerate(weights)]
    assert sum(shares) == pytest.approx(1)
    for name, found in trainer.ema.state_dict().items():
        expected = sum(share * s[name] for share, s in zip(shares, states, strict=True))
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)


def _copied(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in network.state_dict().items()}


def test_averaged_weights_follow_the_trained_ones(make_any):
    trainer = make_any(ema_decay=0.0)
    trainer.take_step()
    torch.testing.assert_close(trainer.ema.state_dict(), trainer.network.state_dict())


def test_the_learning_rate_rises_and_falls(make_any):
    trainer = make_any(steps=20, warmup_steps=4, learning_rate=0.5)
    rates = []
    for _ in range(20):
        trainer.take_step()
        rates.append(trainer.optimizer.optimizers[0].param_groups[0]["lr"])
    assert rates[:5] == [0.125, 0.25, 0.375, 0.5, 0.5]
    assert rates[8] == pytest.approx(0.25 * (1 + math.sqrt(0.5)))
    assert rates[12] == pytest.approx(0.25)
    assert rates[16] == pytest.approx(0.25 * (1 - math.sqrt(0.5)))


def test_without_a_warm_up_the_rate_starts_at_its_maximum():
    options = DiffusionOptions(steps=2, batch_size=1, warmup_steps=0)
    assert [share_of_rate(options, k) for k in range(3)] == pytest.approx([1, 0.5, 0])
    alone = replace(options, steps=3, warmup_steps=3)
    assert [share_of_rate(alone, k) for k in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_the_time_left_is_estimated_from_the_pace_since_the_first_report():
    assert time_left((50, 100.0), (150, 120.0), steps=200) == pytest.approx(10)
    assert time_left((50, 100.0), (50, 100.0), steps=200) == pytest.approx(300)
    assert time_left((50, 100.0), (200, 150.0), steps=200) == 0


def test_a_run_reports_the_time_that_is_left_to_it(make_any, monkeypatch):
    """A clock that moves a second a step, after a resumed run of 1,000 s; 130 s are allowed."""
    trainer = make_any(steps=200)
    trainer.seconds = 1000.0
    monkeypatch.setattr("fastdpm.training.loop.time.monotonic", lambda: float(trainer.step))
    reports: list[Progress] = []
    trainer.train(seconds=130, report=reports.append)
    assert [p.step for p in reports] == list(range(10, 131, 10))
    assert [p.seconds for p in reports] == [1000.0 + p.step for p in reports]
    assert [p.left for p in reports] == [130.0 - p.step for p in reports]
    assert [reports[i].loss for i in (4, 9)] == [loss for _, loss in trainer.losses.rows[:2]]
    reports.clear()
    trainer.train(report=reports.append)
    assert [p.step for p in reports] == list(range(140, 201, 10))
    assert [p.left for p in reports[1:]] == [200.0 - p.step for p in reports[1:]]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(make_any):
    trainer = make_any(steps=50)
    trainer.save()
    before = (trainer.run.folder / "checkpoint.pt").read_bytes()
    trainer.predict = _lost(trainer)
    with pytest.raises(DataError, match=tells("nan", "step 50")):
        trainer.train()
    assert (trainer.run.folder / "checkpoint.pt").read_bytes() == before


def test_damaged_checkpoints_and_those_of_other_runs_are_refused(make_any):
    trainer = make_any()
    trainer.save()
    with pytest.raises(FastDPMError, match=tells(trainer.run.folder / "checkpoint.pt")) as other:
        make_any(batch_size=17).resume()
    assert re.search(tells("training.batch_size", 17), str(other.value))
    checkpoint = trainer.run.folder / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(FastDPMError, match=tells(checkpoint)) as damaged:
        make_any().resume()
    assert "\n" not in str(damaged.value)
    assert str(damaged.value) != str(other.value)


def test_running_out_of_memory_at_the_first_step_leaves_room_for_a_smaller_batch(
    tmp_path, monkeypatch
):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def train(*, before: int) -> None:
        with RunFolder.open(tmp_path / "run", "train", {}) as run:
            trainer = Trainer(_config(IMAGE), _images(), run, CPU, "fastdpm train", print)
            for _ in range(before):
                trainer.take_step()
                trainer.save()
            monkeypatch.setattr(trainer, "_predict_seeded", fail)
            trainer.train()

    with pytest.raises(torch.OutOfMemoryError):
        train(before=0)
    assert not (tmp_path / "run").exists()
    with pytest.raises(torch.OutOfMemoryError):
        train(before=1)
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_a_full_disk_leaves_the_old_checkpoint_intact(make_any, monkeypatch):
    trainer = make_any()
    trainer.save()
    before = (trainer.run.folder / "checkpoint.pt").read_bytes()
    trainer.take_step()
    monkeypatch.setattr("os.fdopen", _full)
    with pytest.raises(OSError, match="No space left"):
        trainer.save()
    assert (trainer.run.folder / "checkpoint.pt").read_bytes() == before
    assert not list(trainer.run.folder.glob("*.part"))
    assert not list(trainer.run.folder.glob(".*.part"))


def _full(handle: int, mode: str) -> None:
    import errno
    import os

    os.close(handle)
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stop_after_the_loss_was_lost_keeps_the_checkpoint(make_any):
    trainer = make_any()
    trainer.predict = _lost(trainer)
    with pytest.raises(DataError, match=tells("nan", "step 2")):
        trainer.train(should_stop=lambda: trainer.step == 2)
    resumed = make_any()
    resumed.resume()
    assert resumed.step == 0
    assert all(torch.isfinite(p).all() for p in resumed.network.parameters())


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"recipe": Recipe(num_steps=5000)}, ["[1, 100]", 5000]),
        ({"network": {**IMAGE.network, "out_channels": 2}}, ["(2, 8, 8)", "(1, 8, 8)"]),
        ({"network": {**IMAGE.network, "in_channels": 3}}, ["(1, 8, 8)"]),
        ({"network": {**IMAGE.network, "num_groups": 0}}, ["unet"]),
        ({"network": {**IMAGE.network, "channel_multipliers": []}}, ["unet"]),
        ({"network": {**IMAGE.network, "base_channels": -8}}, ["unet"]),
        ({"network": {**VOCODER.network, "mel_upsample": [4, 8]}}, ["(1, 8, 8)", "8 bands"]),
    ],
)
def test_what_cannot_be_sampled_is_found_before_the_training(tmp_path, change, values):
    config = replace(_config(IMAGE), **change)
    with (
        pytest.raises(InvalidArgumentError, match=tells(*values)),
        RunFolder.open(tmp_path / "run", "train", {}) as run,
    ):
        Trainer(config, _images(), run, CPU, "fastdpm train", print)
    assert not (tmp_path / "run").exists()


def test_a_trained_vocoder_samples_without_a_condition(tmp_path):
    rows = TrainingData(VOCODER.data, torch.ones(1, 600).short(), torch.tensor([600]))
    run = _claimed(tmp_path)
    trainer = Trainer(_config(VOCODER, steps=1), rows, run, CPU, "fastdpm train", print)
    trainer.train()
    assert load_model(tmp_path / "model").sample(2).shape == (2, 1, 512)
