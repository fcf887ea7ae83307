"""Interpolation between two samples along the sphere of their latents.

Latents are near N(0, I), whose mass lies on a sphere; the straight line between two of them leaves
it, the arc between them does not:

    z(f) = sin((1 - f) w) / sin w z_a + sin(f w) / sin w z_b,    w the angle between z_a and z_b.

The latent of the two-step plan is a pair of states, which imply the network's prediction by their
difference over a small step. Both take the weights of the noisier one, so that prediction and
state stay the same combination of the two samples' own; weights of their own would leave the
difference of two states in place of a prediction.
Source: Shoemake 1985, "Animating rotation with quaternion curves", SIGGRAPH; for latents, Song et
al. 2021, arXiv:2010.02502, appendix D.5.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.levels import NoiseLevels
from fastdpm.data.condition import ClassLabels
from fastdpm.inverse.encode import Latents, decode, encode
from fastdpm.inverse.latents_file import check_usable
from fastdpm.models.model import Model
from fastdpm.sampling.implicit import ImplicitOptions

CLOSE = 1e-4
_LEAST_SINE = 1e-6


def interpolate(
    model: Model,
    a: Tensor,
    b: Tensor,
    levels: NoiseLevels,
    n: int = 9,
    method: str = "invertible",
    *,
    solver: ImplicitOptions | None = None,
    class_labels: ClassLabels | None = None,
    condition: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Samples on the way from one to another, both ends included.

    Args:
        model: Whose data they are.
        a: The first sample, in [-1, 1], shape (*data shape).
        b: The last one, of the same shape.
        levels: S + 1 levels in sampling order.
        n: How many samples, from 2, evenly spaced along the arc.
        method: How the ends are encoded; see :func:`fastdpm.inverse.encode.encode`. The ends come
            back as exactly as it allows.
        solver: How the implicit rows are solved; of that method alone.
        class_labels: Classes of a model that has them, counted from 0: one for all samples, or m
            of them; sample i takes label i mod m.
        condition: What both are encoded for, shape (1, ...), or each, shape (2, ...).
        batch_size: Samples at a time.

    Returns:
        Shape (n, *data shape), float32, on the CPU; not cut to [-1, 1].

    Raises:
        InvalidArgumentError: If the samples do not fit the model or one another, ``n`` is below 2,
            or the conditions of the two are different labels.
        SamplingError: If an end does not converge, or the network returns something unusable.
    """
    if n < 2:
        raise InvalidArgumentError(
            f"`n` must be at least 2, both ends of the interpolation, got {n}"
        )
    if a.shape != b.shape:
        raise InvalidArgumentError(
            f"both ends must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    ends = encode(
        model,
        torch.stack([a, b]),
        levels,
        method,
        solver=solver,
        class_labels=class_labels,
        condition=condition,
        batch_size=batch_size,
    )
    check_usable(ends, ("the first sample", "the last sample"))
    return decode(model, between(ends, torch.linspace(0, 1, n, dtype=torch.float64)), batch_size)


def between(ends: Latents, fraction: Tensor) -> Latents:
    """Latents between two.

    Args:
        ends: Latents of two samples.
        fraction: Of the way from the first to the second, shape (n,), each in [0, 1].

    Returns:
        n latents; the ends' own to the last bit at 0 and 1. Conditions that are no labels are
        interpolated along the straight line.

    Raises:
        InvalidArgumentError: If there are not two samples, a fraction lies outside, or their
            conditions are different labels.
    """
    if len(ends.x) != 2:
        raise InvalidArgumentError(f"an interpolation has two ends, got {len(ends.x)} samples")
    inside = bool(((fraction >= 0) & (fraction <= 1)).all())
    if fraction.ndim != 1 or not len(fraction) or not inside:
        raise InvalidArgumentError(f"fractions must lie in [0, 1], shape (n,), got {fraction}")
    fraction = fraction.double()
    weights = arc_weights(ends.noise[0], ends.noise[1], fraction)
    straight = torch.stack([1 - fraction, fraction], dim=1)
    count = len(fraction)
    return replace(
        ends,
        x=_combine(weights, ends.x),
        past=None if ends.past is None else _combine(weights, ends.past),
        evaluations=torch.zeros(count, dtype=ends.evaluations.dtype),
        residual=ends.residual.max().expand(count).clone(),
        row=torch.full((count,), -1),
        condition=_between_conditions(ends.condition, straight),
    )


def error_of_ends(ends: Tensor, samples: Tensor) -> float:
    """How far the ends of a way are from what they were encoded from.

    Args:
        ends: The two samples that were encoded, shape (2, *data shape).
        samples: What decoded on the way between them, shape (n, *data shape).

    Returns:
        The larger of the norms of both errors over those of the data; below ``CLOSE`` the ends are
        the samples themselves.
    """
    apart = (samples[[0, -1]].to(ends) - ends).flatten(1).norm(dim=1)
    return float((apart / ends.flatten(1).norm(dim=1).clamp_min(1e-12)).max())


def arc_weights(a: Tensor, b: Tensor, fraction: Tensor) -> Tensor:
    """Weights of two states along the arc between them, shape (n, 2), float64.

    Those of the straight line where the states point the same way, or opposite ways, between which
    no arc is named.
    """
    flat_a, flat_b = a.double().flatten(), b.double().flatten()
    length = flat_a.norm() * flat_b.norm()
    cosine = (flat_a @ flat_b / length).clamp(-1, 1) if length > 0 else torch.ones(())
    angle = torch.arccos(cosine)
    if torch.sin(angle) < _LEAST_SINE:
        return torch.stack([1 - fraction, fraction], dim=1)
    arc = torch.stack([(1 - fraction) * angle, fraction * angle], dim=1)
    return torch.sin(arc) / torch.sin(angle)


def _combine(weights: Tensor, pair: Tensor) -> Tensor:
    combined: Tensor = torch.tensordot(weights, pair.double(), dims=1)
    return combined.to(pair.dtype)


def _between_conditions(pair: Tensor | None, straight: Tensor) -> Tensor | None:
    if pair is None:
        return None
    if pair.is_floating_point():
        return _combine(straight, pair)
    if not torch.equal(pair[0], pair[1]):
        raise InvalidArgumentError(
            f"there is nothing between the labels {pair[0].tolist()} and {pair[1].tolist()}: give"
            " both samples the same one"
        )
    return pair[:1].repeat(len(straight), *[1] * (pair.ndim - 1))
