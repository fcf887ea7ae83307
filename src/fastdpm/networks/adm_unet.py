"""The U-Net of improved-diffusion and guided-diffusion, with their parameter names.

Those are ``time_embed.0``, ``input_blocks.1.0.in_layers.0``, ``middle_block.1.qkv``,
``output_blocks.0.1.proj_out``, ``out.2`` and so on, so that published weights load as they are.
A stage is one resolution, counted from 0 at the full one; block n of ``input_blocks`` is the
first convolution for n = 0, and the last block of every stage but the deepest halves both sides.
Source: Nichol & Dhariwal 2021, arXiv:2102.09672; Dhariwal & Nichol 2021, arXiv:2105.05233.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.networks.embedding import step_embedding
from fastdpm.networks.unet import stage_inputs, upsample

_GROUPS = 32


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels, eps=1e-5)


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer, set to zero, so that a fresh block returns its input."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


class ResBlock(nn.Module):
    """Two normalised convolutions; the embedding is added, or scales and shifts, between them.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        emb_channels: Channels of the embedding.
        dropout: Probability in [0, 1).
        scale_shift: Scale and shift the second norm's output instead of adding before it.
        direction: "up" or "down" if the block changes the resolution between the first norm and
            its convolution, else empty.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        dropout: float,
        scale_shift: bool,
        direction: str = "",
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resample: nn.Module = nn.Identity()
        if direction:
            self.resample = nn.Upsample(scale_factor=2.0) if direction == "up" else nn.AvgPool2d(2)
        self.in_layers = nn.Sequential(
            _norm(in_channels), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )
        width = 2 * out_channels if scale_shift else out_channels
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, width))
        self.out_layers = nn.Sequential(
            _norm(out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map (batch, in, H, W) and (batch, emb) to (batch, out, H', W')."""
        norm, activation, convolution = self.in_layers
        h = convolution(self.resample(activation(norm(x))))
        told = self.emb_layers(emb)[:, :, None, None]
        norm, activation, dropout, convolution = self.out_layers
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + told)
        out: Tensor = self.skip_connection(self.resample(x)) + convolution(dropout(activation(h)))
        return out


class AttentionBlock(nn.Module):
    """Self-attention of several heads over all pixels.

    Args:
        channels: Channels of input and output, a multiple of ``num_heads``.
        num_heads: Heads.
        new_order: ``qkv`` holds all queries, then all keys, then all values; else head after
            head, each with its own queries, keys and values.
    """

    def __init__(self, channels: int, num_heads: int, new_order: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.new_order = new_order
        self.norm = _norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, C, H, W) to the same shape."""
        batch, channels, *sides = x.shape
        sizes, heads = (channels // self.num_heads, math.prod(sides)), self.num_heads
        h: Tensor = self.qkv(self.norm(x.flatten(2)))
        if self.new_order:
            h = h.reshape(batch, 3, heads, *sizes)
        else:
            h = h.reshape(batch, heads, 3, *sizes).transpose(1, 2)
        q, k, v = h.transpose(-1, -2).unbind(1)  # each (batch, heads, pixels, channels)
        # Its scale 1 / sqrt(channels) is the published ch^(-1/4) on both q and k.
        h = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj_out(h.transpose(-1, -2).flatten(1, 2))
        return x + out.reshape(x.shape)


def _downsample(channels: int, with_conv: bool) -> nn.Module:
    """Halve both sides: a strided convolution, or the mean."""
    op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if with_conv else nn.AvgPool2d(2)
    return nn.Sequential(OrderedDict(op=op))


class Steps(nn.ModuleList):
    """Layers in a row, of which the residual blocks are also given the embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map (batch, C, H, W) and (batch, emb) to the last layer's output."""
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class ADMUNet(nn.Module):
    """Predict eps, and a variance if it was learned, from a noisy image.

    Args:
        image_size: Height and width; must halve evenly once per stage after the first.
        in_channels: Image channels.
        out_channels: Channels returned; twice ``in_channels`` where a variance is learned.
        model_channels: The unit of width; the embedding has four times as many channels.
        channel_mult: Channels of each stage in units of ``model_channels``; fractions are rounded
            down to whole channels, each a multiple of 32.
        num_res_blocks: Blocks of each stage on the way down; one more on the way up.
        attention_resolutions: Heights at which every block is followed by attention (published
            code calls these so on its command line; its network takes ``image_size`` over them).
        dropout: Probability in [0, 1).
        conv_resample: Convolve when changing resolution; without effect if ``resblock_updown``.
        num_heads: Attention heads; without effect if ``num_head_channels`` is given.
        num_head_channels: Channels of a head, in place of a number of heads.
        num_heads_upsample: Attention heads on the way up, if they differ.
        use_scale_shift_norm: The embedding scales and shifts instead of being added.
        resblock_updown: Change resolution within residual blocks.
        new_attention_order: Whether attention splits queries, keys and values before heads.
            improved-diffusion, and guided-diffusion unless told otherwise, split heads first.
        num_classes: Classes of labels; None for a network without.

    Raises:
        InvalidArgumentError: If sizes, widths and heads do not divide, or attention is asked for
            at a height that no stage has.
    """

    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 3,
        out_channels: int = 3,
        model_channels: int = 128,
        channel_mult: Sequence[float] = (1, 2, 2, 2),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (16, 8),
        dropout: float = 0.0,
        conv_resample: bool = True,
        num_heads: int = 4,
        num_head_channels: int | None = None,
        num_heads_upsample: int | None = None,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = False,
        new_attention_order: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.model_channels = model_channels
        self.widths = [int(model_channels * m) for m in channel_mult]
        sizes = [image_size >> i for i in range(len(self.widths))]
        _check_sizes(image_size, self.widths, sizes, attention_resolutions)
        self.attends = [size in attention_resolutions for size in sizes]
        self.emb_channels = 4 * model_channels
        self.block_options = (self.emb_channels, dropout, use_scale_shift_norm)
        self.conv_resample, self.resblock_updown = conv_resample, resblock_updown
        self.num_head_channels, self.new_attention_order = num_head_channels, new_attention_order
        self.num_classes = num_classes
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, self.emb_channels),
            nn.SiLU(),
            nn.Linear(self.emb_channels, self.emb_channels),
        )
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, self.emb_channels)
        down, up = stage_inputs(self.widths[0], self.widths, num_res_blocks)
        first = nn.Conv2d(in_channels, self.widths[0], 3, padding=1)
        self.input_blocks = nn.ModuleList([Steps([first])])
        for stage, inputs in enumerate(down):
            self.input_blocks += [self._steps(n, stage, num_heads) for n in inputs]
            if stage < len(down) - 1:
                self.input_blocks.append(Steps([self._change(self.widths[stage], "down")]))
        width = self.widths[-1]
        middle = [self._block(width, width), self._attention(width, num_heads)]
        self.middle_block = Steps([*middle, self._block(width, width)])
        num_heads = num_heads if num_heads_upsample is None else num_heads_upsample
        self.output_blocks = nn.ModuleList()
        for stage, inputs in reversed(list(enumerate(up))):
            blocks = [self._steps(n, stage, num_heads) for n in inputs]
            if stage > 0:
                blocks[-1].append(self._change(self.widths[stage], "up"))
            self.output_blocks += blocks
        self.out = nn.Sequential(
            _norm(self.widths[0]),
            nn.SiLU(),
            zeroed(nn.Conv2d(self.widths[0], out_channels, 3, padding=1)),
        )

    def _steps(self, in_channels: int, stage: int, num_heads: int) -> Steps:
        """A block of a stage, and its attention (or none)."""
        steps = Steps([self._block(in_channels, self.widths[stage])])
        if self.attends[stage]:
            steps.append(self._attention(self.widths[stage], num_heads))
        return steps

    def _block(self, in_channels: int, out_channels: int, direction: str = "") -> nn.Module:
        return ResBlock(in_channels, out_channels, *self.block_options, direction)

    def _change(self, channels: int, direction: str) -> nn.Module:
        """What doubles ("up") or halves ("down") both sides."""
        if self.resblock_updown:
            return self._block(channels, channels, direction)
        resampler = upsample if direction == "up" else _downsample
        return resampler(channels, self.conv_resample)

    def _attention(self, channels: int, num_heads: int) -> nn.Module:
        per_head = self.num_head_channels
        heads = num_heads if per_head is None else channels // max(per_head, 1)
        if heads < 1 or channels % heads or per_head not in (None, channels // heads):
            what = f"{num_heads} heads" if per_head is None else f"heads of {per_head} channels"
            raise InvalidArgumentError(
                f"a stage of {channels} channels does not divide into {what}: use a divisor"
            )
        return AttentionBlock(channels, heads, self.new_attention_order)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Predict eps.

        Args:
            x: Noisy images, shape (batch, in_channels, H, W).
            t: Zero-based real-valued steps, scaled as in training, shape (batch,), float32 or
                float64.
            y: Labels from 0, shape (batch,), int64, if the network has classes.

        Returns:
            Shape (batch, out_channels, H, W).

        Raises:
            InvalidArgumentError: If labels are missing, surplus or not one per image.
        """
        self._check_labels(x, y)
        embedding = step_embedding(t, self.model_channels, cosines_first=True)
        emb: Tensor = self.time_embed(embedding.to(next(self.parameters()).dtype))
        if y is not None:
            emb = emb + self.label_emb(y)
        h, skips = x, []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        out: Tensor = self.out(h)
        return out

    def _check_labels(self, x: Tensor, y: Tensor | None) -> None:
        if self.num_classes is None and y is not None:
            raise InvalidArgumentError("the network has no classes: leave the labels out")
        if self.num_classes is not None and (y is None or y.shape != x.shape[:1]):
            got = "none" if y is None else f"shape {tuple(y.shape)}"
            raise InvalidArgumentError(
                f"the network needs a label from 0 to {self.num_classes - 1} for each image,"
                f" shape ({x.shape[0]},), got {got}"
            )


def _check_sizes(
    image_size: int, widths: Sequence[int], sizes: Sequence[int], attention: Sequence[int]
) -> None:
    """Raise InvalidArgumentError unless sizes halve evenly, and attention stands at some."""
    if not widths or image_size < 1 or image_size % 2 ** (len(widths) - 1):
        raise InvalidArgumentError(
            f"image_size must halve evenly from stage to stage, got {image_size}"
            f" for {len(widths)} stages"
        )
    if any(width < 1 or width % _GROUPS for width in widths):
        raise InvalidArgumentError(
            f"the channels of every stage must be a multiple of {_GROUPS}, got {list(widths)}"
        )
    foreign = sorted(set(attention) - set(sizes))
    if foreign:
        raise InvalidArgumentError(
            f"attention_resolutions are heights of stages, {list(sizes)}, got {foreign}"
        )
