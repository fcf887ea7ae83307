"""Spherical interpolation between the latents of two samples.

Latents are distributed almost as N(0, I), whose mass is close to a sphere. A straight line between
two of them leaves the sphere; spherical interpolation does not:

    z(f) = sin((1 - f) w) / sin w z_a + sin(f w) / sin w z_b,    w the angle between z_a and z_b.

A latent of the two-step plan is a pair of states, and the difference of the two encodes a
prediction of the network. Both states use the weights of the noisier one, so that the prediction
is interpolated with the same weights as the states. Separate weights would destroy the difference.
Source: Shoemake 1985, "Animating rotation with quaternion curves", SIGGRAPH; for latents, Song et
al. 2021, arXiv:2010.02502, appendix D.5.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, arguments_named
from fastdpm.core.guidance import GuidanceLike
from fastdpm.core.levels import NoiseLevels
from fastdpm.data.condition import ClassLabels, Condition
from fastdpm.inverse.encoding import Latents, decode, encode
from fastdpm.inverse.latents_file import check_usable
from fastdpm.models.model import Model
from fastdpm.sampling.implicit import ImplicitOptions

CLOSE = 1e-4
_MAX_SAMPLES = 100_000
_LEAST_SINE = 1e-6


@checked
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
    condition: Condition | None = None,
    guidance_scale: GuidanceLike | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Interpolate between two samples through their latents; both ends are included.

    Args:
        model: The model.
        a: First sample, in [-1, 1], shape (*data shape).
        b: Last sample, in the same shape.
        levels: S + 1 levels in sampling order.
        n: Number of samples, at least 2, evenly spaced along the arc.
        method: How to encode both ends; see :func:`fastdpm.inverse.encoding.encode`. It determines
            how closely the first and last result match ``a`` and ``b``.
        solver: Options of the solver, for the method "implicit" only.
        class_labels: For models with classes, labels from 0 or names: one for all samples, or m of
            them; sample i uses label i mod m.
        condition: Condition of both samples, shape (1, ...), or of each, shape (2, ...).
        guidance_scale: Scale of classifier-free guidance, one for each row of ``levels``, or a
            :class:`fastdpm.core.GuidanceScale`. None by default, whatever the recommended recipe
            says: guidance makes rows harder to invert.
        batch_size: Number of samples per batch; by default it depends on their size.

    Returns:
        Samples of shape (n, *data shape), float32, on the CPU, not clipped to [-1, 1].

    Raises:
        InvalidArgumentError: If the samples do not fit the model or each other, ``n`` is below 2,
            or the two samples have different labels.
        SamplingError: If encoding an end does not converge, or the network's output is unusable.
    """
    if not 2 <= n <= _MAX_SAMPLES:
        raise InvalidArgumentError(
            f"`n` must be in [2, {_MAX_SAMPLES}], because both ends are included, got {n}"
        )
    if a.shape != b.shape:
        raise InvalidArgumentError(
            f"`a` and `b` must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    with arguments_named(x="`a` and `b`"):
        ends = encode(
            model,
            torch.stack([a, b]),
            levels,
            method,
            solver=solver,
            class_labels=class_labels,
            condition=condition,
            guidance_scale=guidance_scale,
            batch_size=batch_size,
        )
    check_usable(ends, ("the first sample", "the last sample"))
    return decode(
        model,
        between(ends, torch.linspace(0, 1, n, dtype=torch.float64, device="cpu")),
        batch_size,
    )


def between(ends: Latents, fraction: Tensor) -> Latents:
    """Interpolate between two latents.

    Args:
        ends: Latents of two samples.
        fraction: Positions between the first (0) and the second (1), shape (n,).

    Returns:
        n latents, which equal the ends exactly at 0 and 1. Conditions other than labels are
        interpolated linearly.

    Raises:
        InvalidArgumentError: If there are not two samples, a fraction is outside [0, 1], or the
            samples have different labels.
    """
    if len(ends.x) != 2:
        raise InvalidArgumentError(f"an interpolation needs two samples, got {len(ends.x)}")
    inside = bool(((fraction >= 0) & (fraction <= 1)).all())
    if fraction.ndim != 1 or not len(fraction) or not inside:
        raise InvalidArgumentError(f"`fraction` must be in [0, 1], of shape (n,), got {fraction}")
    fraction = fraction.double()
    weights = arc_weights(ends.noise[0], ends.noise[1], fraction)
    linear = torch.stack([1 - fraction, fraction], dim=1)
    count = len(fraction)
    return replace(
        ends,
        x=_combine(weights, ends.x),
        past=None if ends.past is None else _combine(weights, ends.past),
        evaluations=torch.zeros(count, dtype=ends.evaluations.dtype, device="cpu"),
        residual=ends.residual.max().expand(count).clone(),
        row=torch.full((count,), -1, device="cpu"),
        condition=_between_conditions(ends.condition, linear),
    )


def error_of_ends(ends: Tensor, samples: Tensor) -> float:
    """Compute how much the ends of an interpolation differ from the original samples.

    Args:
        ends: The two samples that were encoded, shape (2, *data shape).
        samples: The result of the interpolation, shape (n, *data shape).

    Returns:
        The larger relative error (in norm) of the two ends. Below ``CLOSE``, the ends count as
        equal to the samples.
    """
    error = (samples[[0, -1]].to(ends) - ends).flatten(1).norm(dim=1)
    return float((error / ends.flatten(1).norm(dim=1).clamp_min(1e-12)).max())


def arc_weights(a: Tensor, b: Tensor, fraction: Tensor) -> Tensor:
    """Compute the weights of spherical interpolation between two states, shape (n, 2), float64.

    The weights are linear if the states are parallel or opposite, where the arc is not unique.
    """
    flat_a, flat_b = a.double().flatten(), b.double().flatten()
    length = flat_a.norm() * flat_b.norm()
    cosine = (flat_a @ flat_b / length).clamp(-1, 1) if length > 0 else flat_a.new_ones(())
    angle = torch.arccos(cosine)
    if torch.sin(angle) < _LEAST_SINE:
        return torch.stack([1 - fraction, fraction], dim=1)
    arc = torch.stack([(1 - fraction) * angle, fraction * angle], dim=1)
    return torch.sin(arc) / torch.sin(angle)


def _combine(weights: Tensor, pair: Tensor) -> Tensor:
    combined: Tensor = torch.tensordot(weights, pair.double(), dims=1)
    return combined.to(pair.dtype)


def _between_conditions(pair: Tensor | None, linear: Tensor) -> Tensor | None:
    if pair is None:
        return None
    if pair.is_floating_point():
        return _combine(linear, pair)
    if not torch.equal(pair[0], pair[1]):
        raise InvalidArgumentError(
            f"cannot interpolate between the labels {pair[0].tolist()} and {pair[1].tolist()}:"
            " use the same label for both samples"
        )
    return pair[:1].repeat(len(linear), *[1] * (pair.ndim - 1))
