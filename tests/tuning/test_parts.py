"""The parts of a tuning: the teacher, plans, coefficients, refinement and features."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fastdpm import Plan, run
from fastdpm.core import levels_custom
from fastdpm.core.guidance import NO_GUIDANCE
from fastdpm.core.multistep import multistep_3
from fastdpm.tuning import TuneOptions, Tuning
from fastdpm.tuning.closed_form import fit
from fastdpm.tuning.features import Features, Moments
from fastdpm.tuning.paths import distance, draw_paths
from fastdpm.tuning.predictor import DataPredictor
from fastdpm.tuning.refine import count_numbers, evaluations, refine
from fastdpm.tuning.rollout import Learned, level_of, lowest, roll
from tests.tuning.networks import DEVIATIONS, SCHEDULE, SHAPE, Gaussian, Mixture, predictor


def differences(paths):
    """A residual: the differences of a run to the teacher's samples."""
    return lambda rollout: (rollout.final - paths.samples).flatten().double().numpy()


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
    residual = differences(paths)
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
    residual = differences(paths)
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

    steps = list(refine(predict, learned, differences(paths), 4))
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


def test_the_lowest_level_is_that_of_the_last_training_step():
    assert math.isclose(float(level_of(np.array(lowest(SCHEDULE)))), float(SCHEDULE.levels[-1]))


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
