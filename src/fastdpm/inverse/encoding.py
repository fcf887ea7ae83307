"""Encoding data into noise, and decoding it.

Four methods run DDIM-rev towards noise: ``first`` and ``second`` approximate the latent that
decodes to the data with order 1 and 2, ``implicit`` solves for it numerically, and ``invertible``
uses a two-step plan with an algebraic inverse. States are float64; the network keeps its own type.
Source: Song et al. 2021, arXiv:2010.02502, section 4.3, and ``fastdpm.core.inverse``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.arguments import checked, checked_class
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.guidance import NO_GUIDANCE, GuidanceArguments, GuidanceLike, GuidanceScale
from fastdpm.core.inverse import EncodingMethod, find_encoding
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import Array
from fastdpm.data.condition import ClassLabels, Condition, one_condition
from fastdpm.data.tensors import float64_device
from fastdpm.inverse.batches import batches, check_data, own_condition
from fastdpm.models.find import FoundModel
from fastdpm.models.identity import model_digest
from fastdpm.models.model import Model
from fastdpm.sampling.implicit import ImplicitOptions, invert
from fastdpm.sampling.loop import run
from fastdpm.sampling.network import Network, NoisePredictor, count_evaluations
from fastdpm.sampling.state import Callback, RowCallback, after_rows

_NUM_STEPS = 50
_FAR_FROM_ONE = 2.0


@checked_class
@dataclass(frozen=True)
class Latents:
    """Encoded data, with everything that is needed to decode it.

    Attributes:
        x: States at the first level of ``plan``, shape (n, *state shape), float32.
        plan: The plan that decodes them.
        method: The method that encoded them.
        past: For a two-step plan, the states one level noisier than ``x``, which are part of the
            latent; else None.
        evaluations: Number of network evaluations of each sample, shape (n,).
        residual: Relative residual of each sample, shape (n,): that of ``row``, or the largest of
            all rows if every row converged; 0 for methods other than "implicit".
        row: First row of ``plan`` that did not converge, counting from the clean end, for each
            sample, shape (n,); -1 if all rows converged.
        condition: Condition of each sample that it was encoded with, shape (n, ...), or None.
        model: Digest of the model, from :func:`fastdpm.models.identity.model_digest`.
        model_name: Name of the model.
        guidance: The guidance that they were encoded with.
    """

    x: Tensor
    plan: Plan
    method: str
    evaluations: Tensor
    residual: Tensor
    row: Tensor
    past: Tensor | None = None
    condition: Tensor | None = None
    model: str = ""
    model_name: str = ""
    guidance: GuidanceScale = NO_GUIDANCE

    @property
    def noise(self) -> Tensor:
        """States at the noisiest level, close to N(0, 1) for data like the training data."""
        return self.x if self.past is None else self.past

    @property
    def levels(self) -> Array:
        """Noise levels of the states that were encoded, without the last one; shape (S,)."""
        past = self.plan.past
        known = self.plan.level[:-1]
        return known if past is None else np.append(past[::-1], known)

    @property
    def decoding_evaluations(self) -> int:
        """Network evaluations of each sample when it is decoded."""
        return self.guidance.evaluations(self.levels, self.plan.network_level)

    @property
    def usable(self) -> Tensor:
        """Which samples have a finite latent, shape (n,): they converged, or the best was kept."""
        return torch.isfinite(self.x).flatten(1).all(dim=1)

    @property
    def deviation(self) -> float:
        """Standard deviation of :attr:`noise` over all usable latents."""
        return float(self.noise[self.usable].std())

    @property
    def near_noise(self) -> bool:
        """Whether :attr:`deviation` is close to 1, as interpolation needs."""
        return 1 / _FAR_FROM_ONE < self.deviation < _FAR_FROM_ONE

    @property
    def lost_at_clean(self) -> bool:
        """Whether all failures to converge are in the last row, which ends at clean data."""
        last = self.plan.num_rows - 1
        at_last = bool((self.row[self.row >= 0] == last).all())
        return self.plan.level[-1] == 1 and at_last


@checked
def encode(
    model: Model,
    x: Tensor,
    levels: NoiseLevels,
    method: str = "invertible",
    *,
    solver: ImplicitOptions | None = None,
    class_labels: ClassLabels | None = None,
    condition: Condition | None = None,
    guidance_scale: GuidanceLike | None = None,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Latents:
    """Encode data into noise, deterministically (kappa = 0).

    Args:
        model: The model.
        x: Data in [-1, 1], shape (n, *data shape), or latent states of a latent model.
        levels: S + 1 levels of the model's schedule in sampling order. If the last level is below
            1, ``x`` is a noisy state of that level, in any range.
        method: "first" (one evaluation per row), "second" (two per row), "implicit" (about ten per
            row) or "invertible" (one per row, and exact).
        solver: Options of the solver, for the method "implicit" only.
        class_labels: For models with classes, labels from 0 or names: one for all samples, or m of
            them; sample i uses label i mod m.
        condition: Condition of any other model; sample i uses condition i mod m. By default the
            mel spectrogram of the data for a vocoder, else the default of the model.
        guidance_scale: Scale of classifier-free guidance, one for each row of ``levels``, or a
            :class:`fastdpm.core.GuidanceScale`. None by default, whatever the recommended recipe
            says: guidance makes rows harder to invert.
        batch_size: Number of samples per batch; by default it depends on their size.
        callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row.

    Returns:
        Latents on the CPU.

    Raises:
        InvalidArgumentError: If the data or an argument is invalid or does not fit the model.
        SamplingError: If the network's output is unusable.
    """
    row = find_encoding(method)
    check_solver(row, solver)
    model.check_plan(levels)
    check_data(model, x, bounded=levels.level[-1] == 1)
    own = own_condition(model, x, condition, class_labels)
    guidance = model.check_guidance(GuidanceScale.of(guidance_scale), own)
    guiding = guidance.over(levels.level[:-1])
    parts = []
    decoding = row.decoding(levels)
    plan = row.plan(levels) if row.plan else decoding
    for indices, batch, chosen in batches(model, x, own, batch_size):
        after = after_rows(
            callback,
            indices.start,
            len(x),
            plan.num_rows,
            evaluations=guidance.evaluations(levels.level[:-1], plan.network_level),
            backwards=row.solved,
        )
        if row.solved:
            options = solver or ImplicitOptions()
            part = _solve(model, batch, chosen, guiding, decoding, options, after)
        else:
            network = model.noise_predictor(chosen, **guiding)
            part = _run(network, batch, plan, after, pair=decoding.num_past > 0)
        parts.append(part | {"condition": None if chosen is None else chosen.cpu()})
    joined: dict[str, Any] = {
        name: None if value is None else torch.cat([part[name] for part in parts])
        for name, value in parts[0].items()
    }
    guided = guidance.enabled
    joined |= {"model": model_digest(model, guided=guided), "model_name": model.config.name}
    return Latents(plan=decoding, method=method, guidance=guidance, **joined)


def check_solver(method: EncodingMethod, solver: ImplicitOptions | None) -> None:
    """Raise InvalidArgumentError if options of the solver would have no effect."""
    if solver is not None and not method.solved:
        raise InvalidArgumentError(
            f"{solver.describe()} has no effect with `method` {method.name!r}, which uses no"
            " solver: drop it, or use 'implicit'"
        )


def recommended_recipe(model: Model | FoundModel) -> Recipe:
    """Recommend a recipe for encoding: the model's, with kappa = 0, S = 50 and no guidance.

    With 50 steps, the latents of most models have a standard deviation close to 1. Guidance makes
    rows harder to invert, and latents less like noise.
    """
    deterministic = model.config.recipe.replace(method="ddim-rev").replace(kappa=0.0)
    num_steps = min(_NUM_STEPS, model.schedule.num_train_steps)
    return deterministic.replace(num_steps=num_steps, guidance_scale=1.0)


@checked
def decode(
    model: Model,
    latents: Latents,
    batch_size: int | None = None,
    *,
    class_labels: ClassLabels | None = None,
    condition: Condition | None = None,
    guidance_scale: GuidanceLike | None = None,
) -> Tensor:
    """Decode latents into data, by default with what they were encoded with.

    Decoded with another class, an image keeps its composition and changes its class.

    Args:
        model: The model that encoded them.
        latents: The latents.
        batch_size: Number of samples per batch; by default it depends on their size.
        class_labels: For models with classes, labels from 0 or names: one for all samples, or m of
            them; sample i uses label i mod m.
        condition: Condition of any other model; sample i uses condition i mod m.
        guidance_scale: Scale of classifier-free guidance, one for each of ``latents.levels``, or a
            :class:`fastdpm.core.GuidanceScale`.

    Returns:
        Data in the shape that was encoded, float32, on the CPU, not clipped to [-1, 1]. Samples
        without a latent, because a row did not converge, are NaN.

    Raises:
        InvalidArgumentError: If another model encoded the latents, their shape is wrong, or an
            argument does not fit the model.
    """
    latents = to_decode(model, latents, class_labels, condition, guidance_scale)
    out = torch.full_like(latents.x, torch.nan)
    for batch, decoded in decode_batches(model, latents, batch_size):
        out[batch] = decoded
    return out


def to_decode(
    model: Model,
    latents: Latents,
    class_labels: ClassLabels | None = None,
    condition: Condition | None = None,
    guidance_scale: GuidanceLike | None = None,
) -> Latents:
    """Return latents as they are decoded: with another condition or guidance, if one is passed.

    Args:
        model: The model that encoded them.
        latents: The latents.
        class_labels: See :func:`decode`, as for the other arguments.
        condition: Condition of a model without classes.
        guidance_scale: Scale of guidance.

    Raises:
        InvalidArgumentError: If another model encoded the latents, or an argument does not fit
            the model.
    """
    if class_labels is None and condition is None and guidance_scale is None:
        return latents
    _check_encoded_by(model, latents)
    count, data = len(latents.x), model.config.data
    chosen = one_condition(condition, class_labels, data, model.null_class, count)
    own = latents.condition
    if chosen is not None:
        own = model.condition_of(model.check_condition(chosen), range(count))
        own = None if own is None else own.cpu()
    guidance = model.check_guidance(GuidanceScale.of(guidance_scale, latents.guidance), own)
    guidance.per_row(latents.levels)  # raises if it has another number of scales
    digest = model_digest(model, guided=guidance.enabled)
    return replace(latents, condition=own, guidance=guidance, model=digest)


def _check_encoded_by(model: Model, latents: Latents) -> None:
    """Raise InvalidArgumentError if another model encoded the latents."""
    if latents.model != model_digest(model, guided=latents.guidance.enabled):
        raise InvalidArgumentError(
            f"these latents were encoded by model {latents.model_name!r}, whose weights or"
            f" schedule differ from model {model.config.name!r}: decode them with the same model"
        )


def decode_batches(
    model: Model,
    latents: Latents,
    batch_size: int | None = None,
    samples: Sequence[int] | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Decode latents batch by batch; see :func:`decode`.

    Args:
        model: The model that encoded them.
        latents: The latents, decoded with their own condition and guidance; see :func:`to_decode`.
        batch_size: Number of samples per batch; by default it depends on their size.
        samples: Indices of the samples to decode; all by default.

    Yields:
        The indices of the samples of a batch that have a latent, and their data.
    """
    _check_encoded_by(model, latents)
    condition = None if latents.condition is None else model.check_condition(latents.condition)
    shape = model.sample_shape(condition)
    if tuple(latents.x.shape[1:]) != shape:
        raise InvalidArgumentError(
            f"a latent of model {model.config.name!r} must have shape {shape}, got"
            f" {tuple(latents.x.shape[1:])}: encode again"
        )
    guiding = model.check_guidance(latents.guidance, None).over(latents.levels)
    size = model.batch_size(batch_size, condition)
    usable = torch.nonzero(latents.usable).flatten()
    if samples is not None:
        usable = usable[
            torch.isin(usable, torch.tensor(samples, dtype=usable.dtype, device="cpu"))
        ]
    for batch in torch.split(usable, size) if len(usable) else ():
        chosen = None if latents.condition is None else latents.condition[batch].to(model.device)
        x = latents.x[batch].to(float64_device(model.device), torch.float64)
        past = () if latents.past is None else (latents.past[batch].to(x),)
        data = run(latents.plan, model.noise_predictor(chosen, **guiding), x, past=past)
        yield batch.tolist(), data.float().cpu()


def _run(
    network: Network | NoisePredictor,
    x: Tensor,
    plan: Plan,
    after_row: RowCallback | None,
    *,
    pair: bool,
) -> dict[str, Any]:
    """Encode a batch by a plan; the latent is the last state, or the last two for a ``pair``."""
    last_two: list[Tensor] = [x]

    def keep(row: int, state: Tensor) -> None:
        last_two[:] = [*last_two[-1:], state]
        if after_row is not None:
            after_row(row, state)

    last = run(plan, network, x, callback=keep)
    count = len(x)
    return {
        "x": (last_two[0] if pair else last).float().cpu(),
        "past": last.float().cpu() if pair else None,
        "evaluations": torch.full(
            (count,),
            sum(count_evaluations(network, r) for r in plan.network_level.tolist()),
            device="cpu",
        ),
        "residual": torch.zeros(count, device="cpu"),
        "row": torch.full((count,), -1, device="cpu"),
    }


def _solve(
    model: Model,
    x: Tensor,
    condition: Tensor | None,
    guiding: GuidanceArguments,
    plan: Plan,
    solver: ImplicitOptions,
    after_row: RowCallback | None,
) -> dict[str, Any]:
    """Encode a batch by inverting the rows of the plan that decodes."""
    result = invert(
        plan,
        lambda at: model.noise_predictor(
            None if condition is None else condition.index_select(0, at.to(condition.device)),
            **guiding,
        ),
        x,
        solver,
        callback=after_row,
    )
    return {
        "x": result.x.float().cpu(),
        "evaluations": result.evaluations.cpu(),
        "residual": result.residual.float().cpu(),
        "row": result.row.cpu(),
    }
