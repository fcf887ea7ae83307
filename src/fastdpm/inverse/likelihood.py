"""Bits per dimension of data under a model, by the variational bound over any levels.

    bound = KL(q(x_S | x_0) || N(0, I)) + sum over rows KL(q(x' | x, x_0) || p(x' | x))
            - log p(x_0 | x_1),

each expectation estimated by one draw of x ~ q(x | x_0) per sample and row. The last term is a
probability of grey levels: a normal distribution cut into one interval a level.
Source: Ho et al. 2020, arXiv:2006.11239, eq. 5 and 13; Nichol & Dhariwal 2021, arXiv:2102.09672.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.likelihood import (
    USUAL_GREY_LEVELS,
    VARIANCES,
    BoundCoefficients,
    GreyLevels,
    bound_coefficients,
)
from fastdpm.core.reverse import variance as noise_variance
from fastdpm.data.condition import ClassLabels
from fastdpm.data.spec import DataSpec
from fastdpm.inverse.batches import batches, check_data, own_condition
from fastdpm.inverse.diffuse import noised
from fastdpm.models.model import Model
from fastdpm.sampling.network import Network, NoisePredictor, evaluate_network
from fastdpm.sampling.noise import SampleNoise
from fastdpm.sampling.state import Callback, after_rows


@dataclass(frozen=True, eq=False)
class Bound:
    """A variational bound, term by term.

    Attributes:
        levels: Whose rows the terms belong to.
        terms: Bits per dimension, shape (n, S + 1), float64: of pure noise (the prior) first, then
            of each row in sampling order; the last is that of the decoder.
        grey: The grey levels of the data.
        variance: "small", "large" or "learned".
        moved: The farthest that a value lay from its grey level, in steps; see
            :func:`grey_index`.
    """

    levels: NoiseLevels
    terms: Tensor
    grey: GreyLevels
    variance: str
    moved: float

    @property
    def total(self) -> Tensor:
        """Bits per dimension of each sample, shape (n,)."""
        return self.terms.sum(dim=1)

    @property
    def mean(self) -> float:
        """Bits per dimension over all samples."""
        return float(self.total.mean())

    @property
    def error(self) -> float | None:
        """Standard error of :attr:`mean` over samples; None for a single one."""
        return None if len(self.terms) < 2 else float(_errors(self.total))

    def record(self) -> dict[str, Any]:
        """Everything in plain values, for JSON."""
        errors = _errors(self.terms).tolist() if len(self.terms) > 1 else None
        return {
            "bits_per_dimension": self.mean,
            "standard_error": self.error,
            "samples": len(self.terms),
            "network_evaluations": self.levels.num_steps,
            "variance": self.variance,
            "grey_levels": self.grey.count,
            "farthest_from_a_grey_level": self.moved,
            "levels": self.levels.label,
            "notes": list(self.levels.notes),
            "level": self.levels.level.tolist(),
            "t": self.levels.t.tolist(),
            "terms": self.terms.mean(dim=0).tolist(),
            "standard_errors": errors,
            "per_sample": self.total.tolist(),
        }


def _errors(values: Tensor) -> Tensor:
    return values.std(dim=0) / math.sqrt(len(values))


@torch.no_grad()
def bits_per_dimension(
    model: Model,
    x: Tensor,
    levels: NoiseLevels,
    grey: GreyLevels,
    *,
    variance: str = "large",
    clip: str = "none",
    rounding: float | None = None,
    seed: int = 0,
    class_labels: ClassLabels | None = None,
    condition: Tensor | None = None,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Bound:
    """Bound the likelihood of data under sampling over ``levels`` with kappa = 1.

    Args:
        model: What is judged; not a latent one, whose data has no density here.
        x: Data in [-1, 1], shape (n, *data shape).
        levels: Levels of the model's schedule that end at clean data.
        grey: The values that the data takes.
        variance: Of p(x' | x): "small", that of the posterior; "large", the forward variance,
            which costs far less where steps are long; or "learned", what the network returns
            between them.
        clip: What is done to the clean data that a prediction implies; see
            :class:`fastdpm.Recipe`.
        rounding: How far a value between two grey levels may lie from the nearer, in steps, from
            0 to 0.5, which rounds any. It is rounded to it. By default 0.1, and 0.5 for sounds:
            scaling them to the model's peak takes them off their grey levels.
        seed: Noise is drawn from (seed, sample, row).
        class_labels: Classes of a model that has them, counted from 0: one for all samples, or m
            of them; sample i takes label i mod m.
        condition: What each sample is judged for, number i mod m; by default a vocoder's mel
            spectrogram of the data itself, else the model's own.
        batch_size: Samples at a time.
        callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row.

    Returns:
        The bound of every sample, on the CPU.

    Raises:
        InvalidArgumentError: If the data or an argument does not fit.
        SamplingError: If the network returns something unusable.
    """
    check_one_of("variance", variance, VARIANCES)
    if rounding is None:
        rounding = 0.5 if model.config.data.modality == "audio" else 0.1
    if not 0 <= rounding <= 0.5:
        raise InvalidArgumentError(f"`rounding` must lie in [0, 0.5] of a step, got {rounding:g}")
    if model.decoder is not None:
        raise InvalidArgumentError(
            f"model {model.config.name!r} is latent: the bound would be of its latents, which are"
            " no grey levels"
        )
    check_data(model, x)
    model.check_plan(levels)
    coefficients = bound_coefficients(levels)
    index, moved = grey_index(x, grey)
    if moved > rounding:
        raise InvalidArgumentError(
            f"a value lies {moved:.2g} of a step from the nearest of {grey.count} grey levels:"
            " state how many grey levels the data has (`grey`)"
        )
    values = grey.low + grey.step * index.double()
    condition = own_condition(model, values, condition, class_labels)
    parts = []
    for indices, batch, chosen in batches(model, values, condition, batch_size):
        rows = _Rows(coefficients, variance, grey, index[indices.start : indices.stop])
        network = model.noise_predictor(chosen, clip=clip)
        noise = SampleNoise(seed, indices)
        terms = [_prior(batch, float(levels.level[0]))]
        each = after_rows(callback, indices.start, len(x), levels.num_steps)
        for row in range(levels.num_steps):
            terms.append(rows.term(network, batch, row, noise(row, batch)))
            if each is not None:
                each(row, batch)
        parts.append(torch.stack(terms, dim=1).cpu())
    return Bound(levels, torch.cat(parts) / math.log(2), grey, variance, moved)


def grey_levels_of(data: DataSpec, grey_levels: int | None = None) -> tuple[GreyLevels, str]:
    """The grey levels of a model's data, and in words where their number is from.

    Args:
        data: What the model was trained on.
        grey_levels: Their number, if it is stated; else what the data itself says, or 256 for
            images and 65,536 for sounds.

    Raises:
        InvalidArgumentError: For series, which have no usual number, unless it is stated.
    """
    count, why = grey_levels, "as stated"
    if count is None and data.grey_levels is not None:
        count, why = data.grey_levels, "those of the model's data"
    if count is None:
        count = USUAL_GREY_LEVELS.get(data.modality)
        if count is None:
            raise InvalidArgumentError(
                "series have no usual number of grey levels: state `grey_levels`"
            )
        sound = data.modality == "audio"
        why = "as 16-bit sounds have" if sound else "as 8-bit images have"
    kind = GreyLevels.signed if data.modality == "audio" else GreyLevels.spanning
    return kind(count), why


def grey_index(x: Tensor, grey: GreyLevels) -> tuple[Tensor, float]:
    """The nearest grey level of each value, int64, and the farthest of their distances in steps.

    What lies up to a step beyond the first or the last level belongs to it, at no distance, as the
    decoder gives them all that is beyond; full scale of a sound, 1, is a step beyond the last.
    Farther out, what exceeds that step is the distance.
    """
    place = (x.double() - grey.low) / grey.step
    index = place.round().clamp(0, grey.count - 1)
    apart = (place - index).abs()
    beyond = (place < 0) | (place > grey.count - 1)
    apart = torch.where(beyond, (apart - 1).clamp(min=0), apart)
    return index.long(), float(apart.max())


def log_probability(index: Tensor, mean: Tensor, log_variance: Tensor, grey: GreyLevels) -> Tensor:
    """Log-probability of grey levels under a normal distribution cut at their middles.

    The first and the last level take what lies beyond them, so that all levels sum to 1.

    Args:
        index: Grey levels from 0, int64.
        mean: Of the distribution, float64, of the shape of ``index``.
        log_variance: Of the distribution, float64, likewise or one number.
        grey: The values of the levels.

    Returns:
        Natural logarithms, shaped like ``index``.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 13.
    """
    middle = grey.low + grey.step * index.double()
    scale = torch.exp(-0.5 * log_variance)
    upper = (middle + 0.5 * grey.step - mean) * scale
    lower = (middle - 0.5 * grey.step - mean) * scale
    upper = torch.where(index == grey.count - 1, math.inf, upper)
    lower = torch.where(index == 0, -math.inf, lower)
    # Of an interval above the mean, its mirror image: far tails have digits only below it.
    above = lower > 0
    low, high = torch.where(above, -upper, lower), torch.where(above, -lower, upper)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    logs: Tensor = log_high + torch.log(-torch.expm1(log_low - log_high))
    return logs


def _prior(x: Tensor, level: float) -> Tensor:
    """KL(q(x_S | x_0) || N(0, I)) in nats per dimension, shape (n,)."""
    square = level**2
    return _per_dimension(0.5 * (square * (x**2 - 1) - math.log1p(-square)))


def _per_dimension(values: Tensor) -> Tensor:
    return values.flatten(1).mean(dim=1)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The terms of the rows for one batch, in nats per dimension."""

    coefficients: BoundCoefficients
    variance: str
    grey: GreyLevels
    index: Tensor

    def term(self, network: Network | NoisePredictor, x0: Tensor, row: int, z: Tensor) -> Tensor:
        """The term of a row, shape (n,), from states that ``z`` diffuses."""
        c = self.coefficients
        level = float(c.level[row])
        x = noised(x0, level, z)
        where = f"row {row} of {c.level.size}"
        eps, learned = evaluate_network(network, x, float(c.t[row]), level, where)
        log_variance = self._log_variance(row, x, learned)
        if row == c.level.size - 1:
            mean = (x - math.sqrt(noise_variance(c.level)[row]) * eps) / level
            index = self.index.to(x.device)
            return -_per_dimension(log_probability(index, mean, log_variance, self.grey))
        posterior = float(c.posterior[row])
        apart = (float(c.mean_scale[row]) * (eps - z)) ** 2
        excess = (posterior + apart) * torch.exp(-log_variance) - 1
        return _per_dimension(0.5 * (log_variance - math.log(posterior) + excess))

    def _log_variance(self, row: int, x: Tensor, learned: Tensor | None) -> Tensor:
        low = math.log(self.coefficients.smallest[row])
        high = math.log(self.coefficients.largest[row])
        if self.variance != "learned":
            return x.new_full((), low if self.variance == "small" else high)
        if learned is None:
            raise InvalidArgumentError(
                "variance 'learned' is what some networks return; this one returns none: use"
                " 'small' or 'large'"
            )
        return 0.5 * (low + high) + 0.5 * (high - low) * learned
