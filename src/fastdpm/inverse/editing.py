"""Editing data: add noise and sample back (SDEdit), and inpainting with a mask.

Inpainting uses the ordinary sampling loop. :class:`KnownPart` replaces the known part of the
network's input by the data, with fresh noise of the row's level, and only the painted part of the
result is kept. The known part thus acts only through the network, so the painted part depends on
it less than under the exact conditional distribution; more rows and kappa = 1 strengthen it.
Source: Meng et al. 2022, arXiv:2108.01073, algorithm 1, for SDEdit; Lugmayr et al. 2022,
arXiv:2201.09865, section 4.1, for inpainting (without its resampling).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.guidance import GuidanceLike
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import ddim_rev
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.condition import ClassLabels, Condition
from fastdpm.data.tensors import float64_device
from fastdpm.inverse.batches import check_data, own_condition
from fastdpm.inverse.diffusion import check_level, noised
from fastdpm.inverse.masks import check_mask
from fastdpm.models.model import Model
from fastdpm.sampling.loop import run
from fastdpm.sampling.network import (
    Network,
    NoisePredictor,
    count_evaluations,
    predict_eps,
    split_variance,
)
from fastdpm.sampling.noise import Noise, SampleNoise
from fastdpm.sampling.state import Callback, after_rows


class KnownPart(NoisePredictor):
    """Replace the known part of a network's input by data with noise of the input's level.

    Args:
        network: A network or noise predictor that predicts eps.
        x0: Clean data, shape (batch, ...).
        unknown: True where the data is unknown; must broadcast to the shape of ``x0``.
        plan: The plan that is run.
        noise: ``noise(row, x) -> z``. Rows from ``plan.num_rows`` on are used, because the plan
            itself uses the earlier ones.
    """

    def __init__(
        self,
        network: Network | NoisePredictor,
        x0: Tensor,
        unknown: Tensor,
        plan: Plan,
        noise: Noise,
    ) -> None:
        self.network = network
        self.x0 = x0
        self.unknown = unknown
        self.noise = noise
        self.rows = {float(level): plan.num_rows + i for i, level in enumerate(plan.network_level)}

    def __call__(self, x: Tensor, t: Tensor, level: float) -> Tensor:
        """Predict eps; where the data is known, return the noise that was added to it."""
        z = self.noise(self.rows[level], x)
        merged = torch.where(self.unknown, x, noised(self.x0, level, z))
        eps, learned = split_variance(predict_eps(self.network, merged, t, level), x)
        eps = torch.where(self.unknown, eps, z)
        return eps if learned is None else torch.cat([eps, learned], dim=1)

    def evaluations(self, level: float) -> int:
        """See :class:`fastdpm.sampling.network.NoisePredictor`."""
        return count_evaluations(self.network, level)


@dataclass(frozen=True)
class EditPlan:
    """How to edit data.

    Attributes:
        plan: The plan that samples from the noisy data.
        unseen: Whether it starts from pure noise, so that the data under a mask has no influence.
    """

    plan: Plan
    unseen: bool


def plan_edit(
    model: Model,
    *,
    level: float | None = None,
    strength: float | None = None,
    masked: bool = False,
    levels: NoiseLevels | None = None,
    kappa: float | None = None,
) -> EditPlan:
    """Compile the plan of an edit; arguments as in :func:`edit`.

    Raises:
        InvalidArgumentError: If the model is latent, or an argument is out of range.
    """
    if model.decoder is not None:
        raise InvalidArgumentError(
            f"model {model.config.name!r} is latent: latent models cannot edit data"
        )
    recipe = model.config.recipe
    all_levels = recipe.choose_levels(model.schedule) if levels is None else levels
    model.check_plan(all_levels)
    if strength is None and level is None:
        strength = 1.0 if masked else 0.5
    part = levels_from(all_levels, model.schedule, level=level, strength=strength)
    plan = ddim_rev(part, recipe.stochasticity if kappa is None else kappa)
    return EditPlan(plan, bool(part.level[0] <= all_levels.level[0]))


@checked
def edit(
    model: Model,
    x: Tensor,
    *,
    level: float | None = None,
    strength: float | None = None,
    mask: Tensor | None = None,
    levels: NoiseLevels | None = None,
    kappa: float | None = None,
    clip: str | None = None,
    seed: int = 0,
    class_labels: ClassLabels | None = None,
    condition: Condition | None = None,
    guidance_scale: GuidanceLike | None = None,
    batch_size: int | None = None,
    plan: EditPlan | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Edit data: add noise up to a level and sample back, everywhere or only under a mask.

    Args:
        model: A model that is not latent.
        x: Data in [-1, 1], shape (n, *data shape).
        level: Level up to which noise is added, in [R(T), 1). Sampling starts there and continues
            with the cleaner ones of ``levels``. Pass at most one of ``level`` and ``strength``.
        strength: Share of the rows of ``levels`` to run, in (0, 1], rounded up. By default 0.5, or
            1 with a mask.
        mask: 1 or True where to paint, 0 or False elsewhere; must broadcast to ``x`` from the last
            axis, so that (height, width) or (samples,) is one mask for all samples. If all rows
            run, the data under the mask has no influence.
        levels: Levels of the model's schedule; by default those of the recommended recipe.
        kappa: Stochasticity in [0, 1]; by default that of the recommended recipe.
        clip: "none", "x0", "dynamic" or "state"; by default that of the recommended recipe.
        seed: Random seed. Sample i depends on the seed, on i and on its own data.
        class_labels: For models with classes, labels from 0 or names: one for all samples, or m of
            them; sample i uses label i mod m.
        condition: Condition of any other model; sample i uses condition i mod m. By default the
            mel spectrogram of the data for a vocoder, else the default of the model.
        guidance_scale: Scale of classifier-free guidance, one for each row that runs, or a
            :class:`fastdpm.core.GuidanceScale`; by default that of the recommended recipe.
        batch_size: Number of samples per batch; by default it depends on their size.
        plan: A plan from :func:`plan_edit`, which replaces ``level``, ``strength``, ``levels`` and
            ``kappa``.
        callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row.

    Returns:
        Edited data in the shape of ``x``, float32 in [-1, 1], on the CPU. Values outside the mask
        are exactly those of ``x``.

    Raises:
        InvalidArgumentError: If an argument is invalid or does not fit the model.
        SamplingError: If the network's output is unusable.
    """
    if plan is None:
        masked = mask is not None
        plan = plan_edit(
            model, level=level, strength=strength, masked=masked, levels=levels, kappa=kappa
        )
    elif (level, strength, levels, kappa) != (None, None, None, None):
        raise InvalidArgumentError(
            "`level`, `strength`, `levels` and `kappa` have no effect with `plan`: drop them"
        )
    edits = edit_batches(
        model,
        x,
        plan,
        mask=mask,
        clip=clip,
        seed=seed,
        class_labels=class_labels,
        condition=condition,
        guidance_scale=guidance_scale,
        batch_size=batch_size,
        callback=callback,
    )
    return torch.cat([edited for _, edited in edits])


def edit_batches(
    model: Model,
    x: Tensor,
    plan: EditPlan,
    *,
    samples: Sequence[int] | None = None,
    mask: Tensor | None = None,
    clip: str | None = None,
    seed: int = 0,
    class_labels: ClassLabels | None = None,
    condition: Condition | None = None,
    guidance_scale: GuidanceLike | None = None,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Edit data batch by batch; see :func:`edit`.

    Args:
        model: A model that is not latent.
        x: Data in [-1, 1], shape (n, *data shape).
        plan: A plan from :func:`plan_edit`.
        samples: Indices of the samples to edit; all by default.
        mask: See :func:`edit`, as for the other arguments.
        clip: "none", "x0", "dynamic" or "state".
        seed: Random seed.
        class_labels: Labels or names of classes.
        condition: Condition of any other model.
        guidance_scale: Scale of guidance.
        batch_size: Number of samples per batch.
        callback: Called after each row.

    Yields:
        The indices of the samples of a batch, and their edited data.
    """
    model.check_plan(plan.plan)
    check_data(model, x)
    unknown = None if mask is None else check_mask(mask, x)
    own = own_condition(model, x, condition, class_labels)
    reverse, clip = plan.plan, model.config.recipe.clip if clip is None else clip
    guidance = model.check_guidance(guidance_scale, own)
    guiding = guidance.over(reverse.network_level)
    evaluations = guidance.evaluations(reverse.network_level)
    todo = range(len(x)) if samples is None else samples
    for first, indices in model.split(todo, batch_size, own):
        real = x[list(indices)]
        data = real.to(float64_device(model.device), torch.float64)
        chosen = model.condition_of(own, indices)
        noise = SampleNoise(seed, indices)
        z = noise.start(data.shape[1:], dtype=data.dtype, device=data.device)
        start = noised(data, float(reverse.level[0]), z)
        network = model.noise_predictor(chosen, clip=clip, **guiding)
        if unknown is not None:
            painted = unknown.to(data.device).expand(x.shape)[list(indices)]
            network = KnownPart(network, data, painted, reverse, noise)
            start = torch.where(painted, z, start) if plan.unseen else start
        row_callback = after_rows(
            callback, first, len(todo), reverse.num_rows, evaluations=evaluations
        )
        state = run(
            reverse,
            network,
            start,
            noise=noise,
            callback=row_callback,
            clip_state=clip == "state",
        )
        edited = model.finished(state).float().cpu()
        if unknown is not None:
            edited = torch.where(painted.cpu(), edited, real.float().cpu())
        yield indices, edited


def levels_from(
    levels: NoiseLevels,
    schedule: VarianceSchedule,
    *,
    level: float | None = None,
    strength: float | None = None,
) -> NoiseLevels:
    """Take the cleaner part of a chain: from a level on, or a share of its rows.

    Args:
        levels: S + 1 levels in sampling order.
        schedule: The schedule of the levels.
        level: First level of the part, in [R(T), 1). It need not be one of ``levels``.
        strength: Share of the rows to take, in (0, 1]: the last ceil(strength S) of them.

    Raises:
        InvalidArgumentError: If both or neither of ``level`` and ``strength`` are passed, or the
            value is out of range.
    """
    if (level is None) == (strength is None):
        raise InvalidArgumentError("pass exactly one of `level` and `strength`")
    if strength is not None:
        if not 0 < strength <= 1:
            raise InvalidArgumentError(f"`strength` must be in (0, 1], got {strength:g}")
        rows = math.ceil(strength * levels.num_steps - 1e-9)
        return levels[levels.num_steps - max(rows, 1) :]
    start = float(level or 0)
    step = check_level(schedule, start)
    if start >= levels.level[-1]:
        raise InvalidArgumentError(
            f"`level` must be noisier (smaller) than the last level, {levels.level[-1]:g}, got"
            f" {start:g}"
        )
    same = np.flatnonzero(np.abs(levels.level[:-1] - start) <= 1e-9 * start)
    if same.size:
        return levels[int(same[0]) :]
    rest = int(np.flatnonzero(levels.level > start)[0])
    label = f"{levels.label}, from level {start:.6g}"
    cleaner = levels.level[rest:]
    t = np.append(step - 1, levels.t[rest:])
    return NoiseLevels(np.append(start, cleaner), t, label, levels.notes)
