"""Diffusers' samplers on our networks: the same process where both describe it, honest counts."""

import dataclasses
import importlib
import importlib.util
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdpm import (
    FastDPMError,
    InvalidArgumentError,
    MissingExtraError,
    Model,
    Plan,
    SampleNoise,
    SamplingError,
    VarianceSchedule,
    ddim_rev,
    load_model,
)
from fastdpm.core import dpmpp_2m, dpmpp_3m
from fastdpm.core.levels import levels_custom
from fastdpm.data.spec import DataSpec
from fastdpm.evaluation.diffusers_samplers import (
    DIFFUSERS_METHODS,
    DiffusersMethod,
    sample_diffusers,
)
from fastdpm.evaluation.methods import choose_methods
from fastdpm.models.config import ModelConfig
from tests.messages import tells

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="needs fastdpm[diffusers]"
)

KEYS = list(DIFFUSERS_METHODS)
SPACINGS = ("leading", "linspace", "trailing")
MEAN, SPREAD = 0.1, 0.2


class Gaussian(nn.Module):
    """The exact eps for data N(MEAN, SPREAD^2), which records the steps it is evaluated at."""

    def __init__(self, num_train_steps: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))
        self.steps: list[float] = []
        betas = torch.linspace(0.1, 10, num_train_steps, dtype=torch.float64) / num_train_steps
        self.levels = (1 - betas).log().cumsum(0).mul(0.5).exp().float()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.steps.append(float(t[0]))
        r = self.levels[t.long()].reshape(-1, 1, 1, 1)
        noise = 1 - r**2
        return noise.sqrt() * (x - r * MEAN) / ((r * SPREAD) ** 2 + noise) + self.shift


def gaussian(num_train_steps: int = 100) -> tuple[Model, Gaussian]:
    schedule = {
        "type": "linear",
        "num_train_steps": num_train_steps,
        "beta_start": 0.1 / num_train_steps,
        "beta_end": 10 / num_train_steps,
    }
    network = Gaussian(num_train_steps)
    config = ModelConfig(
        name="gaussian",
        network={"type": "exact"},
        schedule=schedule,
        data=DataSpec("image", (1, 4, 4)),
    )
    return Model(config, network), network


def method_of(key: str) -> DiffusersMethod:
    return DIFFUSERS_METHODS[key]


def draw(model: Model, key: str, num_steps: int, n: int = 3, **options: Any) -> Tensor:
    batches = sample_diffusers(model, method_of(key), num_steps, range(n), **options)
    return torch.cat([samples for _, samples, _ in batches])


def ours(model: Model, plan: Plan, n: int = 3, **options: Any) -> Tensor:
    return torch.cat([x for _, x in model.sample_batches(range(n), plan, **options)])


def spread_of(spacing: str, num_steps: int, total: int) -> list[int]:
    step = total // num_steps
    first = 0 if spacing == "leading" else step - 1
    return [first + step * i for i in reversed(range(num_steps))]


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("num_steps", [4, 10, 25])
@pytest.mark.parametrize(
    ("prediction", "clip"),
    [
        ("epsilon", "x0"),
        ("epsilon", "dynamic"),
        ("v_prediction", "none"),
        ("v_prediction", "x0"),
        ("sample", "none"),
    ],
)
def test_ddim_of_diffusers_is_ours_on_the_same_steps(
    image_model, spacing, num_steps, prediction, clip
):
    config = dataclasses.replace(image_model.config, prediction=prediction, time_scale=0.5)
    model = Model(config, image_model.network)
    steps = spread_of(spacing, num_steps, 100)
    expected = ours(model, ddim_rev(levels_custom(model.schedule, t=steps)), clip=clip, seed=5)
    found = draw(model, f"diffusers-ddim-{spacing}", num_steps, clip=clip, seed=5)
    assert (expected.abs() < 1).float().mean() > 0.1  # else the clamp would hide everything
    atol = 2e-5 if prediction == "sample" else 1e-5  # diffusers keeps its tables in float32
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_of_diffusers_is_ours_without_a_wrapper(spacing):
    model, _ = gaussian()
    plan = ddim_rev(levels_custom(model.schedule, t=spread_of(spacing, 20, 100)))
    found = draw(model, f"diffusers-ddim-{spacing}", 20)
    torch.testing.assert_close(found, ours(model, plan), rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_steps", [5, 20])
def test_ddpm_of_diffusers_spreads_as_our_plan_on_the_same_steps(num_steps):
    model, _ = gaussian()
    steps = spread_of("trailing", num_steps, 100)
    plan = ddim_rev(levels_custom(model.schedule, t=steps), kappa=1.0)
    expected = ours(model, plan, n=600)
    found = draw(model, "diffusers-ddpm-trailing", num_steps, n=600)
    assert abs(float(found.mean() - expected.mean())) < 0.006  # three standard errors, or more
    assert float(found.std() / expected.std()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("name", "compiled"), [("2m", dpmpp_2m), ("3m", dpmpp_3m)])
@pytest.mark.parametrize("num_steps", [4, 10])
def test_dpm_solver_of_diffusers_is_our_multistep_plan_on_the_same_steps(
    image_model, name, compiled, num_steps
):
    steps = spread_of("trailing", num_steps, 100)
    plan = compiled(levels_custom(image_model.schedule, t=steps))
    found = draw(image_model, f"diffusers-dpmpp-{name}-trailing", num_steps, clip="x0")
    expected = ours(image_model, plan, clip="x0")
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_each_sample_of_a_vocoder_keeps_its_condition(vocoder):
    steps = spread_of("trailing", 5, 50)
    expected = ours(vocoder, ddim_rev(levels_custom(vocoder.schedule, t=steps)), n=5)
    found = draw(vocoder, "diffusers-ddim-trailing", 5, n=5, batch_size=2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # diffusers' own
@pytest.mark.parametrize("key", ["diffusers-dpmpp-2m-karras", "diffusers-unipc-linspace"])
def test_a_network_that_predicts_v_is_sampled_as_diffusers_itself_would(image_model, key):
    diffusers = importlib.import_module("diffusers")
    config = dataclasses.replace(image_model.config, prediction="v_prediction")
    model, method = Model(config, image_model.network), method_of(key)
    scheduler = getattr(diffusers, method.scheduler)(
        num_train_timesteps=100,
        trained_betas=model.schedule.betas.tolist(),
        prediction_type="v_prediction",
        use_karras_sigmas=method.choice == "karras",
    )
    scheduler.set_timesteps(7)
    x = SampleNoise(0, range(3)).start((1, 8, 8))
    for t in scheduler.timesteps:
        with torch.no_grad():
            v = model.network(x, t.float().repeat(3))
        x = scheduler.step(v, t, x).prev_sample
    torch.testing.assert_close(draw(model, key, 7), x.clamp(-1, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "spacing", "steps"),
    [
        ("ddim", "leading", (900, 800, 0)),
        ("ddpm", "linspace", (999, 888, 0)),
        ("ddim", "trailing", (999, 899, 99)),
        ("plms", "trailing", (999, 899, 99)),
        ("deis", "leading", (900, 810, 90)),
        ("dpmpp-3m", "linspace", (999, 899, 100)),
        ("unipc", "trailing", (999, 899, 99)),
    ],
)
def test_ten_of_a_thousand_steps_are_those_that_the_documentation_tells(family, spacing, steps):
    model, network = gaussian(1000)
    draw(model, f"diffusers-{family}-{spacing}", 10, n=1)
    assert (network.steps[0], network.steps[1], network.steps[-1]) == steps


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("num_steps", [4, 7])
def test_the_evaluations_reported_are_those_that_were_made(key, num_steps):
    model, network = gaussian()
    seen: list[tuple[int, int]] = []
    batches = sample_diffusers(
        model,
        method_of(key),
        num_steps,
        range(3),
        batch_size=2,
        callback=lambda state: seen.append((state.first, state.row)),
    )
    counts = [count for _, _, count in batches]
    expected = num_steps + (9 if "pndm" in key else 1 if "plms" in key else 0)
    assert counts == [expected, expected]
    assert len(network.steps) == 2 * expected
    assert seen == [(first, row) for first in (0, 2) for row in range(expected)]
    assert method_of(key).num_evaluations(num_steps) == expected


@pytest.mark.parametrize("key", KEYS)
def test_a_sample_depends_on_its_seed_and_index_and_not_on_its_batch(image_model, key):
    together = draw(image_model, key, 5, n=3, seed=9, clip="x0")
    for index in (0, 2):
        batches = sample_diffusers(image_model, method_of(key), 5, [index], seed=9, clip="x0")
        ((batch, alone, _),) = batches
        assert batch == [index]
        torch.testing.assert_close(alone, together[index : index + 1], rtol=0, atol=5e-5)
    assert not torch.allclose(draw(image_model, key, 5, n=1, clip="x0"), together[:1], atol=1e-2)


def test_samples_of_ddpm_draw_different_noise_on_the_way(monkeypatch):
    model, _ = gaussian()
    monkeypatch.setattr(SampleNoise, "start", lambda _self, shape, **_kw: torch.zeros(2, *shape))
    first, second = draw(model, "diffusers-ddpm-trailing", 10, n=2)
    assert (first - second).std() > SPREAD / 2
    first, second = draw(model, "diffusers-ddim-trailing", 10, n=2)
    assert torch.equal(first, second)


@pytest.mark.parametrize("key", KEYS)
def test_more_steps_come_nearer_to_the_data(key):
    model, _ = gaussian()

    def error(num_steps: int) -> float:
        samples = draw(model, key, num_steps, n=400)
        return abs(float(samples.mean()) - MEAN) + abs(float(samples.std()) - SPREAD)

    many = error(49)
    assert many < 0.04
    drifts = key in ("diffusers-pndm-linspace", "diffusers-plms-linspace")  # good at 4 by chance
    assert drifts or many < error(4) / 2


def test_a_first_step_that_rounding_repeats_is_taken_twice(image_model):
    schedule = {"type": "cosine", "num_train_steps": 60}
    model = Model(dataclasses.replace(image_model.config, schedule=schedule), image_model.network)
    steps: list[float] = []
    model.network.register_forward_pre_hook(lambda _net, inputs: steps.append(float(inputs[1][0])))
    draw(model, "diffusers-dpmpp-2m-karras", 6)
    assert len(steps) == 6
    assert steps[0] == steps[1] == 59


def test_unknown_methods_are_refused_with_the_list_of_known_ones():
    with pytest.raises(InvalidArgumentError, match=tells(*KEYS, "diffusers-ddim")):
        choose_methods(["diffusers-ddim-leading", "diffusers-ddim"])


def test_all_methods_have_names_of_their_own():
    names = {(method.group, method.choice) for method in DIFFUSERS_METHODS.values()}
    assert len(names) == len(KEYS) == 32


@pytest.mark.parametrize(
    ("key", "num_steps", "kind", "values"),
    [
        ("diffusers-pndm-leading", 3, InvalidArgumentError, [4, 100, 3]),
        ("diffusers-plms-leading", 1, InvalidArgumentError, [2, 100, 1]),
        ("diffusers-unipc-linspace", 0, InvalidArgumentError, ["[1, 100]", 0]),
        ("diffusers-ddim-leading", 101, InvalidArgumentError, ["[1, 100]", 101]),
        ("diffusers-ddim-trailing", 29, SamplingError, ["S = 29", "step -1"]),
        ("diffusers-dpmpp-2m-leading", 100, SamplingError, ["S = 100", "T = 100"]),
    ],
)
def test_steps_that_a_method_cannot_take_are_refused_before_any_evaluation(
    key, num_steps, kind, values
):
    model, network = gaussian()
    with pytest.raises(kind, match=tells(key, *values)) as caught:
        sample_diffusers(model, method_of(key), num_steps, range(2))
    assert "\n" not in str(caught.value)
    assert network.steps == []


def test_other_bad_arguments_are_refused():
    model, _ = gaussian()
    refused: list[tuple[dict[str, Any], list[object]]] = [
        ({"clip": "hard"}, ["clip", "none", "x0", "dynamic", "hard"]),
        ({"precision": "int8"}, ["precision", "float32", "int8"]),
        ({"batch_size": 0}, ["batch_size", 1, 0]),
        ({"condition": torch.zeros(8, 20)}, ["gaussian", "condition"]),
        ({"seed": -1}, ["seed", -1]),
        ({"n": 0}, ["n", 1, 0]),
    ]
    for options, values in refused:
        with pytest.raises(InvalidArgumentError, match=tells(*values)):
            draw(model, "diffusers-ddim-leading", 5, **options)


def test_a_network_that_returns_nan_is_named():
    model, network = gaussian()
    network.shift.data.fill_(float("nan"))
    with pytest.raises(
        SamplingError, match=tells("diffusers-deis-linspace", "S = 5", "evaluation 0")
    ):
        draw(model, "diffusers-deis-linspace", 5)


def test_a_step_that_diffusers_fails_at_is_named(monkeypatch):
    scheduler = importlib.import_module("diffusers").UniPCMultistepScheduler
    model, _ = gaussian()

    def fail(*_args: object, **_options: object) -> None:
        raise ValueError("no such order\nmore")

    monkeypatch.setattr(scheduler, "step", fail)
    with pytest.raises(
        FastDPMError, match=tells("diffusers-unipc-linspace", "evaluation 0", "no such order")
    ):
        draw(model, "diffusers-unipc-linspace", 5)


def test_without_diffusers_the_extra_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    model, _ = gaussian()
    with pytest.raises(MissingExtraError, match=tells("diffusers", "fastdpm[diffusers]")):
        sample_diffusers(model, method_of("diffusers-ddim-leading"), 5, range(2))


@pytest.mark.parametrize(
    ("key", "num_steps"),
    [
        (key, num_steps)
        for key, method in DIFFUSERS_METHODS.items()
        for num_steps in (7, 20)
        if method.recipe(num_steps, 1000) is not None
    ],
)
def test_our_recipe_gives_the_same_samples(key, num_steps):
    method = DIFFUSERS_METHODS[key]
    recipe = method.recipe(num_steps, 1000)
    assert recipe is not None
    model = load_model("digits")
    drawn = sample_diffusers(model, method, num_steps, range(2), clip="x0", seed=3)
    theirs = torch.cat([x for _, x, *_ in drawn])
    ours = model.sample(2, plan=recipe.compile(model.schedule), clip="x0", seed=3)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


# Where few steps magnify the rounding of float32: of samples of either side to those in float64.
ROUNDED = {"pndm-linspace": 2e-4, "pndm-trailing": 1e-4, "plms": 1e-4, "karras": 1e-4}


@pytest.mark.parametrize(
    "key", [key for key, method in DIFFUSERS_METHODS.items() if not method.stochastic]
)
def test_a_plan_gives_the_same_samples(key):
    method, model = DIFFUSERS_METHODS[key], load_model("digits")
    for num_steps in (4, 16):
        drawn = sample_diffusers(model, method, num_steps, range(2), clip="x0", seed=3)
        theirs = torch.cat([x for _, x, *_ in drawn])
        plan = method.plan(model.schedule, num_steps)
        assert plan is not None
        assert plan.label == f"diffusers {method.solver}, {method.choice}, S = {num_steps}"
        ours = model.sample(2, plan=plan, clip="x0", seed=3)
        few = num_steps == 4
        atol = next((v for name, v in ROUNDED.items() if few and name in key), 1e-5)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def test_a_method_that_draws_noise_has_no_plan():
    method = DIFFUSERS_METHODS["diffusers-ddpm-leading"]
    assert method.plan(VarianceSchedule.linear(), 5) is None
    with pytest.raises(SamplingError, match=tells("S = 29", "step -1")):
        DIFFUSERS_METHODS["diffusers-ddim-trailing"].plan(VarianceSchedule.linear(100), 29)


def test_rows_that_few_need_are_compared_by_their_own_keys_only():
    group = {method.key for method in choose_methods("diffusers")}
    own = {f"diffusers-unipc-3-{spacing}" for spacing in (*SPACINGS, "karras")}
    own |= {"diffusers-deis-karras", "diffusers-unipc-karras"}
    assert group == set(KEYS) - own
    assert {method.key for method in choose_methods(sorted(own))} == own


def test_samples_that_no_recipe_repeats_have_none():
    def having(num_steps: int) -> set[str]:
        methods = DIFFUSERS_METHODS.items()
        return {key[10:] for key, m in methods if m.recipe(num_steps, 1000) is not None}

    every = {f"{name}-{s}" for name in ("unipc", "unipc-3") for s in SPACINGS}
    every |= {f"dpmpp-2m-{spacing}" for spacing in SPACINGS}
    third = {f"dpmpp-3m-{spacing}" for spacing in SPACINGS}
    assert having(1) == set()
    assert having(7) == every | third
    assert having(10) == every | third | {"ddim-leading", "ddim-trailing"}
    assert having(20) == every | {"ddim-leading", "ddim-trailing"}
