"""Pipelines and U-Nets of diffusers as models here, to sample, evaluate and compare.

The network is asked at real-valued steps and in its own precision, while the state stays float32.
Nothing of a pipeline is changed: a part that is in training mode is put in evaluation mode for
the time of a call and put back after it, and no gradients are recorded meanwhile.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from diffusers import UNet1DModel, UNet2DConditionModel, UNet2DModel
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.condition import check_labels
from fastdpm.integrations.diffusers.network import (
    HIDDEN,
    LABELS,
    POOLED,
    SIZES,
    Given,
    PipelineNetwork,
    check_given,
    decode,
    evaluating,
    pack,
)
from fastdpm.models.config import ModelConfig
from fastdpm.models.formats.diffusers_config import prediction_of, schedule_of
from fastdpm.models.formats.diffusers_folder import arguments_of, data_of, model_name, recipe_of
from fastdpm.models.model import Decoder, Model
from fastdpm.networks.diffusers_unet import check_unet

Labels = int | Sequence[int] | Tensor
Size = int | tuple[int, int]

_KINDS = (UNet2DModel, UNet1DModel, UNet2DConditionModel, DiTTransformer2DModel)
_MORE = ("controlnet", "adapter", "motion_adapter", "image_unet")
_DECODED = 2**20  # values that a VAE decodes at a time: an image of 512 x 512 pixels


def from_pipeline(
    pipeline: Any,
    *,
    prompt: str | Sequence[str] | None = None,
    negative_prompt: str | None = None,
    guidance_scale: float | None = None,
    class_labels: Labels | None = None,
    sample_size: Size | None = None,
    name: str | None = None,
) -> Model:
    """Open the network of a pipeline as a model, with what it is conditioned on.

    Works for pipelines of a U-Net alone (DDPM, DDIM ...), latent ones (LDM), those that encode
    prompts (Stable Diffusion, SDXL, DeepFloyd IF), and DiT. What a pipeline does beside sampling
    (safety checkers, watermarks) is left out.

    Args:
        pipeline: Whose weights are used where they are, not copied, except for a VAE in fp16 that
            must decode in float32. It is not changed.
        prompt: What to sample for, encoded once; sample i takes number i mod m of m.
        negative_prompt: What to guide away from; the pipeline's empty prompt if None.
        guidance_scale: Of classifier-free guidance, eps_u + scale (eps_c - eps_u); 1 is none. The
            pipeline's own if None, where it has what to guide by.
        class_labels: Where there are classes: sample i takes number i mod m; all if None.
        sample_size: Height and width of the state (of a latent one, of the latents), or the
            length of a series; the network's own if None.
        name: Of the model; the pipeline's if None.

    Returns:
        A model whose schedule, prediction and clipping are those of the pipeline's scheduler.

    Raises:
        InvalidArgumentError: If it has no such network, its scheduler no variance schedule, or
            prompts, labels and guidance are not those that it takes.
    """
    kind = type(pipeline).__name__
    network = _network_of(pipeline, kind)
    vae = getattr(pipeline, "vae", None) or getattr(pipeline, "vqvae", None)
    title = str(getattr(pipeline, "name_or_path", None) or kind).rstrip("/").rpartition("/")[2]
    opened = _Opened(network, pipeline.scheduler, vae, sample_size, name or model_name(title))
    prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    if opened.takes_text != bool(prompts):
        need = "samples for a text: give" if opened.takes_text else "takes no text: drop"
        raise InvalidArgumentError(f"{kind} {need} prompt")
    given = opened.labels(class_labels, opened.empty_label)
    has_empty = any(empty is not None for _, empty in given.values())
    if guidance_scale is None and (opened.takes_text or has_empty):
        guidance_scale = _own_guidance(type(pipeline))
    guided = guidance_scale not in (None, 1)
    if negative_prompt is not None and not (opened.takes_text and guided):
        raise InvalidArgumentError(
            f"negative_prompt changes nothing for {kind} without guidance by text: drop it, or"
            " give guidance_scale above 1"
        )
    if prompts:
        given |= _encoded(pipeline, prompts, negative_prompt, guided)
    if POOLED in given:
        height, width = opened.data.shape[1:]
        sizes = torch.tensor([[height, width, 0, 0, height, width]])
        given[SIZES] = (sizes.repeat(len(prompts), 1), sizes)
    return opened.model(given, guidance_scale if guided else None)


def from_unet(
    unet: Any,
    scheduler: Any,
    *,
    encoder_hidden_states: Tensor | None = None,
    class_labels: Labels | None = None,
    empty_hidden_states: Tensor | None = None,
    empty_label: int | None = None,
    guidance_scale: float | None = None,
    vae: Any = None,
    sample_size: Size | None = None,
    name: str | None = None,
) -> Model:
    """Open a U-Net of diffusers as a model.

    Args:
        unet: A ``UNet2DModel``, ``UNet1DModel`` or ``UNet2DConditionModel``, used where it is and
            not changed.
        scheduler: One that was built for it, or its configuration: for the variances, the
            prediction and the clipping, not for its steps.
        encoder_hidden_states: For a ``UNet2DConditionModel``, shape (m, tokens, width); sample i
            takes number i mod m.
        class_labels: Where there are classes, likewise; all of them if None and there is nothing
            else to be conditioned on.
        empty_hidden_states: What to guide away from, shape (tokens, width).
        empty_label: Likewise, the label that stands for no class.
        guidance_scale: Of classifier-free guidance, eps_u + scale (eps_c - eps_u); 1 or None for
            none.
        vae: For a latent model, what decodes its states.
        sample_size: Height and width of the state (of a latent one, of the latents), or the
            length of a series; the network's own if None.
        name: Of the model; the network's class if None.

    Raises:
        InvalidArgumentError: If it is another network, the scheduler has no variance schedule, or
            conditions and guidance are not those that it takes.
    """
    title = name or model_name(type(_plain(unet)).__name__)
    opened = _Opened(unet, scheduler, vae, sample_size, title)
    if opened.takes_text != (encoder_hidden_states is not None):
        need = "needs" if opened.takes_text else "takes no"
        raise InvalidArgumentError(f"{opened.kind} {need} encoder_hidden_states")
    guided = guidance_scale not in (None, 1)
    if not guided and (empty_hidden_states is not None or empty_label is not None):
        raise InvalidArgumentError(
            "an empty condition changes nothing without guidance: drop it, or give guidance_scale"
            " above 1"
        )
    given = opened.labels(class_labels, empty_label)
    if encoder_hidden_states is not None:
        empty = empty_hidden_states
        if empty is not None:
            empty = _texts(empty, "empty_hidden_states")
        given[HIDDEN] = (_texts(encoder_hidden_states, "encoder_hidden_states"), empty)
    return opened.model(given, guidance_scale if guided else None)


class _Opened:
    """A network of diffusers, and what its configuration and its scheduler's say.

    Attributes:
        kind: Its class.
        state: What it works on.
        data: What samples are once they are decoded.
        takes_text: Whether it is told hidden states.
        classes: How many labels there are, the empty one included; None for none.
        empty_label: The label that stands for no class, where the kind of network has one.
    """

    def __init__(
        self, network: Any, scheduler: Any, vae: Any, sample_size: Size | None, name: str
    ) -> None:
        plain = _plain(network)
        self.network, self.name, self.kind = network, name, type(plain).__name__
        if not isinstance(plain, _KINDS):
            known = ", ".join(kind.__name__ for kind in _KINDS)
            raise InvalidArgumentError(f"only {known} can be opened, got a {self.kind}")
        self.config = arguments_of(network.config)
        self.scheduler = _scheduler_config(scheduler)
        check_unet(self.kind, self.config)
        if any(p.is_meta for p in network.parameters()):
            raise InvalidArgumentError(
                f"the weights of {self.kind} are not in memory: load it without offloading"
            )
        self.takes_text = isinstance(plain, UNet2DConditionModel)
        self.classes, self.empty_label = self.config.get("num_class_embeds"), None
        if isinstance(plain, DiTTransformer2DModel):
            self.empty_label = int(self.config["num_embeds_ada_norm"])
            self.classes = self.empty_label + 1
        size = {} if sample_size is None else {"sample_size": sample_size}
        self.state = replace(data_of(self.kind, self.config | size), classes=None)
        self.data, self.vae = self.state, vae
        if vae is not None:
            factor = 2 ** (len(vae.config.block_out_channels) - 1)
            sides = (side * factor for side in self.state.shape[1:])
            self.data = replace(self.state, shape=(vae.config.out_channels, *sides))
            if vae.dtype == torch.float16 and vae.config.get("force_upcast"):
                self.vae = copy.deepcopy(vae).float()

    def labels(self, wanted: Labels | None, empty_label: int | None) -> Given:
        """Labels to sample for, by default all but the empty one where there is nothing else.

        Raises:
            InvalidArgumentError: If they are surplus, missing or no such labels.
        """
        if self.classes is None:
            if wanted is not None or empty_label is not None:
                raise InvalidArgumentError(f"{self.name} has no classes: drop the labels")
            return {}
        if wanted is None and self.takes_text:
            raise InvalidArgumentError(f"{self.name} has classes beside texts: give class_labels")
        empty = None
        if empty_label is not None:
            empty = check_labels(torch.as_tensor(empty_label), self.classes)
        if wanted is None:
            wanted = [i for i in range(self.classes) if i != empty_label]
        return {LABELS: (check_labels(torch.as_tensor(wanted), self.classes), empty)}

    def model(self, given: Given, scale: float | None) -> Model:
        """The model, guided at a scale if there is one.

        Raises:
            InvalidArgumentError: If it cannot be guided, or a condition is lacking.
        """
        check_given(given)
        if scale is not None:
            self._check_guidance(given, scale)
        if self.config.get("addition_embed_type") == "text_time" and POOLED not in given:
            raise InvalidArgumentError(
                f"this {self.kind} is told whole texts and sizes beside hidden states: open its"
                " pipeline by from_pipeline"
            )
        vae, decoder = self.vae, None
        if vae is not None:
            at_once = max(1, _DECODED // math.prod(self.data.shape))
            decoder = Decoder(self.state.shape, lambda z: decode(vae, z, at_once))
        settings = {  # what decides results beside weights and conditions
            "type": "custom",
            "class": self.kind,
            "config": self.config,
            "dtype": str(self.network.dtype),
            "guidance_scale": scale,
            "vae": None if vae is None else arguments_of(vae.config),
            "vae_dtype": None if vae is None else str(vae.dtype),
        }
        config = ModelConfig(
            name=self.name,
            network=json.loads(json.dumps(settings, default=str)),
            schedule=schedule_of(self.scheduler),
            data=replace(self.data, classes=self.classes if list(given) == [LABELS] else None),
            recipe=recipe_of(self.scheduler),
            prediction=prediction_of(self.scheduler),
        )
        network = PipelineNetwork(self.network, vae, given, scale)
        return Model(config, network, pack(part for part, _ in given.values()), decoder)

    def _check_guidance(self, given: Given, scale: float) -> None:
        if not given:
            raise InvalidArgumentError(
                f"{self.name} is not conditioned on anything to guide by: drop guidance_scale"
            )
        names = {LABELS: "empty_label", HIDDEN: "empty_hidden_states"}
        lacking = sorted(names.get(name, name) for name, (_, e) in given.items() if e is None)
        if lacking:
            raise InvalidArgumentError(
                f"guidance by {scale:g} needs what to guide {self.name} away from: give"
                f" {' and '.join(lacking)} to from_unet, or drop guidance_scale"
            )


def _plain(network: Any) -> Any:
    """The network itself where torch.compile wrapped it."""
    return getattr(network, "_orig_mod", network)


def _network_of(pipeline: Any, kind: str) -> Any:
    network = getattr(pipeline, "unet", None)
    transformer = getattr(pipeline, "transformer", None)
    if network is None and isinstance(_plain(transformer), DiTTransformer2DModel):
        network = transformer
    if network is None:
        raise InvalidArgumentError(
            f"{kind} has no U-Net: only pipelines of a U-Net with a variance schedule (DDPM,"
            " Stable Diffusion, SDXL ...) and DiT can be opened"
        )
    more = [name for name in _MORE if getattr(pipeline, name, None) is not None]
    if more:
        raise InvalidArgumentError(
            f"{kind} tells its U-Net more than text, by its {' and '.join(more)}: wrap the"
            " networks in a module of your own and open that by fastdpm.Model.wrap"
        )
    return network


def _scheduler_config(scheduler: Any) -> dict[str, Any]:
    """The configuration of a scheduler, with the class whose defaults hold."""
    if isinstance(scheduler, Mapping):
        return dict(scheduler)
    config = getattr(scheduler, "config", None)
    if not isinstance(config, Mapping):
        raise InvalidArgumentError(
            f"a scheduler of diffusers or its configuration is needed, got {scheduler!r}"
        )
    return {**config, "_class_name": type(scheduler).__name__}


def _own_guidance(pipeline: type[Any]) -> float | None:
    parameter = inspect.signature(pipeline.__call__).parameters.get("guidance_scale")
    default = None if parameter is None else parameter.default
    return float(default) if isinstance(default, int | float) else None


def _encoded(pipeline: Any, prompts: list[str], negative: str | None, guided: bool) -> Given:
    """Prompts as the pipeline itself encodes them, and the negative one."""
    kind = type(pipeline).__name__
    if getattr(pipeline, "text_encoder", None) is None or not hasattr(pipeline, "encode_prompt"):
        raise InvalidArgumentError(
            f"{kind} has no text encoder, or does not encode prompts by itself: give hidden states"
            " to from_unet"
        )
    if not all(isinstance(text, str) for text in prompts):
        raise InvalidArgumentError(f"prompt must be a string or several, got {prompts!r}")
    with torch.no_grad(), ExitStack() as stack:
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                stack.enter_context(evaluating(part))
        told = pipeline.encode_prompt(
            prompt=prompts,
            device=getattr(pipeline, "_execution_device", pipeline.device),
            num_images_per_prompt=1,
            do_classifier_free_guidance=guided,
            negative_prompt=None if negative is None else [negative] * len(prompts),
        )
    if len(told) not in (2, 4):
        raise InvalidArgumentError(
            f"{kind} encodes prompts in a way of its own: give hidden states to from_unet"
        )
    pairs = {HIDDEN: told[:2], POOLED: told[2:]}
    return {n: (pair[0], pair[1][:1] if guided else None) for n, pair in pairs.items() if pair}


def _texts(hidden: Tensor, name: str) -> Tensor:
    """Hidden states as (m, tokens, width)."""
    batched = hidden[None] if hidden.ndim == 2 else hidden
    if batched.ndim != 3 or (name.startswith("empty") and len(batched) != 1):
        many = "" if name.startswith("empty") else "m, "
        raise InvalidArgumentError(
            f"{name} must have shape ({many}tokens, width), got {tuple(hidden.shape)}"
        )
    return batched
