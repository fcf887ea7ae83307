"""Learned plans are near their teacher, and a tuning costs what it says."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdpm import InvalidArgumentError, SamplingError, run
from fastdpm.core.guidance import NO_GUIDANCE
from fastdpm.models.tuned import TunedPlan
from fastdpm.tuning import TuneOptions, Tuning, tune
from fastdpm.tuning.rollout import level_of
from tests.messages import tells
from tests.tuning.networks import DEVIATIONS, SCHEDULE, SHAPE, Gaussian, Mixture, model


def test_three_steps_are_the_exact_map_of_gaussian_data():
    options = TuneOptions(n=64, stages=("levels", "paths"), teacher_steps=64, teacher_end=0.0101)
    tuned = tune(model(Gaussian()), 3, options=options)
    start = torch.randn(200, *SHAPE, dtype=torch.float64)
    found = run(tuned.plan, Gaussian(DEVIATIONS.double()), start)
    first = float(SCHEDULE.levels[-1])
    sizes = torch.sqrt(1 - first**2 + (first * DEVIATIONS.double()) ** 2).reshape(SHAPE)
    wanted = start * DEVIATIONS.double().reshape(SHAPE) / sizes
    assert float((found - wanted).square().mean().sqrt()) < 1e-3


def test_the_record_says_what_a_tuning_took(image_model):
    lines: list[str] = []
    options = TuneOptions(n=36, evaluations=2000, teacher_steps=16)
    tuning = Tuning(image_model, options, log=lines.append)
    tuned = tuning.run(1)
    record = tuned.record
    assert [stage["stage"] for stage in record["stages"]] == ["levels", "paths", "moments"]
    assert record["evaluations"] == sum(stage["evaluations"] for stage in record["stages"])
    assert record["teacher"]["steps"] == 16
    assert (record["noises"], record["fresh_noises"]) == (36, 32)
    chosen = [s for s in record["stages"] if s["stage"] == record["chosen"]]
    least = min(stage["losses"]["moments"] for stage in record["stages"])
    assert chosen[0]["losses"]["moments"] == least
    assert tuned.clip == image_model.config.recipe.clip
    assert len(record["rows"]) == 1
    assert math.isclose(record["rows"][-1], chosen[0]["losses"]["paths"], rel_tol=1e-2)
    assert tuned.plan.num_rows == 1
    assert any(line.startswith("teacher: 16 steps") for line in lines)


def test_an_interrupted_tuning_goes_on_and_gives_the_same_plan():
    options = TuneOptions(n=40, evaluations=4000)
    kept = []
    tuning = Tuning(model(Mixture()), options)
    whole = tuning.run(2, keep=lambda done: kept.append(json.dumps(done)))
    assert len(kept) == 3
    for stages in kept:
        again = Tuning(model(Mixture()), options).run(2, json.loads(stages))
        assert again.plan.fingerprint == whole.plan.fingerprint
        assert again.record["evaluations"] == whole.record["evaluations"]


def test_a_tuned_plan_survives_its_file(image_model):
    tuned = tune(image_model, 1, options=TuneOptions(n=32, stages=("levels",), teacher_steps=12))
    again = TunedPlan.from_json(tuned.to_json())
    assert again.plan.fingerprint == tuned.plan.fingerprint
    assert replace(again, plan=tuned.plan) == tuned
    recipe = image_model.config.recipe
    assert again.differences(recipe, tuned.model) == []
    other = recipe.replace(clip="x0", guidance_scale=2.0)
    assert again.differences(other, "other") == ["another model", "no guidance", "clip none"]
    assert again.recipe(other).bare == other.bare
    assert again.differences(again.recipe(other)) == []
    for wrong, values in (
        ("{", ["tuned plan"]),
        ("{}", ["tuned plan", "fastdpm-tuned-plan"]),
        (tuned.to_json().replace('"clip"', '"clap"'), ["clap"]),
        (tuned.to_json().replace('"t": [', '"t": [1, '), ["plan"]),
    ):
        with pytest.raises(InvalidArgumentError, match=tells(*values)):
            TunedPlan.from_json(wrong)


def test_labels_are_taken_in_turn_and_guidance_is_learned_for(class_model):
    options = TuneOptions(n=32, stages=("levels",), teacher_steps=16, evaluations=100)
    plain = tune(class_model, 1, options=options, guidance_scale=1)
    guided = tune(class_model, 1, options=options, guidance_scale=2)
    assert plain.condition == guided.condition == "classes"
    assert plain.guidance == NO_GUIDANCE
    assert guided.guidance.scale == 2
    assert plain.plan.fingerprint != guided.plan.fingerprint
    assert guided.record["teacher"]["evaluations"] == 2 * plain.record["teacher"]["evaluations"]


class Noisy(Mixture):
    """A network with randomness of its own."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(x, t) + 0.1 * torch.randn_like(x)


class Broken(Mixture):
    """A network that returns NaN below some level."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(x, t) * (math.nan if float(t[0]) < 500 else 1.0)


class Stiff(Mixture):
    """A network whose answers change faster than any teacher can follow."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(x, t) + torch.sin(97.3 * t.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize(
    ("network", "options", "num_steps", "values"),
    [
        (Mixture, {"n": 20}, 2, ["n", "at least 32", "7 numbers", 20]),
        (Mixture, {"n": 40}, 8, ["n", "at least 72", "52 numbers", 40]),
        (Mixture, {}, 24, ["num_steps", "[1, 23]", 24, "teacher_steps"]),
        (Mixture, {"teacher_steps": 4}, 4, ["num_steps", "[1, 3]"]),
        (Noisy, {"n": 32}, 2, ["differently", "eval()"]),
        (Stiff, {"n": 32, "teacher_steps": 24}, 2, ["teacher", "not converged", "teacher_steps"]),
    ],
)
def test_what_cannot_be_learned_is_refused(network, options, num_steps, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        tune(model(network()), num_steps, options=TuneOptions(**options))


def test_unusable_values_of_the_network_are_an_error():
    with pytest.raises(SamplingError, match=tells("not finite")):
        tune(model(Broken()), 2, options=TuneOptions(n=32))


def test_a_limit_of_time_ends_the_search_with_the_best_so_far():
    lines: list[str] = []
    options = TuneOptions(n=32, minutes=1e-6)
    tuned = tune(model(Mixture()), 2, options=options, log=lines.append)
    assert tuned.plan.num_rows == 2
    assert tuned.record["stages"][0]["evaluations"] < 2000


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"stages": ()}, ["stages", "none"]),
        ({"stages": ("paths",)}, ["stages", "paths"]),
        ({"precision": "int8"}, ["precision", "int8"]),
        ({"seed": -1}, ["seed", -1]),
        ({"teacher_end": 2.0}, ["teacher_end", 2]),
        ({"teacher_steps": 0}, ["teacher_steps", 0]),
        ({"evaluations": 0}, ["evaluations", 0]),
        ({"minutes": 0.0}, ["minutes", 0]),
        ({"seeds": 0}, ["seeds", 0]),
        ({"batch_size": 0}, ["batch_size", 0]),
    ],
)
def test_options_out_of_range_are_refused(change, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        TuneOptions(**change)


def test_the_best_of_several_sets_of_noises_counts_and_an_interrupted_one_goes_on():
    options = TuneOptions(n=40, seeds=3, stages=("levels",), evaluations=4000)
    kept, lines = [], list[str]()
    tuning = Tuning(model(Mixture()), options, log=lines.append)
    whole = tuning.run(2, keep=lambda done: kept.append(json.dumps(done)))
    stages = whole.record["stages"]
    losses = [stage["losses"]["paths"] for stage in stages]
    assert [stage.get("repeat", 0) for stage in stages] == [0, 1, 2]
    assert len(set(losses)) == 3
    chosen = losses.index(min(losses))
    alone = json.loads(kept[-1])[chosen]
    assert whole.plan.level[1] == level_of(np.array(alone["log_snr"]))[1]
    assert any("S = 2 (2 of 3), levels" in line for line in lines)
    again = Tuning(model(Mixture()), options).run(2, json.loads(kept[1]))
    assert again.plan.fingerprint == whole.plan.fingerprint
    first = tune(model(Mixture()), 2, options=replace(options, seeds=1))
    assert first.record["stages"][0]["losses"] == stages[0]["losses"]
    in_time = tune(model(Mixture()), 2, options=replace(options, minutes=1e-6))
    assert len(in_time.record["stages"]) == 1


def test_the_teacher_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr("fastdpm.tuning.stages._SECONDS_PER_LINE", 0.0)
    lines: list[str] = []
    options = TuneOptions(n=40, stages=("levels",), evaluations=2000, teacher_steps=12)
    tune(model(Mixture()), 2, options=options, log=lines.append)
    shown = [line for line in lines if line.startswith("teacher: ") and " of 12 steps" in line]
    assert [line.split()[1] for line in shown] == [str(row) for row in range(1, 13)] * 2
    assert "32 noises, about 0 s left" in shown[11]
