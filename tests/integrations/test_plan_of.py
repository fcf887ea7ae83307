"""Plans that are read off schedulers of diffusers give their samples."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdpm import InvalidArgumentError, Model, Plan, VarianceSchedule, ddim_rev, run
from fastdpm.core.inverse import first_order_inverse
from fastdpm.core.levels import levels_custom
from tests.messages import tells

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' use of NumPy

from fastdpm.integrations.diffusers import FastDPMScheduler, linear, plan_of  # noqa: E402

SCHEDULE = VarianceSchedule.linear()
LINEAR: dict[str, Any] = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
START = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
NOT_CLIPPED: dict[str, Any] = {"clip_sample": False}
SPACINGS = ("leading", "linspace", "trailing")
KARRAS = (*SPACINGS, "karras")
# Name, settings, spacings, and columns of the plan: of states, and of predictions.
KINDS: list[tuple[str, dict[str, Any], tuple[str, ...], tuple[int, int]]] = [
    ("DDIMScheduler", NOT_CLIPPED, SPACINGS, (1, 1)),
    ("DDIMScheduler", NOT_CLIPPED | {"set_alpha_to_one": False}, SPACINGS, (1, 1)),
    ("PNDMScheduler", {}, SPACINGS, (4, 13)),
    ("PNDMScheduler", {"skip_prk_steps": True}, SPACINGS, (2, 5)),
    ("DEISMultistepScheduler", {"solver_order": 3}, KARRAS, (1, 3)),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, KARRAS, (3, 3)),
    ("DPMSolverSinglestepScheduler", {}, ("leading", "karras"), (2, 2)),
    ("UniPCMultistepScheduler", {"solver_order": 3}, KARRAS, (4, 4)),
    ("EulerDiscreteScheduler", {}, ("trailing", "karras"), (1, 1)),
    ("HeunDiscreteScheduler", {}, ("leading", "karras"), (2, 2)),
    ("KDPM2DiscreteScheduler", {}, ("karras",), (2, 1)),
    ("LMSDiscreteScheduler", {}, ("linspace", "karras"), (1, 4)),
]
CASES = [(name, s, spacing, size) for name, s, spacings, size in KINDS for spacing in spacings]


def scheduler_of(name: str, spacing: str = "leading", **settings: Any) -> Any:
    kind = getattr(diffusers, name)
    chosen = {"use_karras_sigmas": True} if spacing == "karras" else {"timestep_spacing": spacing}
    if name == "DPMSolverSinglestepScheduler" and spacing != "karras":
        chosen = {}
    return kind(**LINEAR, **chosen, **settings)


def network(x: Tensor, t: Tensor) -> Tensor:
    """The noise in data N(0.3, 0.25), made nonlinear."""
    r = torch.from_numpy(np.asarray(SCHEDULE.R(t.double().numpy() + 1))).reshape(-1, 1, 1, 1)
    std = (1 - r**2).sqrt()
    return std * (x - 0.3 * r) / (0.25 * r**2 + std**2) * (1 + 0.05 * torch.sin(x))


def sampled(scheduler: Any, num_steps: int) -> Tensor:
    """What diffusers samples in float64, from noise that it scales to START for the network."""
    scheduler.set_timesteps(num_steps)
    for name, table in vars(scheduler).items():
        if isinstance(table, Tensor) and table.is_floating_point() and name != "timesteps":
            setattr(scheduler, name, table.double())
    first = scheduler.timesteps[0]
    x: Tensor = START / scheduler.scale_model_input(torch.ones((), dtype=torch.float64), first)
    for t in scheduler.timesteps:
        eps = network(scheduler.scale_model_input(x, t), t.double().repeat(len(x)))
        with linear._InDouble():
            x = scheduler.step(eps, t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize(("name", "settings", "spacing", "size"), CASES)
def test_a_plan_gives_the_samples_of_the_scheduler(name, settings, spacing, size):
    scheduler = scheduler_of(name, spacing, **settings)
    plan = plan_of(scheduler, 9)
    assert (plan.a.shape[1], plan.b.shape[1]) == size
    found = run(Plan.from_json(plan.to_json()), network, START)
    torch.testing.assert_close(found, sampled(scheduler, 9), rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_steps", [4, 5])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_chains_that_are_almost_too_short(spacing, num_steps):
    for name in ("PNDMScheduler", "UniPCMultistepScheduler"):
        scheduler = scheduler_of(name, spacing)
        found = run(plan_of(scheduler, num_steps), network, START)
        torch.testing.assert_close(found, sampled(scheduler, num_steps), rtol=0, atol=1e-10)


def test_ddim_is_our_plan_of_the_same_steps():
    plan = plan_of(diffusers.DDIMScheduler(1000, **LINEAR), 10)  # clips, which plans do not
    ours = ddim_rev(levels_custom(SCHEDULE, t=np.arange(900, -1, -100)))
    for name in ("level", "t", "a", "b", "network_level"):
        np.testing.assert_allclose(getattr(plan, name), getattr(ours, name), rtol=0, atol=1e-6)
    assert plan.level[-1] == 1
    assert not plan.notes


@pytest.mark.parametrize(
    ("name", "spacing", "settings", "noted"),
    [
        ("DPMSolverMultistepScheduler", "karras", {}, "steps up to 0.4"),
        ("DDIMScheduler", "linspace", {}, "does not match the level"),
        ("PNDMScheduler", "leading", {}, "the last step of diffusers changes nothing"),
        ("EulerDiscreteScheduler", "trailing", {}, "starts from by 0.99998"),
    ],
)
def test_what_diffusers_does_otherwise_is_noted(name, spacing, settings, noted):
    plan = plan_of(scheduler_of(name, spacing, **settings), 16)
    assert any(noted in note for note in plan.notes), plan.notes


def test_models_take_rounded_steps_from_plans_that_say_so_only():
    def model(schedule: VarianceSchedule) -> Model:
        return Model.wrap(nn.Identity().eval(), schedule, (1, 2, 2), name="tiny")

    plan = plan_of(scheduler_of("UniPCMultistepScheduler", "karras"), 10)
    assert 0.1 < plan.rounding <= 0.5
    model(SCHEDULE).check_plan(plan)
    tables = {name: getattr(plan, name) for name in ("level", "t", "a", "b", "c")}
    with pytest.raises(InvalidArgumentError, match="does not match the schedule"):
        model(SCHEDULE).check_plan(Plan(**tables))
    with pytest.raises(InvalidArgumentError, match="does not match the schedule"):
        model(VarianceSchedule.linear(1000, 1e-4, 0.0199)).check_plan(plan)


def test_a_plan_that_encodes_is_not_sampled():
    model = Model.wrap(nn.Identity().eval(), SCHEDULE, (1, 2, 2), name="tiny")
    encoding = first_order_inverse(levels_custom(SCHEDULE, t=[900, 400, 100]))
    with pytest.raises(InvalidArgumentError, match="leads from data to noise"):
        model.sample(n=1, plan=encoding)


def test_a_pipeline_executes_the_plan_with_our_scheduler():
    scheduler = FastDPMScheduler(**LINEAR, prediction_type="v_prediction")
    plan = plan_of(scheduler_of("PNDMScheduler", "linspace"), 10)
    scheduler.set_timesteps(plan=plan)
    x = START
    for row, t in enumerate(scheduler.timesteps):
        r = plan.network_level[row]
        eps = network(x, t.double().repeat(len(x)))
        v = (eps - (1 - r**2) ** 0.5 * x) / r
        x = scheduler.step(v, t, x, return_dict=False)[0]
    torch.testing.assert_close(x, run(plan, network, START), rtol=0, atol=1e-10)


def test_the_example_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "diffusers.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "plan_of(" in b)
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102
    assert names["images"].shape == (4, 1, 8, 8)
    assert names["plan"].num_rows == 18  # 19 evaluations of PNDM, of which the last is idle


def test_the_scheduler_and_the_generator_of_torch_stay_as_they_are():
    scheduler = scheduler_of("DDIMScheduler")
    state = torch.get_rng_state()
    plan = plan_of(scheduler, 5, label="mine")
    assert plan.label == "mine"
    assert torch.equal(torch.get_rng_state(), state)
    assert scheduler.num_inference_steps is None


class Bent(diffusers.DDIMScheduler):  # type: ignore[misc, name-defined]
    def step(self, model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().step(torch.tanh(model_output), *args, **kwargs)


@pytest.mark.parametrize(
    ("scheduler", "num_steps", "values"),
    [
        ("DDPMScheduler", 5, ["DDPMScheduler with S = 5", "draws noise"]),
        ("EulerAncestralDiscreteScheduler", 5, ["draws noise"]),
        ("DDIMInverseScheduler", 5, ["data to noise", "FastDPMInverseScheduler"]),
        ("FlowMatchEulerDiscreteScheduler", 5, ["no variance schedule"]),
        ("EDMEulerScheduler", 5, ["sigma_data"]),
        ("PNDMScheduler", 2, ["S = 2", "diffusers fails", "`num_steps`"]),
        ("UniPCMultistepScheduler", 20, ["S = 20", "not finite", "`num_steps`"]),
        ("DDIMScheduler", 21, ["`num_steps`", 20, 21]),
        ("FastDPMScheduler", 5, ["`scheduler`", "scheduler.plan"]),
        ("Bent", 5, ["Bent with S = 5", "not linear"]),
    ],
)
def test_schedulers_without_a_plan_are_refused_in_one_line(scheduler, num_steps, values):
    own = {"FastDPMScheduler": FastDPMScheduler, "Bent": Bent}
    kind = own.get(scheduler) or getattr(diffusers, scheduler)
    few = {"num_train_timesteps": 20} if num_steps >= 20 else {}
    with pytest.raises(InvalidArgumentError, match=tells(*values)) as caught:
        plan_of(kind(**few), num_steps)
    assert "\n" not in str(caught.value)
