"""The DiffWave networks of the authors and of LMNT, reimplemented.

Written from the published layouts, with no module: each function walks the names of a state and
spells its sums out, tap by tap. The shapes are listed from the published configurations. Neither
shares anything with ``fastdpm.models``.
Sources: https://github.com/philsyn/DiffWave-unconditional and
https://github.com/philsyn/DiffWave-Vocoder (WaveNet.py, util.py, config.json, config_64.json,
config_128.json); https://github.com/lmnt-com/diffwave (model.py, params.py).
"""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def authors_reference(
    state: State,
    x: Tensor,
    t: Tensor,
    mel: Tensor | None = None,
    *,
    dilation_cycle: int,
    in_place: bool = True,
) -> Tensor:
    """The authors' DiffWave at real-valued steps.

    Args:
        state: Weights by their published names, ``weight_g`` and ``weight_v`` of normalised ones.
        x: Shape (batch, 1, L).
        t: Zero-based steps, shape (batch,).
        mel: Shape (batch, bands, frames) for the vocoder.
        dilation_cycle: Layer n has dilation 2^(n % dilation_cycle).
        in_place: Whether ``h += part_t`` changes the input of the block too, as in their code.
    """
    stack = "residual_layer"
    step = _authors_embedding(t, state[f"{stack}.fc_t1.weight"].shape[1]).to(x)
    step = _swish(_dense(state, f"{stack}.fc_t1", step))
    step = _swish(_dense(state, f"{stack}.fc_t2", step))
    h = _conv(state, "init_conv.0.conv", x).clamp_min(0)
    layers = _count(state, rf"{stack}\.residual_blocks\.(\d+)\.")
    skips = torch.zeros((), dtype=x.dtype)
    for n in range(layers):
        block = f"{stack}.residual_blocks.{n}"
        # Their `h += part_t` adds in place, so that the residual path has the step as well.
        stepped = h + _dense(state, f"{block}.fc_t", step)[:, :, None]
        h = stepped if in_place else h
        y = _conv(state, f"{block}.dilated_conv_layer.conv", stepped, 2 ** (n % dilation_cycle))
        if mel is not None:
            stretched = mel
            for k in (0, 1):
                stretched = _leaky(_stretch(state, f"{block}.upsample_conv2d.{k}", stretched))
            y = y + _conv(state, f"{block}.mel_conv.conv", stretched[:, :, : x.shape[2]])
        half = y.shape[1] // 2
        y = torch.tanh(y[:, :half]) * torch.sigmoid(y[:, half:])
        h = (h + _conv(state, f"{block}.res_conv", y)) * math.sqrt(0.5)
        skips = skips + _conv(state, f"{block}.skip_conv", y)
    y = _conv(state, "final_conv.0.conv", skips / math.sqrt(layers)).clamp_min(0)
    return _conv(state, "final_conv.2.conv", y)


def lmnt_reference(
    state: State,
    x: Tensor,
    t: Tensor,
    mel: Tensor | None = None,
    *,
    dilation_cycle: int,
    num_train_steps: int,
) -> Tensor:
    """LMNT's DiffWave at real-valued steps from 0 to num_train_steps - 1.

    Args:
        state: Weights by their published names.
        x: Shape (batch, 1, L).
        t: Zero-based steps, shape (batch,).
        mel: Shape (batch, bands, frames) for the vocoder.
        dilation_cycle: Layer n has dilation 2^(n % dilation_cycle).
        num_train_steps: Rows of the table of steps.
    """
    table = _lmnt_table(num_train_steps)
    step = torch.stack([_between(table, float(each)) for each in t]).to(x)
    step = _swish(_dense(state, "diffusion_embedding.projection1", step))
    step = _swish(_dense(state, "diffusion_embedding.projection2", step))
    if mel is not None:
        for name in ("conv1", "conv2"):
            mel = _leaky(_stretch(state, f"spectrogram_upsampler.{name}", mel))
        mel = mel[:, :, : x.shape[2]]
    h = _conv(state, "input_projection", x).clamp_min(0)
    layers = _count(state, r"residual_layers\.(\d+)\.")
    skips = torch.zeros((), dtype=x.dtype)
    for n in range(layers):
        block = f"residual_layers.{n}"
        y = h + _dense(state, f"{block}.diffusion_projection", step)[:, :, None]
        y = _conv(state, f"{block}.dilated_conv", y, 2 ** (n % dilation_cycle))
        if mel is not None:
            y = y + _conv(state, f"{block}.conditioner_projection", mel)
        half = y.shape[1] // 2
        y = torch.sigmoid(y[:, :half]) * torch.tanh(y[:, half:])
        y = _conv(state, f"{block}.output_projection", y)
        h, skips = (h + y[:, :half]) / math.sqrt(2), skips + y[:, half:]
    y = _conv(state, "skip_projection", skips / math.sqrt(layers)).clamp_min(0)
    return _conv(state, "output_projection", y)


def sc09_shapes() -> Shapes:
    """The authors' unconditional network: 256 channels, 36 layers of cycle 12, T = 200."""
    return authors_shapes(256, 36)


def ljspeech_shapes(channels: int) -> Shapes:
    """The authors' vocoders: 64 channels (T = 50) or 128 (T = 200), 30 layers of cycle 10."""
    return authors_shapes(channels, 30, mel_bands=80)


def authors_shapes(channels: int, layers: int, mel_bands: int | None = None) -> Shapes:
    """Names and shapes of the authors' network, its skip path as wide as its residual path."""
    shapes = _normed("init_conv.0.conv", channels, 1, 1)
    shapes |= _plain("residual_layer.fc_t1", 512, 128) | _plain("residual_layer.fc_t2", 512, 512)
    for n in range(layers):
        block = f"residual_layer.residual_blocks.{n}"
        shapes |= _plain(f"{block}.fc_t", channels, 512)
        shapes |= _normed(f"{block}.dilated_conv_layer.conv", 2 * channels, channels, 3)
        if mel_bands is not None:
            shapes |= _normed(f"{block}.upsample_conv2d.0", 1, 1, 3, 32)
            shapes |= _normed(f"{block}.upsample_conv2d.1", 1, 1, 3, 32)
            shapes |= _normed(f"{block}.mel_conv.conv", 2 * channels, mel_bands, 1)
        shapes |= _normed(f"{block}.res_conv", channels, channels, 1)
        shapes |= _normed(f"{block}.skip_conv", channels, channels, 1)
    shapes |= _normed("final_conv.0.conv", channels, channels, 1)
    return shapes | _plain("final_conv.2.conv", 1, channels, 1)


def lmnt_shapes(channels: int = 64, layers: int = 30, mel_bands: int | None = 80) -> Shapes:
    """Names and shapes of LMNT's network; T = 50 and cycle 10 by default, which they do not tell.

    The table of steps is no part of a state, in no version.
    """
    shapes = _plain("input_projection", channels, 1, 1)
    shapes |= _plain("diffusion_embedding.projection1", 512, 128)
    shapes |= _plain("diffusion_embedding.projection2", 512, 512)
    if mel_bands is not None:
        shapes |= _plain("spectrogram_upsampler.conv1", 1, 1, 3, 32)
        shapes |= _plain("spectrogram_upsampler.conv2", 1, 1, 3, 32)
    for n in range(layers):
        block = f"residual_layers.{n}"
        shapes |= _plain(f"{block}.dilated_conv", 2 * channels, channels, 3)
        shapes |= _plain(f"{block}.diffusion_projection", channels, 512)
        if mel_bands is not None:
            shapes |= _plain(f"{block}.conditioner_projection", 2 * channels, mel_bands, 1)
        shapes |= _plain(f"{block}.output_projection", 2 * channels, channels, 1)
    shapes |= _plain("skip_projection", channels, channels, 1)
    return shapes | _plain("output_projection", 1, channels, 1)


def random_state(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Weights for shapes, so small that a signal neither dies nor explodes on its way."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in sorted(shapes.items()):
        inputs = math.prod(shape[1:]) if len(shape) > 1 else 1
        if name.endswith("weight_g"):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        else:
            scale = 0.2 if name.endswith("bias") else 1 / math.sqrt(inputs)
            state[name] = scale * torch.randn(shape, generator=generator)
    return state


def _plain(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _normed(name: str, *shape: int) -> Shapes:
    norms = (shape[0], *(1 for _ in shape[1:]))
    return {f"{name}.weight_g": norms, f"{name}.weight_v": shape, f"{name}.bias": shape[:1]}


def _count(state: State, pattern: str) -> int:
    return len({m[1] for name in state if (m := re.match(pattern, name))})


def _weight(state: State, name: str) -> Tensor:
    """The weight, g v / |v| where it is normalised, |v| over all but the first axis."""
    if f"{name}.weight" in state:
        return state[f"{name}.weight"]
    v = state[f"{name}.weight_v"]
    lengths = torch.stack([row.square().sum().sqrt() for row in v])
    return v * (state[f"{name}.weight_g"].flatten() / lengths).reshape(-1, *[1] * (v.ndim - 1))


def _dense(state: State, name: str, x: Tensor) -> Tensor:
    return torch.einsum("oi,bi->bo", state[f"{name}.weight"], x) + state[f"{name}.bias"]


def _conv(state: State, name: str, x: Tensor, dilation: int = 1) -> Tensor:
    """A convolution that keeps the length: tap k reads dilation * (k - middle) samples ahead."""
    weight, length = _weight(state, name), x.shape[2]
    out = state[f"{name}.bias"][None, :, None].repeat(len(x), 1, length)
    for k in range(weight.shape[2]):
        ahead = dilation * (k - weight.shape[2] // 2)
        first, last = max(0, -ahead), min(length, length - ahead)
        if first < last:
            seen = x[:, :, first + ahead : last + ahead]
            out[:, :, first:last] += torch.einsum("oi,bil->bol", weight[:, :, k], seen)
    return out


def _stretch(state: State, name: str, mel: Tensor) -> Tensor:
    """A transposed convolution, (batch, bands, frames) to (batch, bands, frames * stride).

    Frame i of band f adds its value times kernel (p, q) to band f + p - 1 at i * stride + q -
    stride / 2; the kernel is twice as long as the stride.
    """
    kernel = _weight(state, name)[0, 0]
    stride = kernel.shape[1] // 2
    batch, bands, frames = mel.shape
    wide = mel.new_zeros(batch, bands + 2, (frames + 1) * stride)
    for p in range(kernel.shape[0]):
        for q in range(kernel.shape[1]):
            wide[:, p : p + bands, q : q + frames * stride : stride] += kernel[p, q] * mel
    inside = wide[:, 1:-1, stride // 2 : stride // 2 + frames * stride]
    return inside + state[f"{name}.bias"]


def _authors_embedding(t: Tensor, size: int) -> Tensor:
    """Sines then cosines of t at frequencies from 1 down to 1e-4, in single precision."""
    half = size // 2
    frequencies = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def _lmnt_table(rows: int) -> Tensor:
    """Sines, then cosines of integer steps at frequencies from 1 to 1e4, in float32."""
    frequencies = 10.0 ** (torch.arange(64) * 4.0 / 63.0)
    angles = torch.arange(rows)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def _between(table: Tensor, t: float) -> Tensor:
    share = t - math.floor(t)
    low, high = table[math.floor(t)].double(), table[math.ceil(t)].double()
    return (1 - share) * low + share * high


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.4 * x)
