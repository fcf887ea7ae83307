"""Data as noise: encoding a model's data over a plan's levels, and decoding it again.

Four ways run DDIM-rev towards noise: ``first`` order and ``second`` order approximate the state
that decodes to the data, ``implicit`` solves for it, and ``invertible`` uses a two-step plan whose
inverse is algebra. States are kept in float64, the network is asked in its own type.
Source: Song et al. 2021, arXiv:2010.02502, section 4.3, and ``fastdpm.core.inverse``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.inverse import EncodingMethod, find_encoding
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.inverse.batches import batches, check_data, own_condition
from fastdpm.models.find import FoundModel
from fastdpm.models.identity import model_digest
from fastdpm.models.model import Model
from fastdpm.sampling.implicit import ImplicitOptions, invert
from fastdpm.sampling.run import run
from fastdpm.sampling.state import Callback, RowCallback, after_rows

_NUM_STEPS = 50
_FAR_FROM_ONE = 2.0


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

    @property
    def usable(self) -> Tensor:
        """Which samples have a latent, shape (n,): those that converged or whose best was kept."""
        return torch.isfinite(self.x).flatten(1).all(dim=1)

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise of all usable latents."""
        return float(self.noise[self.usable].std())

    @property
    def near_noise(self) -> bool:
        """Whether that deviation is near 1, so that one may interpolate and compare them."""
        return 1 / _FAR_FROM_ONE < self.deviation < _FAR_FROM_ONE

    @property
    def lost_at_clean(self) -> bool:
        """Whether all that did not converge failed in a row that ends at clean data."""
        last = self.plan.num_rows - 1
        at_last = bool((self.row[self.row >= 0] == last).all())
        return self.plan.level[-1] == 1 and at_last


def encode(
    model: Model,
    x: Tensor,
    levels: NoiseLevels,
    method: str = "invertible",
    *,
    solver: ImplicitOptions | None = None,
    condition: Tensor | None = None,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Latents:
    """Encode data into noise, deterministically (kappa = 0).

    Args:
        model: Whose data it is; of a latent model, whose latent states.
        x: Data in [-1, 1], shape (n, *data shape); latent states of a latent model.
        levels: S + 1 levels of the model's schedule in sampling order; the last may be below 1,
            where ``x`` then is, of any range.
        method: A name of :data:`fastdpm.core.inverse.ENCODINGS`: "first" and "second" order, one
            and two evaluations a row; "implicit", some ten; or "invertible", one a row and exact.
        solver: How the implicit rows are solved; of that method alone.
        condition: What each sample is encoded for, number i mod m; by default a vocoder's mel
            spectrogram of the data itself, else the model's own.
        batch_size: Samples at a time.
        callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row.

    Returns:
        Latents on the CPU.

    Raises:
        InvalidArgumentError: If the data has another shape or range, or an argument does not fit.
        SamplingError: If the network returns something unusable.
    """
    row = find_encoding(method)
    check_solver(row, solver)
    model.check_plan(levels)
    check_data(model, x, bounded=levels.level[-1] == 1)
    condition = own_condition(model, x, condition)
    parts = []
    decoding = row.decoding(levels)
    plan = row.plan(levels) if row.plan else decoding
    for indices, batch, chosen in batches(model, x, condition, batch_size):
        each = after_rows(callback, indices.start, len(x), plan.num_rows, backwards=row.solved)
        if row.solved:
            found = _solved(model, batch, chosen, decoding, solver or ImplicitOptions(), each)
        else:
            found = _planned(model, batch, chosen, plan, each, pair=decoding.num_past > 0)
        parts.append(found | {"condition": None if chosen is None else chosen.cpu()})
    joined: dict[str, Any] = {
        name: None if value is None else torch.cat([part[name] for part in parts])
        for name, value in parts[0].items()
    }
    joined |= {"model": model_digest(model), "model_name": model.config.name}
    return Latents(plan=decoding, method=method, **joined)


def check_solver(method: EncodingMethod, solver: ImplicitOptions | None) -> None:
    """Raise InvalidArgumentError if options of the solver would have no effect."""
    if solver is not None and not method.solved:
        raise InvalidArgumentError(
            f"{solver.describe()} has no effect on `method` {method.name!r}, which solves"
            " nothing: drop it, or use 'implicit'"
        )


def recommended_recipe(model: Model | FoundModel) -> Recipe:
    """What to encode over: the levels of the recommended recipe, without noise, at S = 50.

    With 50 steps the latents of most models have a standard deviation near 1.
    """
    quiet = model.config.recipe.replace(method="ddim-rev").replace(kappa=0.0)
    return quiet.replace(num_steps=min(_NUM_STEPS, model.schedule.num_train_steps))


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
    out = torch.full_like(latents.x, torch.nan)
    for at in torch.split(torch.nonzero(latents.usable).flatten(), size):
        chosen = None if latents.condition is None else latents.condition[at].to(model.device)
        x = latents.x[at].to(model.device, torch.float64)
        past = () if latents.past is None else (latents.past[at].to(x),)
        out[at] = run(latents.plan, model.denoiser(chosen), x, past=past).float().cpu()
    return out


def _planned(
    model: Model,
    x: Tensor,
    condition: Tensor | None,
    plan: Plan,
    each: RowCallback | None,
    *,
    pair: bool,
) -> dict[str, Any]:
    """The tensors of latents of a batch by a plan: of its last state, or of its last two."""
    before: list[Tensor] = [x]

    def keep(row: int, state: Tensor) -> None:
        before[:] = [*before[-1:], state]
        if each is not None:
            each(row, state)

    last = run(plan, model.denoiser(condition), x, callback=keep)
    count = len(x)
    return {
        "x": (before[0] if pair else last).float().cpu(),
        "past": last.float().cpu() if pair else None,
        "evaluations": torch.full((count,), plan.num_rows),
        "residual": torch.zeros(count),
        "row": torch.full((count,), -1),
    }


def _solved(
    model: Model,
    x: Tensor,
    condition: Tensor | None,
    plan: Plan,
    solver: ImplicitOptions,
    each: RowCallback | None,
) -> dict[str, Any]:
    """The tensors of latents of a batch, by solving the rows of the plan that decodes."""
    found = invert(
        plan,
        lambda at: model.denoiser(None if condition is None else condition[at]),
        x,
        solver,
        callback=each,
    )
    return {
        "x": found.x.float().cpu(),
        "evaluations": found.evaluations.cpu(),
        "residual": found.residual.float().cpu(),
        "row": found.row.cpu(),
    }
