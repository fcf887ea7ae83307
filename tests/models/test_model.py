"""Sampling from a model: reproducible, independent of the batch, and strict about its inputs."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdpm import (
    FastDPMError,
    InvalidArgumentError,
    Model,
    Plan,
    VarianceSchedule,
    ddim_rev,
    levels_step,
    levels_var,
    load_model,
    reconstruct,
)
from fastdpm.sampling.state import SamplingState
from tests.messages import tells


@pytest.fixture
def draw(image_model):
    def draw(indices, **choices):
        plan = image_model.config.recipe.replace(kappa=1.0).compile(image_model.schedule)
        batches = image_model.sample_batches(indices, plan, seed=5, **choices)
        return torch.cat([x for _, x in batches])

    return draw


def test_a_sample_depends_on_its_index_and_not_on_its_batch(draw):
    together = draw([3, 7, 9])
    torch.testing.assert_close(draw([7]), together[1:2], rtol=0, atol=1e-5)
    torch.testing.assert_close(draw([9, 7, 3], batch_size=2).flip(0), together, rtol=0, atol=1e-5)


def test_samples_have_the_shape_of_the_data_and_stay_in_range(folders):
    for name, shape in (("image", (5, 1, 8, 8)), ("sound", (5, 1, 512)), ("vocoder", (5, 1, 320))):
        x = load_model(folders[name]).sample(5)
        assert x.shape == shape
        assert float(x.abs().max()) <= 1


def test_seeds_differ_and_repeat(image_model):
    first = image_model.sample(3, seed=1)
    assert torch.equal(first, image_model.sample(3, seed=1))
    assert not torch.allclose(first, image_model.sample(3, seed=2))


def test_stated_choices_change_the_recipe(image_model):
    calls: list[int] = []
    image_model.network.register_forward_pre_hook(lambda *_: calls.append(1))
    image_model.sample(1, num_steps=9, progress=True)
    assert len(calls) == 9
    plain = image_model.sample(2, num_steps=6)
    for choice in ({"kappa": 1.0}, {"levels": "var"}, {"spacing": "quadratic"}, {"clip": "x0"}):
        assert not torch.allclose(plain, image_model.sample(2, num_steps=6, **choice)), choice


def test_half_precision_is_close_to_single(image_model):
    single, half = image_model.sample(4), image_model.sample(4, precision="bf16")
    assert half.dtype == torch.float32
    assert 0 < float((single - half).abs().mean()) < 0.1


def test_scaled_steps_reach_the_network(image_model):
    seen: list[float] = []
    object.__setattr__(image_model.config, "time_scale", 10.0)
    image_model.network.register_forward_pre_hook(
        lambda _, inputs: seen.append(float(inputs[1][0]))
    )
    image_model.sample(1, num_steps=2)
    assert seen == [990.0, 0.0]


def test_conditions_are_taken_in_turn(vocoder):
    mel = torch.stack([torch.zeros(8, 12), torch.ones(8, 12)])
    x = vocoder.sample(4, condition=mel, seed=1)
    alone = vocoder.sample(4, condition=mel[1], seed=1)
    torch.testing.assert_close(x[[1, 3]], alone[[1, 3]], rtol=0, atol=1e-5)
    assert not torch.allclose(x[0], alone[0])


@pytest.mark.parametrize(
    ("condition", "values"),
    [
        (torch.zeros(7, 12), ["(m, 8, 4", "(7, 12)"]),
        (torch.zeros(8, 3), ["(m, 8, 4", "(8, 3)"]),
        (torch.full((8, 12), float("nan")), ["condition"]),
    ],
)
def test_conditions_that_do_not_fit_are_refused(vocoder, condition, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        vocoder.sample(1, condition=condition)


def test_a_missing_or_unexpected_condition_is_refused(vocoder, image_model):
    vocoder.conditions = None
    with pytest.raises(
        InvalidArgumentError, match=tells("tiny-vocoder", "condition", 8, "8000 Hz")
    ):
        vocoder.sample(1)
    with pytest.raises(InvalidArgumentError, match=tells("tiny-image", "condition")):
        image_model.sample(1, condition=torch.zeros(8, 12))


@pytest.mark.parametrize(
    "choices",
    [
        {"n": 0},
        {"batch_size": 0},
        {"precision": "int8"},
        {"num_steps": 0},
        {"num_steps": 101},
        {"seed": -1},
    ],
)
def test_choices_out_of_range_are_refused(image_model, choices):
    with pytest.raises(InvalidArgumentError):
        image_model.sample(**choices)


def test_a_plan_for_another_schedule_is_refused(image_model):
    image_model.check_plan(image_model.config.recipe.replace().compile(image_model.schedule))
    other: Plan = ddim_rev(levels_step(VarianceSchedule.linear(), 5))
    with pytest.raises(InvalidArgumentError, match=tells("row 0", 0.00635282, 999, "tiny-image")):
        image_model.check_plan(other)


def test_a_plan_takes_the_place_of_choices(image_model):
    plan = ddim_rev(levels_step(image_model.schedule, 6))
    torch.testing.assert_close(
        image_model.sample(2, plan=plan), image_model.sample(2, num_steps=6)
    )
    with pytest.raises(InvalidArgumentError, match=tells("plan")):
        image_model.sample(2, plan=plan, num_steps=5)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "v", "x0"])
def test_a_prediction_of_clean_data_is_sampled_exactly(image_model, prediction):
    """A network that always answers x0 = 0.5, put as v or as x0, must end there."""
    image_model.config = replace(image_model.config, prediction=prediction)

    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            r = torch.from_numpy(image_model.schedule.R(t.double().numpy() + 1)).to(x)
            r = r.reshape(-1, 1, 1, 1)
            half = torch.full_like(x, 0.5)
            return (
                half if prediction in ("sample", "x0") else (r * x - half) / torch.sqrt(1 - r**2)
            )

    image_model.network = Constant()
    torch.testing.assert_close(image_model.sample(2), torch.full((2, 1, 8, 8), 0.5))


def test_devices_are_checked(folders):
    with pytest.raises(InvalidArgumentError, match=tells("device", "auto", "cpu", "cuda", "tpu")):
        load_model(folders["image"], "tpu")
    if not torch.cuda.is_available():
        with pytest.raises(FastDPMError, match=tells("device", "cuda", 0)):
            load_model(folders["image"], "cuda")
    assert load_model(folders["image"], "auto").device.type in ("cpu", "cuda")


def test_a_vocoder_run_checks_its_condition_once(vocoder):
    calls: list[str] = []

    def note(frame, event, _argument):
        if event == "call" and frame.f_code.co_name in ("check_mel", "check_condition"):
            calls.append(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}")

    mel = torch.rand(8, 32)
    sys.setprofile(note)
    try:
        vocoder.sample(3, num_steps=4, condition=mel, batch_size=2)
    finally:
        sys.setprofile(None)
    assert calls == ["model.check_condition", "condition.check_mel"]


def test_a_callback_is_called_after_every_row(image_model):
    states: list[SamplingState] = []
    image_model.sample(5, num_steps=3, batch_size=2, callback=states.append)
    assert [(s.first, s.size, s.row) for s in states] == [
        (first, size, row) for first, size in ((0, 2), (2, 2), (4, 1)) for row in range(3)
    ]
    assert [s.done for s in states[:4]] == pytest.approx([2 / 3, 4 / 3, 2, 8 / 3])
    assert {(s.total, s.num_rows, s.x.shape[1:]) for s in states} == {(5, 3, (1, 8, 8))}


def test_a_bar_is_imported_for_progress_alone(image_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastdpm.progress", None)
    image_model.sample(1, num_steps=2)
    with pytest.raises(ImportError):
        image_model.sample(1, num_steps=2, progress=True)


def test_hooks_of_a_network_are_called(vocoder):
    calls: list[int] = []
    vocoder.network.register_forward_hook(lambda *_: calls.append(1))
    vocoder.sample(1, num_steps=4)
    assert len(calls) == 4


def test_the_condition_of_batches_is_checked(vocoder):
    plan = vocoder.config.recipe.compile(vocoder.schedule)
    for condition in (torch.rand(7, 32), torch.full((8, 32), torch.nan)):
        with pytest.raises(InvalidArgumentError):
            next(vocoder.sample_batches([0], plan, condition=condition))


def test_a_part_in_training_mode_is_refused(image_model):
    part = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Identity()).eval()
    part[0].train()
    with pytest.raises(InvalidArgumentError, match="training"):
        Model.wrap(part, image_model.schedule, (1, 8, 8))


@pytest.mark.parametrize("key", ["type", "class"])
def test_settings_cannot_override_what_wrap_records_itself(image_model, key):
    with pytest.raises(InvalidArgumentError, match=tells("`settings`", key)):
        Model.wrap(image_model.network, image_model.schedule, (1, 8, 8), settings={key: "unet"})


class Shifted(torch.nn.Module):
    """A network whose prediction depends on the label."""

    def forward(self, x, t, labels):
        return x * 0.1 * (1 + labels.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("labels", [[2], 2, torch.tensor([2]), np.array([2])], ids=str)
def test_class_labels_are_the_condition_of_a_model_with_classes(labels):
    model = Model.wrap(Shifted().eval(), VarianceSchedule.linear(50), (1, 4, 4), classes=3)
    wanted = model.sample(2, num_steps=3, condition=torch.tensor([2]))
    torch.testing.assert_close(model.sample(2, num_steps=3, class_labels=labels), wanted)
    assert not torch.equal(model.sample(2, num_steps=3, class_labels=[0]), wanted)
    data, levels = wanted.clamp(-1, 1), levels_var(model.schedule, 3, "linear")
    found = reconstruct(model, data, levels, class_labels=labels)
    assert torch.equal(found.x, reconstruct(model, data, levels, condition=torch.tensor([2])).x)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"class_labels": [3]}, ["[0, 2]", 3]),
        ({"class_labels": ["cat"]}, ["`class_labels`", "cat"]),
        ({"class_labels": [0.5]}, ["[0.5]"]),
        ({"class_labels": [0], "condition": torch.tensor([0])}, ["`condition`", "`class_labels`"]),
    ],
)
def test_class_labels_that_do_not_fit_are_refused(choices, words):
    model = Model.wrap(Shifted().eval(), VarianceSchedule.linear(50), (1, 4, 4), classes=3)
    with pytest.raises(InvalidArgumentError, match=tells(*words)):
        model.sample(2, num_steps=3, **choices)


def test_class_labels_of_a_model_without_classes_are_refused(image_model):
    with pytest.raises(InvalidArgumentError, match=tells("`class_labels`")):
        image_model.sample(1, class_labels=[0])
