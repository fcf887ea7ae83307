"""What one Euler step between two states of a model's trajectories costs, for GITS.

In y = x / r and sigma = sqrt(1 - r^2) / r the probability-flow equation is dy / d sigma = eps. An
Euler step (a row of DDIM-rev) leads from state i to y_i + (sigma_j - sigma_i) eps_i. With dev(y),
the distance of y from the line through the first and the last state of its trajectory, a step
costs what it adds to the deviation of state j, measured in x:

    cost[i, j] = r_j mean over samples of (dev(y_i + (sigma_j - sigma_i) eps_i) - dev(y_j)).

The paper has no factor r_j. But the rest of a trajectory shrinks an error about as it shrinks the
noise, from sqrt(1 + sigma_j^2) = 1 / r_j to 1. Without the factor, the small errors of a network
that predicts eps at scales around 100 outweigh all others, and most levels end up there.

With p and e, the components of y_i - y_N and eps_i perpendicular to the line, and h = sigma_j -
sigma_i, dev^2 = p.p + 2 h p.e + h^2 e.e: three numbers for each state and sample give all costs.
Source: Chen et al. 2024, arXiv:2405.11326, for trajectories and deviations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastdpm.core.adams import ipndm
from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.gits import TrajectoryCosts
from fastdpm.core.guidance import GuidanceLike
from fastdpm.core.history import scales
from fastdpm.core.limits import MAX_SAMPLES, check_limit
from fastdpm.core.schedule import Array
from fastdpm.core.spacings import levels_sigma
from fastdpm.data.condition import Condition
from fastdpm.models.model import Model
from fastdpm.sampling.loop import run
from fastdpm.sampling.network import Network, NoisePredictor, predict_eps, split_variance
from fastdpm.sampling.noise import SampleNoise
from fastdpm.sampling.state import Callback, after_rows


@checked
def trajectory_costs(
    model: Model,
    *,
    n: int = 64,
    num_steps: int = 60,
    seed: int = 0,
    clip: str | None = None,
    guidance_scale: GuidanceLike | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
    condition: Condition | None = None,
    callback: Callback | None = None,
) -> TrajectoryCosts:
    """Draw trajectories of a model, and compute what a step between any two of their levels costs.

    A batch is kept in memory with all of its states and predictions, two float32 numbers for each
    value of a sample and each step.

    Args:
        model: The model.
        n: Number of trajectories.
        num_steps: Steps N of iPNDM over noise scales spaced as "karras", at most T: T if the
            schedule has fewer.
        seed: Random seed; trajectory i starts where sample i of :meth:`Model.sample` does.
        clip: What to clip; by default as in the model's recipe. See :class:`fastdpm.Recipe`.
        guidance_scale: Scale of classifier-free guidance; by default as in the model's recipe.
        batch_size: Number of samples per batch; by default it depends on their size.
        precision: Precision of the network: "float32", "bf16" or "fp16".
        condition: Conditions, (m, ...); trajectory i uses condition i mod m. By default the
            model's own.
        callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row.

    Raises:
        InvalidArgumentError: If an argument is invalid or does not fit the model.
        SamplingError: If the network's output is unusable.
    """
    for name, value in (("n", n), ("num_steps", num_steps)):
        if value < 1:
            raise InvalidArgumentError(f"`{name}` must be at least 1, got {value}")
    check_limit("`n`", n, MAX_SAMPLES)
    levels = levels_sigma(model.schedule, min(num_steps, model.schedule.num_train_steps))
    plan = ipndm(levels)
    checked = model.check_condition(condition)
    guidance = model.check_guidance(guidance_scale, checked)
    guiding = guidance.over(plan.network_level)
    evaluations = guidance.evaluations(plan.network_level)
    clip = model.config.recipe.clip if clip is None else clip
    cost = np.zeros((plan.num_rows + 1, plan.num_rows + 1))
    for first, batch in model.split(range(n), batch_size, checked):
        chosen = model.condition_of(checked, batch)
        recorder = _Recorder(
            model.noise_predictor(chosen, clip=clip, precision=precision, **guiding)
        )
        last = run(
            plan,
            recorder,
            SampleNoise(seed, batch).start(model.sample_shape(checked), device=model.device),
            callback=after_rows(callback, first, n, plan.num_rows, evaluations=evaluations),
            clip_state=clip == "state",
        )
        cost += deviation_costs(plan.level, [*recorder.states, last], recorder.predictions)
    return TrajectoryCosts(plan.level, cost / n)


class _Recorder(NoisePredictor):
    """A network that keeps every state it is evaluated at, and its predictions, on the CPU."""

    def __init__(self, network: Network | NoisePredictor) -> None:
        self.network = network
        self.states: list[Tensor] = []
        self.predictions: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor, level: float) -> Tensor:
        out = predict_eps(self.network, x, t, level)
        self.states.append(x.to("cpu", copy=True))
        self.predictions.append(split_variance(out, x)[0].to("cpu", copy=True))
        return out


def deviation_costs(
    level: Array, states: Sequence[Tensor], predictions: Sequence[Tensor]
) -> Array:
    """What one step between two states of a batch adds to the deviation of the second one.

    Args:
        level: Levels of the states, shape (N + 1,).
        states: The N + 1 states, each of shape (batch, ...).
        predictions: The predictions of eps at the first N states.

    Returns:
        Sums over the batch, shape (N + 1, N + 1); only entries j > i have a meaning.
    """
    scale = torch.from_numpy(scales(level))
    first, last = (_flat(states[i]) / level[i] for i in (0, -1))
    line = normalize(first - last, dim=1)

    def off_line(vectors: Tensor) -> Tensor:
        return vectors - (vectors * line).sum(dim=1, keepdim=True) * line

    reached = torch.zeros(len(level), len(level), dtype=torch.float64, device="cpu")
    deviation = torch.zeros(len(level), dtype=torch.float64, device="cpu")  # the last one is 0
    for i, eps in enumerate(predictions):
        p, e = off_line(_flat(states[i]) / level[i] - last), off_line(_flat(eps))
        h = (scale - scale[i])[:, None]
        squares = (p * p).sum(1) + 2 * h * (p * e).sum(1) + h**2 * (e * e).sum(1)
        reached[i] = squares.clamp(min=0).sqrt().sum(1)
        deviation[i] = p.norm(dim=1).sum()
    return level * np.asarray(reached - deviation, dtype=np.float64)


def _flat(batch: Tensor) -> Tensor:
    return batch.cpu().double().flatten(1)
