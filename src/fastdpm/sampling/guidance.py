"""Guidance: predictions that follow a condition more closely than the network's own.

Classifier-free guidance extrapolates from the prediction without a condition to that with it;
classifier guidance adds the gradient of a classifier of noisy data:

    eps = eps_null + scale (eps_condition - eps_null),
    eps = eps(x, t) - scale sqrt(1 - r^2) grad_x log p(y | x, t).

Sources: Ho & Salimans 2022, arXiv:2207.12598; Dhariwal & Nichol 2021, arXiv:2105.05233,
algorithm 2; Lin et al. 2023, arXiv:2305.08891, section 3.4, for rescaling.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.deprecation import renamed
from fastdpm.core.errors import InvalidArgumentError, SamplingError
from fastdpm.core.guidance import GuidanceScale, ScaleAt, count_evaluations
from fastdpm.sampling import network as networks
from fastdpm.sampling.network import (
    Network,
    NoisePredictor,
    call_network,
    cast_output,
    predict_eps,
    split_variance,
)

_LEAST_STD = 1e-12


@renamed("scale", "guidance_scale")
class Guidance(NoisePredictor):
    """Apply classifier-free guidance, eps_null + scale (eps_condition - eps_null).

    Both predictions come from one network call with twice the batch. At scale 1 the network is
    called with the condition alone, and at scale 0 without it.

    Networks that predict eps, v or x0 all work, because each is linear in eps for a fixed state.
    Apply this wrapper first, and other wrappers to the result. A learned variance is taken from
    the conditional half.

    Args:
        network: Called as ``network(x, t, condition)``.
        condition: Condition of each sample, shape (batch, ...).
        unconditional: The null condition, in the same shape.
        guidance_scale: 0 is unconditional, 1 is conditional without guidance, and larger values
            strengthen the condition. A function of the noise level makes it differ per row.
        guidance_rescale: How far the standard deviation of each guided prediction is restored to
            that of its conditional half, in [0, 1].

    Raises:
        InvalidArgumentError: If the two conditions differ in shape, or a number is out of range.

    Source: Ho & Salimans 2022, arXiv:2207.12598, eq. 6 with scale = 1 + w.
    """

    @checked
    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Tensor], Tensor],
        condition: Tensor,
        unconditional: Tensor,
        guidance_scale: float | ScaleAt,
        guidance_rescale: float = 0.0,
    ) -> None:
        if condition.shape != unconditional.shape:
            raise InvalidArgumentError(
                "`condition` and `unconditional` must have the same shape, got"
                f" {tuple(condition.shape)} and {tuple(unconditional.shape)}"
            )
        GuidanceScale(2.0, rescale=guidance_rescale)  # raises if it is out of range
        constant = None if callable(guidance_scale) else GuidanceScale(guidance_scale).scale
        if isinstance(constant, tuple):
            raise InvalidArgumentError(
                "`guidance_scale` must be one number, or a function of the noise level, got"
                f" {guidance_scale}"
            )
        self.network = network
        self.condition, self.unconditional = condition, unconditional
        self.guidance_scale = guidance_scale
        self.guidance_rescale = guidance_rescale

    def scale_at(self, level: float) -> float:
        """The scale at a noise level."""
        scale = self.guidance_scale
        return scale(level) if callable(scale) else scale

    def evaluations(self, level: float) -> int:
        """See :class:`NoisePredictor`."""
        return count_evaluations(self.scale_at(level), self.guidance_rescale)

    def __call__(self, x: Tensor, t: Tensor, level: float = math.nan) -> Tensor:
        """Return the guided prediction in the shape of ``x``."""
        scale = self.scale_at(level)
        if self.evaluations(level) == 1:
            only = self.condition if scale == 1 else self.unconditional
            return call_network(self.network, x, t, only)
        twice, steps = torch.cat([x, x]), torch.cat([t, t])
        conditions = torch.cat([self.unconditional, self.condition])
        out = cast_output(call_network(self.network, twice, steps, conditions), twice)
        halves = (split_variance(half, x) for half in out.chunk(2))
        (null, _), (conditional, learned) = halves
        guided = torch.lerp(null, conditional, scale)
        if self.guidance_rescale:
            guided = guided * self._factor(guided, conditional)
        return guided if learned is None else torch.cat([guided, learned], dim=1)

    def _factor(self, guided: Tensor, conditional: Tensor) -> Tensor:
        """What each guided prediction is multiplied by, shape (batch, 1, ...)."""
        axes = tuple(range(1, guided.ndim))
        before, after = (
            v.std(dim=axes, correction=0, keepdim=True) for v in (conditional, guided)
        )
        return 1 + self.guidance_rescale * (before / after.clamp_min(_LEAST_STD) - 1)


class ClassifierGuidance(NoisePredictor):
    """Apply classifier guidance, eps - scale sqrt(1 - r^2) grad_x log p(y | x, t).

    The classifier must have been trained on noisy data. Its evaluations are not counted.

    Args:
        network: A network or noise predictor that predicts eps. Convert networks that predict v
            or x0 first.
        log_probability: ``log_probability(x, t)`` returns log p(y | x, t) of the wanted class of
            each sample, shape (batch,), for states ``x`` (batch, ...) at steps ``t`` (batch,). It
            must be differentiable in ``x``.
        scale: Any finite number; 0 is no guidance.

    Raises:
        InvalidArgumentError: If the scale is not a finite number.

    Source: Dhariwal & Nichol 2021, arXiv:2105.05233, algorithm 2.
    """

    @checked
    def __init__(
        self,
        network: Network | NoisePredictor,
        log_probability: Callable[[Tensor, Tensor], Tensor],
        scale: float = 1.0,
    ) -> None:
        if not math.isfinite(scale):
            raise InvalidArgumentError(f"`scale` must be a finite number, got {scale}")
        self.network, self.log_probability, self.scale = network, log_probability, scale

    def evaluations(self, level: float) -> int:
        """See :class:`NoisePredictor`."""
        return networks.count_evaluations(self.network, level)

    def __call__(self, x: Tensor, t: Tensor, level: float) -> Tensor:
        """Predict eps; a learned variance of the network is passed through."""
        out = predict_eps(self.network, x, t, level)
        eps, learned = split_variance(out, x)
        if self.scale:
            sigma = math.sqrt((1 - level) * (1 + level))
            eps = eps - self.scale * sigma * self._gradient(x, t)
        return eps if learned is None else torch.cat([eps, learned], dim=1)

    def _gradient(self, x: Tensor, t: Tensor) -> Tensor:
        """Gradient of the log-probabilities, in the shape of ``x``."""
        with torch.inference_mode(False), torch.enable_grad():
            state = x.detach().clone().requires_grad_()
            logs = self.log_probability(state, t)
            if logs.shape != x.shape[:1] or not logs.requires_grad:
                raise SamplingError(
                    f"`log_probability` must return one value per sample, ({len(x)},), that"
                    f" depends on x, got shape {tuple(logs.shape)}"
                )
            (gradient,) = torch.autograd.grad(logs.sum(), state)
        return gradient.to(x.dtype)
