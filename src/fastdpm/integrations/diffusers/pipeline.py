"""Open pipelines and U-Nets of diffusers as models, to sample, evaluate and compare them.

The network is evaluated at real-valued steps in its own precision, while states are float32. The
pipeline is not changed: a part in training mode is set to evaluation mode during a call and set
back after it. No gradients are recorded.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet1DModel, UNet2DConditionModel, UNet2DModel
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.condition import as_labels
from fastdpm.integrations.diffusers.network import (
    HIDDEN,
    LABELS,
    POOLED,
    SIZES,
    Conditions,
    PipelineNetwork,
    check_conditions,
    check_halves,
    decode,
    eval_mode,
    pack,
)
from fastdpm.models.config import ModelConfig
from fastdpm.models.decoder import Decoder
from fastdpm.models.formats.diffusers_config import prediction_of, schedule_of
from fastdpm.models.formats.diffusers_folder import arguments_of, data_of, model_name, recipe_of
from fastdpm.models.model import Model
from fastdpm.networks.diffusers_unet import check_unet

Labels = int | Sequence[int] | Tensor
Size = int | tuple[int, int]

_KINDS = (UNet2DModel, UNet1DModel, UNet2DConditionModel, DiTTransformer2DModel)
_UNSUPPORTED_PARTS = ("controlnet", "adapter", "motion_adapter", "image_unet")
_MAX_DECODED = 2**20  # values that a VAE decodes at a time: one RGB image of 512 x 512 pixels


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
    """Open the network of a pipeline, and its conditions, as a model.

    Supports pipelines of a single U-Net (DDPM, DDIM ...), latent ones (LDM), pipelines that encode
    prompts (Stable Diffusion, SDXL, DeepFloyd IF), and DiT. Safety checkers and watermarks are not
    applied.

    Args:
        pipeline: A pipeline of diffusers. It is not changed, and its weights are not copied,
            except those of a float16 VAE that must decode in float32.
        prompt: One prompt, or m prompts: sample i uses prompt i mod m. Prompts are encoded once.
        negative_prompt: The prompt to guide away from; the pipeline's empty prompt if None.
        guidance_scale: Scale of classifier-free guidance in the recommended recipe; 1 disables it.
            If None, the default of the pipeline. See :meth:`fastdpm.Model.sample`.
        class_labels: For a network with classes, m labels from 0: sample i uses label i mod m. All
            classes if None.
        sample_size: Height and width of the state (for a latent model, of the latents), or the
            length of a series; that of the network if None.
        name: Name of the model; that of the pipeline if None.

    Returns:
        A model with the variance schedule, prediction type and clipping of the pipeline's
        scheduler.

    Raises:
        InvalidArgumentError: If the pipeline has no supported network, its scheduler has no
            variance schedule, or prompts, labels or guidance do not fit the pipeline.
    """
    kind = type(pipeline).__name__
    network = _network_of(pipeline, kind)
    vae = getattr(pipeline, "vae", None) or getattr(pipeline, "vqvae", None)
    title = str(getattr(pipeline, "name_or_path", None) or kind).rstrip("/").rpartition("/")[2]
    source = _Source(network, pipeline.scheduler, vae, sample_size, name or model_name(title))
    prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    if source.takes_text != bool(prompts):
        advice = "requires a prompt: pass" if source.takes_text else "takes no prompt: remove"
        raise InvalidArgumentError(f"{kind} {advice} `prompt`")
    conditions = source.labels(class_labels, source.empty_label)
    has_empty = any(empty is not None for _, empty in conditions.values())
    if guidance_scale is None and (source.takes_text or has_empty):
        guidance_scale = _default_guidance(type(pipeline))
    guided = guidance_scale not in (None, 1)
    if negative_prompt is not None and not (source.takes_text and guided):
        raise InvalidArgumentError(
            f"`negative_prompt` has no effect on {kind} without guidance by text: drop it, or"
            " set `guidance_scale` above 1"
        )
    if prompts:
        conditions |= _encoded(pipeline, prompts, negative_prompt)
    if POOLED in conditions:
        height, width = source.data.shape[1:]
        sizes = torch.tensor([[height, width, 0, 0, height, width]], device="cpu")
        conditions[SIZES] = (sizes.repeat(len(prompts), 1), sizes)
    return source.model(conditions, guidance_scale if guided else None)


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
        unet: A ``UNet2DModel``, ``UNet1DModel`` or ``UNet2DConditionModel``. It is not changed,
            and its weights are not copied.
        scheduler: The scheduler of the U-Net, or its configuration. It provides the variance
            schedule, the prediction type and the clipping; its timesteps are not used.
        encoder_hidden_states: For a ``UNet2DConditionModel``, text embeddings of shape
            (m, tokens, width): sample i uses number i mod m.
        class_labels: For a network with classes, m labels from 0: sample i uses label i mod m. All
            classes if None and the network has no other condition.
        empty_hidden_states: The text embedding to guide away from, shape (tokens, width).
        empty_label: The label that stands for "no class", which guidance leads away from. If it is
            the last one, it is not counted as a class.
        guidance_scale: Scale of classifier-free guidance in the recommended recipe; 1 or None
            disables it. See :meth:`fastdpm.Model.sample`.
        vae: For a latent model, the VAE that decodes its states.
        sample_size: Height and width of the state (for a latent model, of the latents), or the
            length of a series; that of the network if None.
        name: Name of the model; the class of the network if None.

    Returns:
        A model with the variance schedule, prediction type and clipping of ``scheduler``.

    Raises:
        InvalidArgumentError: If the network is not supported, the scheduler has no variance
            schedule, or conditions or guidance do not fit the network.
    """
    title = name or model_name(type(_unwrapped(unet)).__name__)
    source = _Source(unet, scheduler, vae, sample_size, title)
    if source.takes_text != (encoder_hidden_states is not None):
        advice = "requires them: pass" if source.takes_text else "takes no text: remove"
        raise InvalidArgumentError(f"{source.kind} {advice} `encoder_hidden_states`")
    guided = guidance_scale not in (None, 1)
    conditions = source.labels(class_labels, empty_label)
    if encoder_hidden_states is not None:
        empty = empty_hidden_states
        if empty is not None:
            empty = _batched(empty, "empty_hidden_states")
        conditions[HIDDEN] = (_batched(encoder_hidden_states, "encoder_hidden_states"), empty)
    return source.model(conditions, guidance_scale if guided else None)


class _Source:
    """A network of diffusers with its configuration and that of its scheduler.

    Attributes:
        kind: Name of the network's class.
        state: Shape and modality of the states.
        data: Shape and modality of the decoded samples.
        takes_text: Whether the network takes text embeddings.
        classes: Number of labels, including the empty one; None without classes.
        empty_label: The label that stands for "no class", if this kind of network has one.
    """

    def __init__(
        self, network: Any, scheduler: Any, vae: Any, sample_size: Size | None, name: str
    ) -> None:
        module = _unwrapped(network)
        self.network, self.name, self.kind = network, name, type(module).__name__
        if not isinstance(module, _KINDS):
            known = ", ".join(kind.__name__ for kind in _KINDS)
            raise InvalidArgumentError(f"the network must be one of {known}, got {self.kind}")
        self.config = arguments_of(network.config)
        self.scheduler = _scheduler_config(scheduler)
        check_unet(self.kind, self.config)
        if any(p.is_meta for p in network.parameters()):
            raise InvalidArgumentError(
                f"the weights of {self.kind} are not in memory: load it without offloading"
            )
        self.takes_text = isinstance(module, UNet2DConditionModel)
        self.classes: int | None = self.config.get("num_class_embeds")
        self.empty_label: int | None = None
        if isinstance(module, DiTTransformer2DModel):
            self.empty_label = int(self.config["num_embeds_ada_norm"])
            self.classes = self.empty_label + 1
        size = {} if sample_size is None else {"sample_size": sample_size}
        self.state = replace(data_of(self.kind, self.config | size), classes=None)
        check_halves(self.kind, self.config, self.state.shape[1:])
        self.data, self.vae = self.state, vae
        if vae is not None:
            factor = 2 ** (len(vae.config.block_out_channels) - 1)
            sides = (side * factor for side in self.state.shape[1:])
            self.data = replace(self.state, shape=(vae.config.out_channels, *sides))
            if vae.dtype == torch.float16 and vae.config.get("force_upcast"):
                self.vae = copy.deepcopy(vae).float()

    def labels(self, class_labels: Labels | None, empty_label: int | None) -> Conditions:
        """The class labels as conditions; by default, all classes except the empty one.

        Raises:
            InvalidArgumentError: If the labels are missing, not expected, or out of range.
        """
        if self.classes is None:
            if class_labels is not None or empty_label is not None:
                raise InvalidArgumentError(
                    f"{self.name} has no classes: remove `class_labels` and `empty_label`"
                )
            return {}
        if class_labels is None and self.takes_text:
            raise InvalidArgumentError(
                f"{self.name} takes classes as well as text: pass `class_labels`"
            )
        rows = replace(self.state, classes=self.classes)
        empty = None if empty_label is None else as_labels(empty_label, rows, None)
        if class_labels is None:
            class_labels = [i for i in range(self.classes) if i != empty_label]
        return {LABELS: (as_labels(class_labels, rows, None), empty)}

    def model(self, conditions: Conditions, guidance_scale: float | None) -> Model:
        """Build the model, with guidance if a scale is passed.

        Raises:
            InvalidArgumentError: If guidance is not possible, or a condition is missing.
        """
        check_conditions(conditions)
        if guidance_scale is not None:
            self._check_guidance(conditions, guidance_scale)
        if self.config.get("addition_embed_type") == "text_time" and POOLED not in conditions:
            raise InvalidArgumentError(
                f"this {self.kind} takes pooled text embeddings and sizes besides hidden states:"
                " open its pipeline with from_pipeline"
            )
        vae, decoder = self.vae, None
        if vae is not None:
            batch_size = max(1, _MAX_DECODED // math.prod(self.data.shape))
            decoder = Decoder(self.state.shape, lambda z: decode(vae, z, batch_size))
        settings = {  # everything besides weights and conditions that results depend on
            "type": "custom",
            "class": self.kind,
            "config": self.config,
            "dtype": str(self.network.dtype),
            "guidance_scale": None,  # it is part of the recipe; the key keeps digests as they are
            "vae": None if vae is None else arguments_of(vae.config),
            "vae_dtype": None if vae is None else str(vae.dtype),
        }
        config = ModelConfig(
            name=self.name,
            network=json.loads(json.dumps(settings, default=str)),
            schedule=schedule_of(self.scheduler),
            data=replace(self.data, classes=self._counted(conditions)),
            recipe=recipe_of(self.scheduler).replace(guidance_scale=guidance_scale),
            prediction=prediction_of(self.scheduler),
        )
        network = PipelineNetwork(self.network, vae, conditions)
        parts, empties = zip(*conditions.values(), strict=True) if conditions else ((), ())
        empty = None if any(each is None for each in empties) else pack(empties)
        return Model(config, network, pack(parts), decoder, empty)

    def _counted(self, conditions: Conditions) -> int | None:
        """The number of classes without an empty one at the end; None if there are others too."""
        if list(conditions) != [LABELS] or self.classes is None:
            return None
        empty = conditions[LABELS][1]
        at_end = empty is not None and int(empty) == self.classes - 1
        return self.classes - 1 if at_end else self.classes

    def _check_guidance(self, conditions: Conditions, guidance_scale: float) -> None:
        """Check that there are conditions, and an unconditional input for each."""
        if not conditions:
            raise InvalidArgumentError(
                f"{self.name} is unconditional and cannot be guided: remove `guidance_scale`"
            )
        names = {LABELS: "empty_label", HIDDEN: "empty_hidden_states"}
        missing = sorted(names.get(n, n) for n, (_, empty) in conditions.items() if empty is None)
        if missing:
            raise InvalidArgumentError(
                f"guidance of {self.name} with `guidance_scale` {guidance_scale:g} needs an empty"
                f" condition: pass {' and '.join(missing)} to from_unet, or remove"
                " `guidance_scale`"
            )


def _unwrapped(network: Any) -> Any:
    """The network without the wrapper of torch.compile."""
    return getattr(network, "_orig_mod", network)


def _network_of(pipeline: Any, kind: str) -> Any:
    """The U-Net or DiT of a pipeline; raises InvalidArgumentError if it is not supported."""
    if isinstance(pipeline, str | Path):
        raise InvalidArgumentError(
            f"{str(pipeline)!r} is not a pipeline: load it with DiffusionPipeline.from_pretrained,"
            " or open its folder with fastdpm.load_model"
        )
    network = getattr(pipeline, "unet", None)
    transformer = getattr(pipeline, "transformer", None)
    if network is None and isinstance(_unwrapped(transformer), DiTTransformer2DModel):
        network = transformer
    if network is None:
        raise InvalidArgumentError(
            f"{kind} has no U-Net: only DiT and pipelines of a U-Net with a variance schedule"
            " (DDPM, Stable Diffusion, SDXL ...) can be opened"
        )
    extra = [name for name in _UNSUPPORTED_PARTS if getattr(pipeline, name, None) is not None]
    if extra:
        raise InvalidArgumentError(
            f"the U-Net of {kind} takes inputs from its {' and '.join(extra)}: wrap the networks"
            " in your own torch module and pass that to fastdpm.Model.wrap"
        )
    return network


def _scheduler_config(scheduler: Any) -> dict[str, Any]:
    """The configuration of a scheduler, with its class name, whose defaults apply."""
    if isinstance(scheduler, Mapping):
        return dict(scheduler)
    config = getattr(scheduler, "config", None)
    if not isinstance(config, Mapping):
        raise InvalidArgumentError(
            f"`scheduler` must be a scheduler of diffusers or its configuration, got {scheduler!r}"
        )
    return {**config, "_class_name": type(scheduler).__name__}


def _default_guidance(pipeline: type[Any]) -> float | None:
    """The default ``guidance_scale`` of a pipeline class, or None."""
    parameter = inspect.signature(pipeline.__call__).parameters.get("guidance_scale")
    default = None if parameter is None else parameter.default
    return float(default) if isinstance(default, int | float) else None


def _encoded(pipeline: Any, prompts: list[str], negative_prompt: str | None) -> Conditions:
    """The embeddings of prompts and negative prompt, computed by the pipeline."""
    kind = type(pipeline).__name__
    if getattr(pipeline, "text_encoder", None) is None or not hasattr(pipeline, "encode_prompt"):
        raise InvalidArgumentError(
            f"{kind} has no text encoder or no encode_prompt(): pass encoder_hidden_states to"
            " from_unet"
        )
    if not all(isinstance(text, str) for text in prompts):
        raise InvalidArgumentError(
            f"`prompt` must be a string or a sequence of strings, got {prompts!r}"
        )
    with torch.no_grad(), ExitStack() as stack:
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                stack.enter_context(eval_mode(part))
        embeddings = pipeline.encode_prompt(
            prompt=prompts,
            device=getattr(pipeline, "_execution_device", pipeline.device),
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=None if negative_prompt is None else [negative_prompt] * len(prompts),
        )
    if len(embeddings) not in (2, 4):
        raise InvalidArgumentError(
            f"encode_prompt() of {kind} must return 2 or 4 tensors, got {len(embeddings)}: pass"
            " encoder_hidden_states to from_unet"
        )
    pairs = {HIDDEN: embeddings[:2], POOLED: embeddings[2:]}
    return {n: (pair[0], pair[1][:1]) for n, pair in pairs.items() if pair}


def _batched(hidden: Tensor, name: str) -> Tensor:
    """Hidden states as (m, tokens, width)."""
    batched = hidden[None] if hidden.ndim == 2 else hidden
    if batched.ndim != 3 or (name.startswith("empty") and len(batched) != 1):
        axis = "" if name.startswith("empty") else "m, "
        raise InvalidArgumentError(
            f"`{name}` must have shape ({axis}tokens, width), got {tuple(hidden.shape)}"
        )
    return batched
