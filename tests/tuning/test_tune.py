"""Learned plans are near their teacher, and a tuning costs what it says."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdpm import InvalidArgumentError, Model, Plan, SamplingError, VarianceSchedule, run
from fastdpm.core import levels_custom
from fastdpm.core.guidance import NO_GUIDANCE
from fastdpm.core.multistep import multistep_3
from fastdpm.models.tuned import TunedPlan
from fastdpm.tuning import TuneOptions, Tuning, tune
from fastdpm.tuning.closed_form import fit
from fastdpm.tuning.features import Features, Moments
from fastdpm.tuning.paths import distance, draw_paths
from fastdpm.tuning.predictor import DataPredictor
from fastdpm.tuning.refine import count_numbers, evaluations, refine
from fastdpm.tuning.rollout import Learned, level_of, lowest, roll
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()
SHAPE = (1, 2, 3)
DEVIATIONS = torch.tensor([0.3, 0.3, 0.6, 0.6, 1.0, 1.0])


class Gaussian(nn.Module):
    """The exact eps of data N(0, deviations^2)."""

    def __init__(self, deviations: Tensor = DEVIATIONS) -> None:
        super().__init__()
        self.deviations = nn.Parameter(deviations.reshape(SHAPE))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        level = float(SCHEDULE.R(float(t[0]) + 1))
        variance = (1 - level**2) + (level * self.deviations) ** 2
        return math.sqrt(1 - level**2) * x / variance


class Mixture(nn.Module):
    """The exact eps of data in which each value is -1 or 1, as likely, give or take 0.2."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += len(x)
        level = float(SCHEDULE.R(float(t[0]) + 1))
        variance = 1 - level**2 + (0.2 * level) ** 2
        mean = level * torch.tanh(level * x / variance)
        return math.sqrt(1 - level**2) * (x - mean) / variance


def model(network: nn.Module) -> Model:
    return Model.wrap(network.eval(), SCHEDULE, SHAPE)


def predictor(network: nn.Module, n: int = 64) -> DataPredictor:
    return DataPredictor(
        model(network),
        0,
        range(n),
        condition=None,
        guidance=NO_GUIDANCE,
        clip="none",
        precision="float32",
        batch_size=None,
    )


def test_three_steps_are_the_exact_map_of_gaussian_data():
    options = TuneOptions(n=64, stages=("levels", "paths"), teacher_steps=64, teacher_end=0.0101)
    tuned = tune(model(Gaussian()), 3, options=options)
    start = torch.randn(200, *SHAPE, dtype=torch.float64)
    found = run(tuned.plan, Gaussian(DEVIATIONS.double()), start)
    first = float(SCHEDULE.levels[-1])
    sizes = torch.sqrt(1 - first**2 + (first * DEVIATIONS.double()) ** 2).reshape(SHAPE)
    wanted = start * DEVIATIONS.double().reshape(SHAPE) / sizes
    assert float((found - wanted).square().mean().sqrt()) < 1e-3


def test_states_of_the_teacher_follow_at_any_level():
    predict = predictor(Gaussian())
    paths = draw_paths(predict, 48, 0.01)
    first = float(paths.level[0])
    for level in (first, 0.02, 0.5, 0.777, float(paths.level[-2])):
        before, after = (torch.sqrt(1 - r**2 + (r * DEVIATIONS) ** 2) for r in (first, level))
        wanted = predict.start * (after / before).reshape(SHAPE)
        assert float((paths.at(level) - wanted).abs().max()) < 2e-3
    assert paths.at(1.0) is paths.samples
    assert predict.evaluations == 48 * 64


def test_the_teacher_is_the_third_order_method():
    predict = predictor(Mixture())
    paths = draw_paths(predict, 12, 0.1)
    plan = multistep_3(levels_custom(SCHEDULE, level=paths.level[:-1]))
    wanted = run(plan, Mixture(), predict.start)
    torch.testing.assert_close(paths.samples, wanted, atol=2e-5, rtol=1e-4)


def test_the_plan_does_what_was_learned():
    predict = predictor(Mixture())
    paths = draw_paths(predict, 24, 0.1)
    learned, rollout = fit(predict, paths, np.array([-4.0, -1.0, 0.0, 1.0]))
    torch.testing.assert_close(roll(predict, learned).final, rollout.final)
    by_plan = run(learned.plan("learned"), Mixture(), predict.start)
    torch.testing.assert_close(by_plan, rollout.final, atol=1e-4, rtol=1e-4)


def test_the_plan_gives_the_network_the_levels_that_were_learned():
    predict = predictor(Mixture())
    paths = draw_paths(predict, 24, 0.1)
    learned, rollout = fit(predict, paths, np.array([-4.0, -1.0, 0.0, 1.0]))
    shifted = replace(learned, shift=np.array([-2.0, 0.3, 0.0, -0.2]))
    final = roll(predict, shifted).final
    assert distance(final, rollout.final) > 1e-4
    plan = Plan.from_json(shifted.plan("learned").to_json())
    torch.testing.assert_close(run(plan, Mixture(), predict.start), final, atol=1e-3, rtol=1e-3)
    wanted = [SCHEDULE.levels[-1], *level_of(np.array([-0.7, 0.0, 0.8]))]
    np.testing.assert_allclose(plan.network_level, wanted, rtol=1e-12)
    np.testing.assert_allclose(plan.level[:-1], level_of(np.array([-4.0, -1.0, 0.0, 1.0])))


def test_the_closed_form_is_nearer_than_theory_and_keeps_the_variance():
    predict = predictor(Mixture(), 256)
    paths = draw_paths(predict, 24, 0.1)
    log_snr = np.array([-4.0, -0.5, 1.0])
    theory = roll(predict, Learned.untrained(SCHEDULE, log_snr)).final
    plain = fit(predict, paths, log_snr, match=False)[1].final
    matched = fit(predict, paths, log_snr)[1].final
    loss, wanted = [distance(x, paths.samples) for x in (theory, plain, matched)], paths.samples
    assert max(loss[1:]) < 0.7 * loss[0]
    spread = [float((x - x.mean(0)).square().mean()) for x in (plain, matched, wanted)]
    assert spread[0] < 0.995 * spread[2]
    assert math.isclose(spread[1], spread[2], rel_tol=1e-4)


def test_rows_before_the_level_that_changes_are_not_run_again():
    predict = predictor(Mixture())
    paths = draw_paths(predict, 24, 0.1)
    old, moved = np.array([-4.0, -1.0, 0.0, 1.0]), np.array([-4.0, -1.0, 0.3, 1.0])
    before = fit(predict, paths, old)
    whole, _ = fit(predict, paths, moved)
    count = predict.evaluations
    part, _ = fit(predict, paths, moved, before=(*before, 2))
    assert predict.evaluations - count == 2 * 64
    np.testing.assert_array_equal(part.table, whole.table)


def test_a_jacobian_takes_the_partial_runs_that_are_counted():
    predict = predictor(Mixture())
    paths = draw_paths(predict, 24, 0.1)
    learned, _ = fit(predict, paths, np.array([-4.0, -0.5, 1.0]))
    wanted = paths.samples

    def residual(rollout):
        return (rollout.final - wanted).flatten().double().numpy()

    count = predict.evaluations
    steps = list(refine(predict, learned, residual, 1))
    assert len(steps) == 2
    assert count_numbers(3) == 12
    runs = (predict.evaluations - count) / 64 - evaluations(3)  # the first one, and all tries
    assert runs % 3 == 0
    assert 6 <= runs <= 3 * (1 + 4 * 6)


def test_a_refinement_only_improves():
    predict = predictor(Mixture())
    paths = draw_paths(predict, 24, 0.1)
    learned, _ = fit(predict, paths, np.array([-4.0, -1.5, 0.5]))
    wanted = paths.samples

    def residual(rollout):
        return (rollout.final - wanted).flatten().double().numpy()

    losses = [step.loss for step in refine(predict, learned, residual, 6)]
    assert all(after < before for before, after in pairwise(losses))
    assert losses[-1] < 0.8 * losses[0]


def test_steps_to_values_that_are_not_finite_are_taken_back():
    class Fragile(Mixture):
        limit = 1.0

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            out = super().forward(x, t)
            return out * math.nan if float(SCHEDULE.R(float(t[0]) + 1)) > self.limit else out

    network = Fragile()
    predict = predictor(network)
    paths = draw_paths(predict, 24, 0.1)
    log_snr = np.array([-4.0, -1.0, 0.5])
    learned, _ = fit(predict, paths, log_snr)
    network.limit = float(level_of(np.array(0.500001)))

    def residual(rollout):
        return (rollout.final - paths.samples).flatten().double().numpy()

    steps = list(refine(predict, learned, residual, 4))
    assert all(math.isfinite(step.loss) for step in steps)
    assert all(step.learned.log_snr[-1] <= 0.500001 for step in steps)


def test_moments_are_those_of_the_features_and_zero_for_the_teacher():
    torch.manual_seed(0)
    x = torch.randn(400, 5, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0, 1.0, 0.5])
    moments = Moments.of(x - x.mean(0))
    assert float(np.abs(moments.residual(x - x.mean(0))).max()) < 1e-12
    shifted = moments.residual(x - x.mean(0) + 0.1)
    assert math.isclose(float(shifted @ shifted) * moments.total, 5 * 0.01, rel_tol=1e-9)
    # Of Gaussians N(0, v) and N(0, v (1 + e)^2), the squared Frechet distance is v e^2.
    wide = moments.residual((x - x.mean(0)) * 1.01)
    assert math.isclose(float(wide @ wide), 1e-4, rel_tol=0.05)


def test_features_are_those_of_the_blocks_of_the_network(image_model):
    def make(n):
        return DataPredictor(
            image_model,
            3,
            range(n),
            condition=None,
            guidance=NO_GUIDANCE,
            clip="none",
            precision="float32",
            batch_size=7,
        )

    samples = make(40).start
    features = Features(make(40), samples)
    found = features(samples)
    assert found.shape == (40, 10)  # a quarter of the samples
    assert float(found.mean(0).abs().max()) < 1e-9
    torch.testing.assert_close(features(samples.flip(0)).mean(0), found.mean(0), atol=0.5, rtol=1)
    assert not any(m._forward_hooks for m in image_model.network.modules())


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


def test_the_lowest_level_is_that_of_the_last_training_step():
    assert math.isclose(float(level_of(np.array(lowest(SCHEDULE)))), float(SCHEDULE.levels[-1]))


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


def test_of_large_samples_some_values_stand_for_all(image_model, monkeypatch):
    options = TuneOptions(n=36, stages=("levels",), evaluations=500, teacher_steps=12)
    tuning = Tuning(image_model, options)
    noises = tuning.fresh
    rollout = roll(noises.predict, Learned.untrained(image_model.schedule, np.array([-2.0, 1.0])))
    whole = noises.to_paths(rollout)
    monkeypatch.setattr("fastdpm.tuning.noises._VALUES", 32)
    some = noises.to_paths(rollout)
    assert len(some) == 32 * len(noises) < len(whole)
    assert math.isclose(some @ some, whole @ whole, rel_tol=0.3)
    np.testing.assert_array_equal(some, noises.to_paths(rollout))
