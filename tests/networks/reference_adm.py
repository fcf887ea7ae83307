"""The U-Net of improved-diffusion and guided-diffusion, reimplemented.

Written from the published layout, with no module: :func:`adm_reference` walks the names of a state
and decides by them what to compute, :func:`adm_shapes` lists names and shapes by stage. Neither
shares anything with ``fastdpm.networks.adm_unet``.
Source: https://github.com/openai/improved-diffusion, https://github.com/openai/guided-diffusion.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Heads:
    """How attention divides its channels: by a number of heads, or by the channels of one."""

    number: int | None
    channels: int | None
    queries_first: bool

    def split(self, qkv: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Queries, keys and values of one head after another, each (batch, channels, pixels)."""
        width = qkv.shape[1] // 3
        size = self.channels or width // (self.number or 1)
        for start in range(0, width, size):
            if self.queries_first:
                first, step = start, width
            else:
                first, step = 3 * start, size
            q, k, v = (qkv[:, first + i * step :][:, :size] for i in range(3))
            yield q, k, v


def _weights(state: State, name: str) -> tuple[Tensor, Tensor]:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def _dense(state: State, name: str, x: Tensor) -> Tensor:
    weight, bias = _weights(state, name)
    return torch.einsum("oi,bi->bo", weight, x) + bias


def _conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight, bias = _weights(state, name)
    return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    """Normalise each of 32 groups of channels over channels and pixels."""
    weight, bias = _weights(state, name)
    groups = x.reshape(x.shape[0], 32, -1)
    centred = groups - groups.mean(2, keepdim=True)
    variance = centred.square().mean(2, keepdim=True)
    normed = (centred / torch.sqrt(variance + 1e-5)).reshape(x.shape)
    return normed * weight[:, None, None] + bias[:, None, None]


def _repeat(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def _mean(x: Tensor) -> Tensor:
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def _residual(state: State, name: str, x: Tensor, emb: Tensor, change: str) -> Tensor:
    h = _silu(_norm(state, f"{name}.in_layers.0", x))
    if change:
        resample = {"double": _repeat, "halve": _mean}[change]
        h, x = resample(h), resample(x)
    h = _conv(state, f"{name}.in_layers.2", h)
    projected = _dense(state, f"{name}.emb_layers.1", _silu(emb))[:, :, None, None]
    width = h.shape[1]
    if projected.shape[1] == width:
        h = _norm(state, f"{name}.out_layers.0", h + projected)
    else:
        h = (
            _norm(state, f"{name}.out_layers.0", h) * (1 + projected[:, :width])
            + projected[:, width:]
        )
    h = _conv(state, f"{name}.out_layers.3", _silu(h))
    if f"{name}.skip_connection.weight" in state:
        x = _conv(state, f"{name}.skip_connection", x)
    return x + h


def _attend(state: State, name: str, x: Tensor, heads: _Heads) -> Tensor:
    def pointwise(part: str, h: Tensor) -> Tensor:
        weight, bias = _weights(state, f"{name}.{part}")
        return torch.einsum("oi,bip->bop", weight[:, :, 0], h) + bias[:, None]

    outs = []
    for q, k, v in heads.split(pointwise("qkv", _norm(state, f"{name}.norm", x).flatten(2))):
        scale = q.shape[1] ** -0.25
        weight = torch.softmax(torch.einsum("bcq,bck->bqk", q * scale, k * scale), dim=2)
        outs.append(torch.einsum("bqk,bck->bcq", weight, v))
    return x + pointwise("proj_out", torch.cat(outs, dim=1)).reshape(x.shape)


def _embedding(state: State, t: Tensor, y: Tensor | None) -> Tensor:
    width = state["time_embed.0.weight"].shape[1]
    half = width // 2
    # The published frequencies are numbers of float32.
    powers = -math.log(10000) * torch.arange(half, dtype=torch.float32) / half
    angles = torch.outer(t, torch.exp(powers).to(t))
    emb = torch.stack([angles.cos(), angles.sin()], dim=1).flatten(1)
    emb = emb.to(state["time_embed.0.weight"].dtype)
    emb = _dense(state, "time_embed.2", _silu(_dense(state, "time_embed.0", emb)))
    return emb if y is None else emb + state["label_emb.weight"][y]


def _layers(state: State, block: str) -> list[str]:
    """Names of a block's layers in order; none of a layer without parameters."""
    starts = {name.split(".")[2] for name in state if name.startswith(f"{block}.")}
    return [f"{block}.{index}" for index in sorted(starts, key=int)]


def _apply(
    state: State, block: str, x: Tensor, emb: Tensor, heads: _Heads, change: str = ""
) -> Tensor:
    """Apply every layer of a block; ``change`` is what its last one does to the resolution."""
    for index, layer in enumerate(_layers(state, block)):
        if f"{layer}.qkv.weight" in state:
            x = _attend(state, layer, x, heads)
        elif f"{layer}.op.weight" in state:
            x, change = _conv(state, f"{layer}.op", x, stride=2), ""
        elif f"{layer}.conv.weight" in state:
            x, change = _conv(state, f"{layer}.conv", _repeat(x)), ""
        elif index or change == "halve":  # a first residual block never doubles
            x, change = _residual(state, layer, x, emb, change), ""
        else:
            x = _residual(state, layer, x, emb, "")
    if change:  # by a layer without parameters
        x = _repeat(x) if change == "double" else _mean(x)
    return x


@torch.no_grad()
def adm_reference(
    state: State,
    x: Tensor,
    t: Tensor,
    *,
    num_res_blocks: int,
    num_heads: int | None = None,
    head_channels: int | None = None,
    num_heads_upsample: int | None = None,
    queries_first: bool = False,
    y: Tensor | None = None,
) -> Tensor:
    """What the published network returns.

    Args:
        state: Weights by their published names.
        x: Shape (batch, channels, H, W), in the type of the weights.
        t: Zero-based steps, shape (batch,).
        num_res_blocks: Residual blocks of a stage on the way down.
        num_heads: Attention heads; or
        head_channels: channels of a head.
        num_heads_upsample: Attention heads on the way up, if they differ.
        queries_first: All queries, then all keys, then all values, rather than head after head.
        y: Labels, shape (batch,).
    """
    emb = _embedding(state, t, y)
    down = _Heads(num_heads, head_channels, queries_first)
    up = _Heads(num_heads_upsample or num_heads, head_channels, queries_first)
    count = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("output_blocks."))
    per_stage = num_res_blocks + 1
    h = _conv(state, "input_blocks.0.0", x)
    skips = [h]
    for n in range(1, count):
        h = _apply(state, f"input_blocks.{n}", h, emb, down, "halve" if n % per_stage == 0 else "")
        skips.append(h)
    h = _residual(state, "middle_block.0", h, emb, "")
    h = _attend(state, "middle_block.1", h, down)
    h = _residual(state, "middle_block.2", h, emb, "")
    for n in range(count):
        doubles = n % per_stage == num_res_blocks and n < count - 1
        joined = torch.cat([h, skips.pop()], dim=1)
        h = _apply(state, f"output_blocks.{n}", joined, emb, up, "double" if doubles else "")
    return _conv(state, "out.2", _silu(_norm(state, "out.0", h)))


def _layer_shapes(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _residual_shapes(name: str, inputs: int, outputs: int, emb: int, factor: int) -> Shapes:
    shapes = (
        _layer_shapes(f"{name}.in_layers.0", inputs)
        | _layer_shapes(f"{name}.in_layers.2", outputs, inputs, 3, 3)
        | _layer_shapes(f"{name}.emb_layers.1", factor * outputs, emb)
        | _layer_shapes(f"{name}.out_layers.0", outputs)
        | _layer_shapes(f"{name}.out_layers.3", outputs, outputs, 3, 3)
    )
    if inputs != outputs:
        shapes |= _layer_shapes(f"{name}.skip_connection", outputs, inputs, 1, 1)
    return shapes


def _attention_shapes(name: str, width: int) -> Shapes:
    return (
        _layer_shapes(f"{name}.norm", width)
        | _layer_shapes(f"{name}.qkv", 3 * width, width, 1)
        | _layer_shapes(f"{name}.proj_out", width, width, 1)
    )


def _change_shapes(name: str, conv: str, width: int, emb: int, factor: int, how: str) -> Shapes:
    if how == "residual":
        return _residual_shapes(name, width, width, emb, factor)
    return _layer_shapes(f"{name}.{conv}", width, width, 3, 3) if how == "conv" else {}


def adm_shapes(
    width: int,
    multipliers: Sequence[float],
    num_res_blocks: int,
    attention_stages: Sequence[int],
    *,
    out_channels: int = 6,
    scale_shift: bool = True,
    resampling: str = "conv",
    num_classes: int | None = None,
) -> Shapes:
    """Names and shapes of a published state.

    Args:
        width: Channels that the multipliers are in units of.
        multipliers: One for each stage, the full resolution first.
        num_res_blocks: Residual blocks of a stage on the way down.
        attention_stages: Stages with attention, counted from 0.
        out_channels: 6 where the variance of 3 channels is learned.
        scale_shift: The embedding gives two numbers for each channel, not one.
        resampling: "conv", "residual" or "mean".
        num_classes: Classes of labels, if any.
    """
    wide = [int(width * m) for m in multipliers]
    emb, factor, last = 4 * width, 2 if scale_shift else 1, len(wide) - 1
    shapes = _layer_shapes("time_embed.0", emb, width) | _layer_shapes("time_embed.2", emb, emb)
    if num_classes:
        shapes["label_emb.weight"] = (num_classes, emb)
    shapes |= _layer_shapes("input_blocks.0.0", wide[0], 3, 3, 3)
    per_stage = num_res_blocks + 1
    # Channels of the skip connection from input block n to output block -1 - n.
    skips = [wide[0]] + [wide[(n - 1) // per_stage] for n in range(1, len(wide) * per_stage)]
    for n in range(1, len(skips)):
        stage, block = (n - 1) // per_stage, f"input_blocks.{n}"
        if n % per_stage == 0:
            shapes |= _change_shapes(f"{block}.0", "op", wide[stage], emb, factor, resampling)
            continue
        shapes |= _residual_shapes(f"{block}.0", skips[n - 1], wide[stage], emb, factor)
        if stage in attention_stages:
            shapes |= _attention_shapes(f"{block}.1", wide[stage])
    for index in (0, 2):
        shapes |= _residual_shapes(f"middle_block.{index}", wide[-1], wide[-1], emb, factor)
    shapes |= _attention_shapes("middle_block.1", wide[-1])
    h = wide[-1]
    for n, skip in enumerate(reversed(skips)):
        stage, layer = last - n // per_stage, 1
        shapes |= _residual_shapes(f"output_blocks.{n}.0", h + skip, wide[stage], emb, factor)
        h = wide[stage]
        if stage in attention_stages:
            shapes |= _attention_shapes(f"output_blocks.{n}.1", h)
            layer = 2
        if stage and n % per_stage == num_res_blocks:
            name = f"output_blocks.{n}.{layer}"
            shapes |= _change_shapes(name, "conv", h, emb, factor, resampling)
    return shapes | _layer_shapes("out.0", h) | _layer_shapes("out.2", out_channels, h, 3, 3)


def cifar10_uncond_50m() -> Shapes:
    """improved-diffusion, cifar10_uncond_50M_500K.pt, and the same of L_vlb; 32 x 32."""
    return adm_shapes(128, (1, 2, 2, 2), 3, (1, 2))


def imagenet64_uncond_100m() -> Shapes:
    """improved-diffusion, imagenet64_uncond_100M_1500K.pt, and the same of L_vlb; 64 x 64."""
    return adm_shapes(128, (1, 2, 3, 4), 3, (2, 3))


def imagenet64_cond_270m() -> Shapes:
    """improved-diffusion, imagenet64_cond_270M_250K.pt; 64 x 64, 1000 classes."""
    return adm_shapes(192, (1, 2, 3, 4), 3, (2, 3), num_classes=1000)


def lsun_uncond_100m() -> Shapes:
    """improved-diffusion, lsun_uncond_100M_1200K_bs128.pt and ..._2400K_bs64.pt; 256 x 256."""
    return adm_shapes(128, (1, 1, 2, 2, 4, 4), 2, (4,), scale_shift=False)


def guided_256_uncond() -> Shapes:
    """guided-diffusion, 256x256_diffusion_uncond.pt and lsun_bedroom, _cat, _horse.pt."""
    return adm_shapes(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), resampling="residual")


def guided_512_cond() -> Shapes:
    """guided-diffusion, 512x512_diffusion.pt; 1000 classes."""
    stages = (4, 5, 6)
    widths = (0.5, 1, 1, 2, 2, 4, 4)
    return adm_shapes(256, widths, 2, stages, resampling="residual", num_classes=1000)
