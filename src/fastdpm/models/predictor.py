"""The network of a model as sampling evaluates it: steps, types, guidance and clipping."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from fastdpm.core.errors import FastDPMError, SamplingError, check_one_of, first_line
from fastdpm.core.guidance import GuidanceArguments
from fastdpm.core.recipe import CLIPS, PRECISIONS
from fastdpm.models.config import ModelConfig
from fastdpm.sampling.guidance import Guidance
from fastdpm.sampling.network import Network, NoisePredictor, call_network
from fastdpm.sampling.prediction import Autocast, ClipX0, DynamicThreshold, as_eps

_LABELS = ("y", "class_labels", "labels", "label", "classes")
_CLIPS: Mapping[str, type[ClipX0] | type[DynamicThreshold]] = MappingProxyType(
    {"x0": ClipX0, "dynamic": DynamicThreshold}
)


def make_predictor(
    network: nn.Module,
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    condition: Tensor | None,
    unconditional: Tensor | None,
    guidance: GuidanceArguments,
    *,
    clip: str,
    precision: str,
) -> Network | NoisePredictor:
    """Wrap a network so that :func:`fastdpm.run` can evaluate it.

    Args:
        network: The network.
        config: Its configuration.
        device: Device of the network; states may be on another one.
        dtype: Type of the network's inputs.
        condition: Conditions of one batch, shape (batch, ...), or None.
        unconditional: The condition that stands for no condition, shape (1, ...); only guidance
            needs it.
        guidance: How predictions are guided.
        clip: How to clip the predicted clean data, after guidance; :func:`fastdpm.run` clips
            states.
        precision: Precision of the network.
    """
    check_one_of("clip", clip, CLIPS)
    check_one_of("precision", precision, PRECISIONS)

    def call(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        step = (t * config.time_scale).to(device, dtype)
        try:
            return call_network(network, x.to(device, dtype), step, condition).to(x)
        except (TypeError, ValueError, AttributeError, AssertionError) as error:
            argument = _condition_argument(network)
            if condition is not None or argument is None or isinstance(error, FastDPMError):
                raise
            raise SamplingError(
                f"the network failed without its argument {argument} ({first_line(error)}): set"
                " `classes` in Model.wrap if it takes class labels, else `conditions`"
            ) from error

    evaluate: Callable[..., Tensor] = call
    if precision != "float32":
        evaluate = Autocast(call, getattr(torch, PRECISIONS[precision]))
    predictor: Network | NoisePredictor = lambda x, t: evaluate(x, t, condition)  # noqa: E731
    if guidance["guidance_scale"] != 1 and condition is not None and unconditional is not None:
        null = unconditional.to(condition).expand_as(condition)
        predictor = Guidance(evaluate, condition, null, **guidance)
    predictor = as_eps(predictor, config.prediction)
    return _CLIPS[clip](predictor) if clip in _CLIPS else predictor


def _condition_argument(network: nn.Module) -> str | None:
    """The third argument of a network, if it must be passed or has a usual name of labels."""
    known = list(inspect.signature(network.forward).parameters.values())
    third = [p for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][2:3]
    fits = [p.name for p in third if p.default is p.empty or p.name in _LABELS]
    return fits[0] if fits else None
