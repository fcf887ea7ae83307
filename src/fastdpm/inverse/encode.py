"""Data as noise: encoding a model's data over a plan's levels, and decoding it again.

Four ways run DDIM-rev towards noise: ``first`` order and ``second`` order approximate the state
that decodes to the data, ``implicit`` solves for it, and ``invertible`` uses a two-step plan whose
inverse is algebra. States are kept in float64, the network is asked in its own type.
Source: Song et al. 2021, arXiv:2010.02502, section 4.3, and ``fastdpm.core.inverse``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.inverse import (
    first_order_inverse,
    leapfrog_inverse,
    leapfrog_rest,
    second_order_inverse,
)
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import ddim_rev
from fastdpm.inverse.batches import batches, own_condition
from fastdpm.models.identity import model_digest
from fastdpm.models.model import Model
from fastdpm.sampling.implicit import invert
from fastdpm.sampling.run import run

METHODS = ("first", "second", "implicit", "invertible")
_PLANS: dict[str, Callable[[NoiseLevels], Plan]] = {
    "first": first_order_inverse,
    "second": second_order_inverse,
    "invertible": leapfrog_inverse,
}


@dataclass(frozen=True)
class ImplicitOptions:
    """How rows are solved; see :func:`fastdpm.sampling.implicit.invert`.

    Attributes:
        tolerance: Largest relative residual of a row, in (0, 1).
        most: Evaluations that a row may take.
        memory: How many differences of iterates are combined, from 1; 3 to 5 suit most networks.
        keep_best: Go on from the best iterate of a row that does not converge.
    """

    tolerance: float = 2e-5
    most: int = 1000
    memory: int = 5
    keep_best: bool = False


@dataclass(frozen=True)
class Latents:
    """Encoded data and what brings it back.

    Attributes:
        x: States at the first level of ``plan``, shape (n, *state shape), float32.
        plan: Decodes them.
        method: How they were encoded.
        past: The states before, one level noisier, of a two-step plan; the latent is the pair.
        evaluations: Network evaluations of each sample, shape (n,).
        residual: The relative residual of the row below, or the largest of all rows where all
            converged, shape (n,); 0 where nothing was solved.
        row: For each sample the row of the plan that did not converge, -1 if all did.
        condition: What each sample was encoded for, shape (n, ...), or None.
        model: Digest of the model that encoded them, :func:`fastdpm.models.identity.model_digest`.
        model_name: Its name, for people.
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

    @property
    def noise(self) -> Tensor:
        """The state at the noisiest level, which is near N(0, 1) for data that the model knows."""
        return self.x if self.past is None else self.past


def encode(
    model: Model,
    x: Tensor,
    levels: NoiseLevels,
    method: str = "invertible",
    *,
    solver: ImplicitOptions | None = None,
    condition: Tensor | None = None,
    batch_size: int | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Latents:
    """Encode data into noise, deterministically (kappa = 0).

    Args:
        model: Whose data it is; of a latent model, whose latent states.
        x: Data in [-1, 1], shape (n, *data shape); latent states of a latent model.
        levels: S + 1 levels of the model's schedule in sampling order; the last may be below 1,
            where ``x`` then is, of any range.
        method: "first" and "second" order, one and two evaluations a row; "implicit", some ten;
            or "invertible", one a row and exact.
        solver: How the implicit rows are solved; of that method alone.
        condition: What each sample is encoded for, number i mod m; by default a vocoder's mel
            spectrogram of the data itself, else the model's own.
        batch_size: Samples at a time.
        advance: Called as ``advance(first, row)`` after each row, with the position of the batch's
            first sample.

    Returns:
        Latents on the CPU.

    Raises:
        InvalidArgumentError: If the data has another shape or range, or an argument does not fit.
        SamplingError: If the network returns something unusable.
    """
    check_one_of("method of encoding", method, METHODS)
    if solver is not None and method != "implicit":
        raise InvalidArgumentError(f"method {method!r} solves nothing: drop the solver's options")
    model.check_plan(levels)
    check_data(model, x, bounded=levels.level[-1] == 1)
    condition = own_condition(model, x, condition)
    parts = []
    for indices, batch, chosen in batches(model, x, condition, batch_size):
        each = None if advance is None else _each(advance, indices.start)
        if method == "implicit":
            part = _solved(model, batch, chosen, levels, solver or ImplicitOptions(), each)
        else:
            part = _planned(model, batch, chosen, levels, method, each)
        parts.append(part)
    return _joined(parts, model)


def decode(model: Model, latents: Latents, batch_size: int | None = None) -> Tensor:
    """Bring encoded data back.

    Returns:
        Data in the shape that was encoded, float32, on the CPU; not cut to [-1, 1]. Samples that
        have no latent, because a row did not converge, are NaN.

    Raises:
        InvalidArgumentError: If another model encoded them, or they do not have its shape.
    """
    if latents.model != model_digest(model):
        raise InvalidArgumentError(
            f"these latents were encoded by model {latents.model_name!r}, with other weights or"
            f" another schedule than {model.config.name!r} here: decode them by what encoded them"
        )
    condition = None if latents.condition is None else model.check_condition(latents.condition)
    wanted = model.sample_shape(condition)
    if tuple(latents.x.shape[1:]) != wanted:
        raise InvalidArgumentError(
            f"a latent of model {model.config.name!r} has shape {wanted}, got"
            f" {tuple(latents.x.shape[1:])}: encode again"
        )
    size = model.batch_size(batch_size, condition)
    found = torch.isfinite(latents.x).flatten(1).all(dim=1)
    out = torch.full_like(latents.x, torch.nan)
    for at in torch.split(torch.nonzero(found).flatten(), size):
        chosen = None if latents.condition is None else latents.condition[at].to(model.device)
        x = latents.x[at].to(model.device, torch.float64)
        past = () if latents.past is None else (latents.past[at].to(x),)
        out[at] = run(latents.plan, model.denoiser(chosen), x, past=past).float().cpu()
    return out


def decoding_plan(levels: NoiseLevels, method: str) -> Plan:
    """The plan that brings back what a method encodes."""
    return leapfrog_rest(levels) if method == "invertible" else ddim_rev(levels)


def check_data(model: Model, x: Tensor, *, bounded: bool = True) -> None:
    """Check that data, or the latent states of a latent model, can be a model's.

    Raises:
        InvalidArgumentError: If it is no tensor of real floating-point numbers, has another shape,
            is not finite, or leaves [-1, 1] where it is ``bounded`` and not latent.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x)
        raise InvalidArgumentError(f"data must be a tensor of floating-point numbers, got {found}")
    shape = model.sample_shape(None)
    if model.config.data.mel is not None and x.ndim == 3 and model.decoder is None:
        shape = (shape[0], x.shape[-1])  # a vocoder's sounds may have any length
    if x.ndim != len(shape) + 1 or tuple(x.shape[1:]) != shape or not x.numel():
        kind = "data" if model.decoder is None else "latent data, of its own encoder,"
        raise InvalidArgumentError(
            f"{kind} of model {model.config.name!r} has shape"
            f" (n, {', '.join(map(str, shape))}), got {tuple(x.shape)}"
        )
    if not torch.isfinite(x).all():
        raise InvalidArgumentError("the data holds values that are not finite")
    if bounded and model.decoder is None and float(x.abs().max()) > 1 + 1e-6:
        raise InvalidArgumentError(
            f"data lies in [-1, 1], got values up to {float(x.abs().max()):g}: scale it"
        )


def _each(advance: Callable[[int, int], None], first: int) -> Callable[[int, Tensor], None]:
    return lambda row, _x: advance(first, row)


def _planned(
    model: Model,
    x: Tensor,
    condition: Tensor | None,
    levels: NoiseLevels,
    method: str,
    each: Callable[[int, Tensor], None] | None,
) -> Latents:
    """Encode a batch by a plan."""
    plan = _PLANS[method](levels)
    before: list[Tensor] = [x]

    def keep(row: int, state: Tensor) -> None:
        before[:] = [*before[-1:], state]
        if each is not None:
            each(row, state)

    last = run(plan, model.denoiser(condition), x, callback=keep)
    pair = method == "invertible"
    count = len(x)
    return Latents(
        x=(before[0] if pair else last).float().cpu(),
        past=last.float().cpu() if pair else None,
        plan=decoding_plan(levels, method),
        method=method,
        evaluations=torch.full((count,), plan.num_rows),
        residual=torch.zeros(count),
        row=torch.full((count,), -1),
        condition=None if condition is None else condition.cpu(),
    )


def _solved(
    model: Model,
    x: Tensor,
    condition: Tensor | None,
    levels: NoiseLevels,
    solver: ImplicitOptions,
    each: Callable[[int, Tensor], None] | None,
) -> Latents:
    """Encode a batch by solving its rows."""
    plan = ddim_rev(levels)
    found = invert(
        plan,
        lambda at: model.denoiser(None if condition is None else condition[at]),
        x,
        tolerance=solver.tolerance,
        most=solver.most,
        memory=solver.memory,
        keep_best=solver.keep_best,
        callback=each,
    )
    return Latents(
        x=found.x.float().cpu(),
        plan=plan,
        method="implicit",
        evaluations=found.evaluations.cpu(),
        residual=found.residual.float().cpu(),
        row=found.row.cpu(),
        condition=None if condition is None else condition.cpu(),
    )


def _joined(parts: list[Latents], model: Model) -> Latents:
    """The latents of all batches, which have one plan and one method."""

    def join(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    names = ("x", "past", "evaluations", "residual", "row", "condition")
    joined: dict[str, Any] = {name: join(name) for name in names}
    return replace(parts[0], model=model_digest(model), model_name=model.config.name, **joined)
