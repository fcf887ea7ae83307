"""FastDPMScheduler equals :func:`fastdpm.run`, and the schedulers of diffusers."""

import copy
import pickle
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from fastdpm import (
    FastDPMScheduler,
    InvalidArgumentError,
    Plan,
    Recipe,
    SampleNoise,
    SamplingError,
    VarianceSchedule,
    ddim_rev,
    levels_step,
    levels_var,
    run,
)
from fastdpm.core import levels_custom, multistep_3, samplers, standard
from fastdpm.sampling import ClipX0, DynamicThreshold, VPrediction, X0Prediction
from tests.core.test_inverse import leapfrog
from tests.integrations.conftest import NETWORKS, SHAPE, sample, smooth, start
from tests.messages import tells

LINEAR = VarianceSchedule.linear()
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def _pair(num_steps: int, recipe: Recipe, **config: Any) -> tuple[Any, Plan]:
    scheduler = FastDPMScheduler(
        levels=recipe.levels,
        spacing=recipe.spacing,
        kappa=recipe.kappa,
        method=recipe.method,
        **config,
    )
    scheduler.set_timesteps(num_steps)
    return scheduler, recipe.replace(num_steps=num_steps).compile(LINEAR)


RECIPES = [
    Recipe(levels=levels, spacing=spacing, kappa=kappa)
    for levels, spacing in (("step", "linear"), ("step", "quadratic"), ("var", "quadratic"))
    for kappa in (0.0, 0.5, 1.0)
] + [
    Recipe(method=method)
    for method in (
        "dpmpp-2m",
        "dpmpp-3m",
        "multistep-3",
        "unipc-3",
        "heun",
        "dpm-solver-2",
        "restart",
    )
]


@pytest.mark.parametrize("recipe", RECIPES, ids=Recipe.describe)
def test_the_same_noise_gives_the_samples_of_run(recipe):
    scheduler, plan = _pair(12, recipe)
    noise = SampleNoise(3, range(2))
    scheduler.use_noise(noise)
    x = noise.start(SHAPE[1:])
    torch.testing.assert_close(sample(scheduler, x), run(plan, smooth, x, noise=noise), **CLOSE)
    np.testing.assert_array_equal(scheduler.timesteps, np.float32(plan.t))


PREDICTIONS = {"epsilon": lambda n: n, "v_prediction": VPrediction, "sample": X0Prediction}
CLIPS: dict[str, tuple[dict[str, Any], Any]] = {
    "none": ({}, lambda n: n),
    "clip": ({"clip_sample": True}, ClipX0),
    "range": ({"clip_sample": True, "clip_sample_range": 0.2}, lambda n: ClipX0(n, 0.2)),
    "dynamic": (
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
        lambda n: DynamicThreshold(n, 0.9, 1.5),
    ),
}


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("recipe", [Recipe(kappa=0.5), Recipe(method="dpmpp-2m")], ids=str)
def test_predictions_and_clipping_are_those_of_the_denoisers(prediction, clip, recipe):
    config, wrap = CLIPS[clip]
    scheduler, plan = _pair(8, recipe, prediction_type=prediction, **config)
    noise = SampleNoise(5, range(2))
    scheduler.use_noise(noise)
    x, network = 6 * noise.start(SHAPE[1:]), NETWORKS[prediction]
    ours = sample(scheduler, x, network)
    plain = PREDICTIONS[prediction](network)
    torch.testing.assert_close(ours, run(plan, wrap(plain), x, noise=noise), **CLOSE)
    assert (clip == "none") == torch.allclose(ours, run(plan, plain, x, noise=noise), **CLOSE)


def _steps(scheduler: FastDPMScheduler, like: Any) -> None:
    scheduler.set_timesteps(timesteps=like.timesteps)


def _both(num_steps: int, **config: Any) -> tuple[FastDPMScheduler, Any]:
    theirs: Any = diffusers.DDIMScheduler(**{"clip_sample": False, **config})
    theirs.set_timesteps(num_steps)
    ours = FastDPMScheduler.from_config(theirs.config)
    _steps(ours, theirs)
    return ours, theirs


@pytest.mark.parametrize("num_steps", [5, 7, 50, 100])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_is_the_same_where_both_describe_one_process(num_steps, prediction):
    ours, theirs = _both(num_steps, prediction_type=prediction)
    x, network = start(), NETWORKS[prediction]
    torch.testing.assert_close(sample(ours, x, network), sample(theirs, x, network), **CLOSE)


def test_ddim_with_clipped_data_is_the_same_either_way():
    ours, theirs = _both(20, clip_sample=True, clip_sample_range=0.2)
    x = start()
    for clipped in (True, False):
        torch.testing.assert_close(
            sample(ours, x, use_clipped_model_output=clipped),
            sample(theirs, x, use_clipped_model_output=clipped),
            **CLOSE,
        )
    consistent = sample(ours, x)
    torch.testing.assert_close(consistent, sample(ours, x, use_clipped_model_output=True))
    assert (consistent - sample(ours, x, use_clipped_model_output=False)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("num_steps", "spacing"), [(10, "linspace"), (7, "linspace"), (30, "trailing")]
)
def test_ddim_differs_where_its_recomputed_previous_step_is_not_the_next_one(num_steps, spacing):
    ours, theirs = _both(num_steps, timestep_spacing=spacing)
    goes_to = theirs.timesteps[:-1] - 1000 // num_steps
    assert (goes_to != theirs.timesteps[1:]).any()
    assert (sample(ours, start()) - sample(theirs, start())).abs().max() > 1e-3


def test_ddim_that_ends_at_the_first_step_is_a_plan_that_ends_there():
    ours, theirs = _both(20, set_alpha_to_one=False, steps_offset=1)
    x = start()
    assert (sample(ours, x) - sample(theirs, x)).abs().max() > 1e-4
    levels = levels_custom(LINEAR, t=theirs.timesteps, end=float(LINEAR.R(1)))
    ours.set_timesteps(plan=ddim_rev(levels))
    torch.testing.assert_close(sample(ours, x), sample(theirs, x), **CLOSE)


@pytest.mark.parametrize("clip", [False, True])
def test_ddpm_with_equal_noise_is_kappa_one(clip):
    theirs: Any = diffusers.DDPMScheduler(clip_sample=clip)
    theirs.set_timesteps(timesteps=[999, 700, 420, 180, 60, 10, 0])
    ours = FastDPMScheduler.from_config(theirs.config, kappa=1.0)
    _steps(ours, theirs)
    x = start()
    mine, other = (
        sample(s, x, generator=torch.Generator().manual_seed(4)) for s in (ours, theirs)
    )
    torch.testing.assert_close(mine, other, **CLOSE)


def test_ddpm_is_the_standard_sampler_over_all_steps():
    config = {"num_train_timesteps": 100, "beta_end": 0.1}
    for kind, method in (("fixed_small", "standard"), ("fixed_large", "standard-large")):
        theirs: Any = diffusers.DDPMScheduler(**config, clip_sample=False, variance_type=kind)
        ours = FastDPMScheduler.from_config(theirs.config, method=method)
        for scheduler in (ours, theirs):
            scheduler.set_timesteps(100)
        x = start()
        mine, other = (
            sample(s, x, generator=torch.Generator().manual_seed(4)) for s in (ours, theirs)
        )
        torch.testing.assert_close(mine, other, **CLOSE)


def test_first_order_steps_may_be_taken_in_any_order_and_repeated():
    scheduler, _ = _pair(9, Recipe())
    x = start()
    once = [scheduler.step(smooth(x, t), t, x).prev_sample for t in scheduler.timesteps]
    for row in (5, 0, 8, 5, 2):
        t = scheduler.timesteps[row]
        again = scheduler.step(smooth(x, t), t, x).prev_sample
        torch.testing.assert_close(again, once[row], rtol=0, atol=0)


def test_a_multistep_step_may_be_repeated():
    scheduler, plan = _pair(9, Recipe(method="dpmpp-3m"))
    x = start()
    expected = run(plan, smooth, x)
    for t in scheduler.timesteps:
        scheduler.step(smooth(2 * x, t), t, 2 * x)  # as one that tries a step and takes another
        x = scheduler.step(smooth(x, t), t, x).prev_sample
    torch.testing.assert_close(x, expected, **CLOSE)


def test_a_multistep_row_out_of_order_is_refused_in_one_line():
    scheduler, _ = _pair(9, Recipe(method="dpmpp-3m"))
    x = start()
    first, second, third = scheduler.timesteps[:3]
    with pytest.raises(ValueError, match=tells("row 1", "row 0", "set_begin_index")) as caught:
        scheduler.step(x, second, x)
    assert "\n" not in str(caught.value)
    scheduler.step(x, first, x)
    scheduler.step(x, second, x)
    scheduler.step(x, first, x)  # a new run: what followed the old one is void
    with pytest.raises(ValueError, match=tells("row 2", "row 1", "set_begin_index")):
        scheduler.step(x, third, x)
    scheduler.step(x[:1], first, x[:1])
    with pytest.raises(ValueError, match=tells("row 1", "row 0")):
        scheduler.step(x, second, x)


def test_a_multistep_chain_that_starts_later_is_compiled_from_there():
    scheduler, plan = _pair(9, Recipe(method="multistep-3"))
    scheduler.set_begin_index(4)
    x = start()
    tail = multistep_3(levels_step(LINEAR, 9)[4:])
    for t in scheduler.timesteps[4:]:
        x = scheduler.step(smooth(x, t), t, x).prev_sample
    torch.testing.assert_close(x, run(tail, smooth, start()), **CLOSE)
    scheduler.set_begin_index(0)
    torch.testing.assert_close(sample(scheduler, start()), run(plan, smooth, start()), **CLOSE)
    with pytest.raises(ValueError, match=tells("9 rows", 9)):
        scheduler.set_begin_index(9)


def test_a_custom_multistep_plan_cannot_start_late():
    scheduler = FastDPMScheduler()
    scheduler.set_timesteps(plan=multistep_3(levels_step(LINEAR, 6)))
    with pytest.raises(ValueError, match=tells("row 2", "set_timesteps")):
        scheduler.set_begin_index(2)


@pytest.mark.parametrize(
    "plan",
    [
        ddim_rev(levels_var(LINEAR, 7, "quadratic", bounded=False), 0.3),
        ddim_rev(levels_step(LINEAR, 10)[3:8], 1.0),
        leapfrog(levels_var(LINEAR, 6)),
        multistep_3(levels_custom(LINEAR, t=[700.25, 300.5, 99.125, 0.5], end=0.999999)),
    ],
    ids=["unbounded", "from the middle", "two states", "custom ends"],
)
def test_any_plan_is_taken_as_it_is(plan):
    scheduler = FastDPMScheduler(kappa=1.0)
    scheduler.set_timesteps(plan=plan)
    noise = SampleNoise(1, range(2))
    scheduler.use_noise(noise)
    torch.testing.assert_close(
        sample(scheduler, start()), run(plan, smooth, start(), noise=noise), **CLOSE
    )
    assert scheduler.num_inference_steps == len(scheduler.timesteps) == plan.num_rows


def test_a_learned_variance_is_left_out_unless_the_plan_takes_it():
    def learned(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.cat([smooth(x, t), torch.sin(x)], dim=1)

    scheduler, plan = _pair(6, Recipe(kappa=1.0), clip_sample=True)
    noise = SampleNoise(1, range(2))
    scheduler.use_noise(noise)
    theirs = run(plan, ClipX0(smooth), start(), noise=noise)
    torch.testing.assert_close(sample(scheduler, start(), learned), theirs, **CLOSE)

    short = VarianceSchedule.linear(50, beta_end=0.2)
    scheduler = FastDPMScheduler(50, beta_end=0.2, method="standard-learned")
    scheduler.use_noise(noise)
    scheduler.set_timesteps(50)
    theirs = run(standard(short, "learned"), learned, start(), noise=noise)
    torch.testing.assert_close(sample(scheduler, start(), learned), theirs, **CLOSE)
    with pytest.raises(SamplingError, match=tells("row 0 of 50")):
        sample(scheduler, start())


def test_a_positive_eta_replaces_kappa_and_zero_leaves_it():
    noise = SampleNoise(1, range(2))
    at_half, plan = _pair(6, Recipe(kappa=0.5))
    deterministic, _ = _pair(6, Recipe())
    for scheduler in (at_half, deterministic):
        scheduler.use_noise(noise)
    expected = run(plan, smooth, start(), noise=noise)
    torch.testing.assert_close(sample(deterministic, start(), eta=0.5), expected, **CLOSE)
    for eta in (0.0, None):
        torch.testing.assert_close(sample(at_half, start(), eta=eta), expected, **CLOSE)


def test_noise_is_passed_or_drawn_by_one_generator_or_by_one_per_sample():
    scheduler, plan = _pair(5, Recipe(kappa=1.0))
    t, x = scheduler.timesteps[1], start()
    eps = smooth(x, t)
    z = start(seed=9)
    passed = scheduler.step(eps, t, x, variance_noise=z).prev_sample
    drawn = scheduler.step(eps, t, x, generator=torch.Generator().manual_seed(9)).prev_sample
    torch.testing.assert_close(passed, drawn)
    each = [torch.Generator().manual_seed(seed) for seed in (9, 10)]
    both = scheduler.step(eps, t, x, generator=each).prev_sample
    single = torch.Generator().manual_seed(10)
    alone = scheduler.step(eps[1:], t, x[1:], generator=single).prev_sample
    torch.testing.assert_close(both[1:], alone)
    mean = x * plan.a[1, 0] + eps * plan.b[1, 0]
    torch.testing.assert_close(passed, mean + plan.c[1] * z, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    scheduler, _ = _pair(10, Recipe(levels="var"))
    half = start().to(dtype)
    for t in scheduler.timesteps:
        eps = smooth(half.float(), t).to(dtype)
        step = scheduler.step(eps, t, half)
        exact = scheduler.step(eps.float(), t, half.float())
        assert step.prev_sample.dtype == step.pred_original_sample.dtype == dtype
        torch.testing.assert_close(step.prev_sample, exact.prev_sample.to(dtype), rtol=0, atol=0)


def test_float64_stays_float64():
    scheduler, plan = _pair(10, Recipe(levels="var"))
    x = start().double()
    ours = sample(scheduler, x, lambda x, t: smooth(x, float(plan.t[scheduler._row(t)])))
    torch.testing.assert_close(ours, run(plan, smooth, x), rtol=1e-13, atol=1e-13)


def test_the_clean_data_is_what_the_prediction_implies():
    scheduler, plan = _pair(10, Recipe(), clip_sample=True, clip_sample_range=0.2)
    x, t = 3 * start(), scheduler.timesteps[0]
    x0 = scheduler.step(smooth(x, t), t, x).pred_original_sample
    assert x0.abs().max() == np.float32(0.2)
    free, _ = _pair(10, Recipe())
    raw = free.step(smooth(x, t), t, x).pred_original_sample
    r = float(plan.level[0])
    torch.testing.assert_close(raw, (x - (1 - r * r) ** 0.5 * smooth(x, t)) / r, **CLOSE)


def test_data_are_noised_at_real_valued_steps():
    scheduler = FastDPMScheduler()
    data, noise = start(), start(seed=1)
    t = torch.tensor([412.375, -0.25])
    r = torch.tensor(LINEAR.R(t.double().numpy() + 1)).float().reshape(-1, 1, 1, 1)
    sigma = (1 - r**2).sqrt()
    torch.testing.assert_close(
        scheduler.add_noise(data, noise, t), r * data + sigma * noise, **CLOSE
    )
    torch.testing.assert_close(
        scheduler.get_velocity(data, noise, t), r * noise - sigma * data, **CLOSE
    )
    assert scheduler.add_noise(data.half(), noise, t).dtype == torch.float16
    with pytest.raises(ValueError, match=tells("[0, 1000]", 1001.5)):
        scheduler.add_noise(data, noise, torch.tensor([1000.5]))


def test_whole_steps_are_noised_as_by_diffusers():
    theirs: Any = diffusers.DDPMScheduler()
    ours = FastDPMScheduler.from_config(theirs.config)
    t = torch.tensor([0, 731])
    for name in ("add_noise", "get_velocity"):
        mine, other = (getattr(s, name)(start(), start(seed=1), t) for s in (ours, theirs))
        torch.testing.assert_close(mine, other, **CLOSE)


def test_a_scheduler_can_be_copied_and_pickled():
    scheduler, plan = _pair(6, Recipe())
    expected = run(plan, smooth, start())
    for other in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):  # noqa: S301
        torch.testing.assert_close(sample(other, start()), expected, **CLOSE)
        other.set_timesteps(4)


@pytest.mark.parametrize("method", ["heun", "dpm-solver-2"])
def test_a_chain_of_two_evaluations_may_begin_at_a_step(method):
    scheduler, _ = _pair(9, Recipe(method=method))
    levels = Recipe(num_steps=5).choose_levels(LINEAR)[2:]
    tail = samplers.find(method).over(levels, LINEAR)
    x = SampleNoise(3, range(2)).start(SHAPE[1:])
    scheduler.set_begin_index(4)
    for t in scheduler.timesteps[4:]:
        x = scheduler.step(smooth(x, t.expand(2)), t, x).prev_sample
    expected = run(tail, smooth, SampleNoise(3, range(2)).start(SHAPE[1:]))
    torch.testing.assert_close(x, expected, **CLOSE)
    with pytest.raises(InvalidArgumentError, match=tells("`begin_index`", 3, 2, 4)):
        scheduler.set_begin_index(3)
