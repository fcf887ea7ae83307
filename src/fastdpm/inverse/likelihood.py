"""Bits per dimension of data under a model: the variational bound over any levels.

    bound = KL(q(x_S | x_0) || N(0, I)) + sum over rows KL(q(x' | x, x_0) || p(x' | x))
            - log p(x_0 | x_1),

where each expectation is estimated by one draw of x ~ q(x | x_0) per sample and row. The last term
is the probability of a gray level: a normal distribution, integrated over one interval per level.
Source: Ho et al. 2020, arXiv:2006.11239, eq. 5 and 13; Nichol & Dhariwal 2021, arXiv:2102.09672.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.guidance import NO_GUIDANCE, GuidanceLike, GuidanceScale
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.likelihood import (
    USUAL_GREY_LEVELS,
    VARIANCES,
    BoundCoefficients,
    GreyLevels,
    bound_coefficients,
)
from fastdpm.core.reverse import variance as noise_variance
from fastdpm.data.condition import ClassLabels, Condition
from fastdpm.data.spec import DataSpec
from fastdpm.inverse.batches import batches, check_data, own_condition
from fastdpm.inverse.diffusion import noised
from fastdpm.models.model import Model
from fastdpm.sampling.network import Network, NoisePredictor, evaluate_network
from fastdpm.sampling.noise import SampleNoise
from fastdpm.sampling.state import Callback, after_rows


@dataclass(frozen=True, eq=False)
class Bound:
    """A variational bound, term by term.

    Attributes:
        levels: The levels over which the bound was computed.
        terms: Bits per dimension, shape (n, S + 1), float64: the prior term first, then the rows
            in sampling order. The last row is the decoder term.
        grey: The gray levels of the data.
        variance: "small", "large" or "learned".
        moved: Largest distance from a value to its gray level, in steps; see :func:`grey_index`.
        guidance: The guidance of the sampling that the bound is about.
    """

    levels: NoiseLevels
    terms: Tensor
    grey: GreyLevels
    variance: str
    moved: float
    guidance: GuidanceScale = NO_GUIDANCE

    @property
    def evaluations(self) -> int:
        """Network evaluations of each sample."""
        return self.guidance.evaluations(self.levels.level[:-1])

    @property
    def total(self) -> Tensor:
        """Bits per dimension of each sample, shape (n,)."""
        return self.terms.sum(dim=1)

    @property
    def mean(self) -> float:
        """Mean bits per dimension over all samples."""
        return float(self.total.mean())

    @property
    def error(self) -> float | None:
        """Standard error of :attr:`mean`; None for a single sample."""
        return None if len(self.terms) < 2 else float(_errors(self.total))

    def record(self) -> dict[str, Any]:
        """Convert the bound to plain values for JSON."""
        errors = _errors(self.terms).tolist() if len(self.terms) > 1 else None
        return {
            "bits_per_dimension": self.mean,
            "standard_error": self.error,
            "samples": len(self.terms),
            "network_evaluations": self.evaluations,
            "variance": self.variance,
            "guidance": self.guidance.record,
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
@checked
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
    condition: Condition | None = None,
    guidance_scale: GuidanceLike | None = None,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Bound:
    """Bound the likelihood of data under DDPM-rev over ``levels``, in bits per dimension.

    Args:
        model: A model that is not latent.
        x: Data in [-1, 1], shape (n, *data shape).
        levels: Levels of the model's schedule that end at clean data.
        grey: Gray levels of the data.
        variance: Variance of p(x' | x): "small" is the posterior variance, "large" the forward
            variance, which gives a much smaller bound with few steps, and "learned" the network's
            interpolation between them.
        clip: How to clip the clean data that a prediction implies: "none", "x0" or "dynamic"; see
            :class:`fastdpm.Recipe`. Clipped states have no likelihood.
        rounding: Values are rounded to the nearest gray level; this is the largest distance
            allowed, in steps, in [0, 0.5]. By default 0.1, or 0.5 for sounds, because scaling to
            the model's peak moves them off their gray levels.
        seed: Random seed; noise depends on (seed, sample, row).
        class_labels: For models with classes, labels from 0 or names: one for all samples, or m of
            them; sample i uses label i mod m.
        condition: Condition of any other model; sample i uses condition i mod m. By default the
            mel spectrogram of the data for a vocoder, else the default of the model.
        guidance_scale: Scale of classifier-free guidance, one for each row of ``levels``, or a
            :class:`fastdpm.core.GuidanceScale`. None by default, whatever the recommended recipe
            says: it is the likelihood of sampling without guidance.
        batch_size: Number of samples per batch; by default it depends on their size.
        callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row.

    Returns:
        The bound of every sample, on the CPU.

    Raises:
        InvalidArgumentError: If the data or an argument is invalid or does not fit the model.
        SamplingError: If the network's output is unusable.
    """
    rounding = _check_options(model, variance, clip, rounding)
    check_data(model, x)
    model.check_plan(levels)
    coefficients = bound_coefficients(levels)
    index, moved = grey_index(x, grey)
    if moved > rounding:
        raise InvalidArgumentError(
            f"a value is {moved:.2g} steps away from the nearest of {grey.count} gray levels: set"
            " the number of gray levels of the data (`grey`)"
        )
    values = grey.low + grey.step * index.double()
    own = own_condition(model, values, condition, class_labels)
    guidance = model.check_guidance(GuidanceScale.of(guidance_scale), own)
    guiding = guidance.over(levels.level[:-1])
    evaluations = guidance.evaluations(levels.level[:-1])
    parts = []
    for indices, batch, chosen in batches(model, values, own, batch_size):
        rows = _Rows(coefficients, variance, grey, index[indices.start : indices.stop])
        network = model.noise_predictor(chosen, clip=clip, **guiding)
        noise = SampleNoise(seed, indices)
        terms = [_prior(batch, float(levels.level[0]))]
        after = after_rows(
            callback, indices.start, len(x), levels.num_steps, evaluations=evaluations
        )
        for row in range(levels.num_steps):
            terms.append(rows.term(network, batch, row, noise(row, batch)))
            if after is not None:
                after(row, batch)
        parts.append(torch.stack(terms, dim=1).cpu())
    return Bound(levels, torch.cat(parts) / math.log(2), grey, variance, moved, guidance)


def _check_options(model: Model, variance: str, clip: str, rounding: float | None) -> float:
    """Check the options of :func:`bits_per_dimension`; return the rounding in steps."""
    check_one_of("variance", variance, VARIANCES)
    if clip == "state":
        raise InvalidArgumentError(
            "`clip` must not be 'state', because clipped states have no likelihood: use 'none'"
        )
    if rounding is None:
        rounding = 0.5 if model.config.data.modality == "audio" else 0.1
    if not 0 <= rounding <= 0.5:
        raise InvalidArgumentError(f"`rounding` must be in [0, 0.5] (steps), got {rounding:g}")
    if model.decoder is not None:
        raise InvalidArgumentError(
            f"model {model.config.name!r} is latent: the bound would be that of its latent states,"
            " which have no gray levels"
        )
    return rounding


def grey_levels_of(data: DataSpec, grey_levels: int | None = None) -> tuple[GreyLevels, str]:
    """Choose the gray levels of a model's data, and say in words where their number comes from.

    Args:
        data: The model's data.
        grey_levels: Number of gray levels. By default that of the model's data, else 256 for
            images and 65,536 for sounds.

    Raises:
        InvalidArgumentError: For series, if the number is unknown.
    """
    count, why = grey_levels, "as set"
    if count is None and data.grey_levels is not None:
        count, why = data.grey_levels, "those of the model's data"
    if count is None:
        count = USUAL_GREY_LEVELS.get(data.modality)
        if count is None:
            raise InvalidArgumentError(
                "series have no default number of gray levels: set `grey_levels`"
            )
        sound = data.modality == "audio"
        why = "as 16-bit sounds have" if sound else "as 8-bit images have"
    kind = GreyLevels.signed if data.modality == "audio" else GreyLevels.spanning
    return kind(count), why


def grey_index(x: Tensor, grey: GreyLevels) -> tuple[Tensor, float]:
    """Round each value to its nearest gray level.

    Values up to one step outside the range of levels count as the first or last level, at distance
    0, because the decoder assigns all values outside the range to these levels; for sounds, the
    value 1 is one step outside. The distance of values farther out is reduced by one step.

    Returns:
        Indices of the levels, int64, and the largest distance, in steps.
    """
    position = (x.double() - grey.low) / grey.step
    index = position.round().clamp(0, grey.count - 1)
    distance = (position - index).abs()
    outside = (position < 0) | (position > grey.count - 1)
    distance = torch.where(outside, (distance - 1).clamp(min=0), distance)
    return index.long(), float(distance.max())


def log_probability(index: Tensor, mean: Tensor, log_variance: Tensor, grey: GreyLevels) -> Tensor:
    """Compute the log-probability of gray levels under a discretized normal distribution.

    Each level has the interval of values closest to it. The intervals of the first and last level
    are unbounded, so that all probabilities sum to 1.

    Args:
        index: Zero-based gray levels, int64.
        mean: Mean of the distribution, float64, in the shape of ``index``.
        log_variance: Logarithm of its variance, float64, in the shape of ``index`` or a scalar.
        grey: Values of the levels.

    Returns:
        Natural logarithms in the shape of ``index``.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 13.
    """
    value = grey.low + grey.step * index.double()
    scale = torch.exp(-0.5 * log_variance)
    upper = (value + 0.5 * grey.step - mean) * scale
    lower = (value - 0.5 * grey.step - mean) * scale
    upper = torch.where(index == grey.count - 1, math.inf, upper)
    lower = torch.where(index == 0, -math.inf, lower)
    # Mirror intervals above the mean: the CDF is accurate in the lower tail only.
    above = lower > 0
    low, high = torch.where(above, -upper, lower), torch.where(above, -lower, upper)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    logs: Tensor = log_high + torch.log(-torch.expm1(log_low - log_high))
    return logs


def _prior(x: Tensor, level: float) -> Tensor:
    """KL(q(x_S | x_0) || N(0, I)) in nats per dimension, shape (n,)."""
    alpha_bar = level**2
    return _per_dimension(0.5 * (alpha_bar * (x**2 - 1) - math.log1p(-alpha_bar)))


def _per_dimension(values: Tensor) -> Tensor:
    return values.flatten(1).mean(dim=1)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Terms of the bound for one batch, in nats per dimension."""

    coefficients: BoundCoefficients
    variance: str
    grey: GreyLevels
    index: Tensor

    def term(self, network: Network | NoisePredictor, x0: Tensor, row: int, z: Tensor) -> Tensor:
        """Compute the term of a row, shape (n,), at the states with noise ``z``."""
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
        mean_error = (float(c.mean_scale[row]) * (eps - z)) ** 2
        excess = (posterior + mean_error) * torch.exp(-log_variance) - 1
        return _per_dimension(0.5 * (log_variance - math.log(posterior) + excess))

    def _log_variance(self, row: int, x: Tensor, learned: Tensor | None) -> Tensor:
        low = math.log(self.coefficients.smallest[row])
        high = math.log(self.coefficients.largest[row])
        if self.variance != "learned":
            return x.new_full((), low if self.variance == "small" else high)
        if learned is None:
            raise InvalidArgumentError(
                "`variance` 'learned' needs a network that returns variances, and this one does"
                " not: use 'small' or 'large'"
            )
        return 0.5 * (low + high) + 0.5 * (high - low) * learned
