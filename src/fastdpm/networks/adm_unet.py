"""The U-Net of improved-diffusion and guided-diffusion, with their parameter names.

Published weights load without renaming: ``time_embed.0``, ``input_blocks.1.0.in_layers.0``,
``middle_block.1.qkv``, ``output_blocks.0.1.proj_out``, ``out.2`` and so on. A stage is one
resolution; stage 0 has the full resolution. ``input_blocks.0`` is the first convolution. The last
input block of every stage except the deepest halves height and width.
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
from fastdpm.networks.embedding import add_labels, make_label_embedding, step_embedding
from fastdpm.networks.patches import from_patches, patches_across, to_patches
from fastdpm.networks.unet import stage_inputs, upsample

_GROUPS = 32


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels, eps=1e-5)


def zeroed(layer: nn.Module) -> nn.Module:
    """Set the parameters of ``layer`` to zero, in place, and return it.

    With a zero output layer, a new residual block returns its input unchanged.
    """
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


class ResBlock(nn.Module):
    """A residual block of two convolutions, each after a group norm, with a step embedding.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        emb_channels: Channels of the embedding.
        dropout: Probability in [0, 1).
        scale_shift: If True, the embedding scales and shifts the output of the second norm.
            If False, it is added before the second norm.
        direction: "up" doubles and "down" halves height and width, between the first norm and
            the first convolution. An empty string keeps the resolution.
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
        """Map (batch, in, H, W) and an embedding (batch, emb) to (batch, out, H', W')."""
        norm, activation, convolution = self.in_layers
        h = convolution(self.resample(activation(norm(x))))
        projected = self.emb_layers(emb)[:, :, None, None]
        norm, activation, dropout, convolution = self.out_layers
        if self.scale_shift:
            scale, shift = projected.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + projected)
        out: Tensor = self.skip_connection(self.resample(x)) + convolution(dropout(activation(h)))
        return out


class AttentionBlock(nn.Module):
    """Multi-head self-attention over all pixels.

    Args:
        channels: Channels of input and output, a multiple of ``num_heads``.
        num_heads: Number of attention heads.
        new_order: If True, ``qkv`` holds the queries of all heads, then their keys, then their
            values. If False, it holds query, key and value of the first head, then of the next.
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
        # The published code scales q and k by ch^(-1/4) each: together 1 / sqrt(ch), as here.
        h = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj_out(h.transpose(-1, -2).flatten(1, 2))
        return x + out.reshape(x.shape)


def _downsample(channels: int, with_conv: bool) -> nn.Module:
    """Halve height and width by a strided convolution or by average pooling."""
    op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if with_conv else nn.AvgPool2d(2)
    return nn.Sequential(OrderedDict(op=op))


class Steps(nn.ModuleList):
    """A sequence of layers that passes the step embedding to its residual blocks."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map (batch, C, H, W) and an embedding (batch, emb) to the last layer's output."""
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class ADMUNet(nn.Module):
    """The ADM U-Net: predicts eps, and a variance if one was learned, from a noisy image.

    Args:
        image_size: Height and width in pixels, divisible by ``patch_size`` *
            2^(number of stages - 1).
        in_channels: Number of image channels.
        out_channels: Number of output channels: ``in_channels``, or twice that with a learned
            variance.
        model_channels: Base width. The step embedding has four times this size.
        channel_mult: Width of each stage as a multiple of ``model_channels``, from the full
            resolution down. Products are rounded down to whole channels and must be multiples
            of 32.
        num_res_blocks: Residual blocks per stage in the encoder. The decoder has one more.
        attention_resolutions: Heights, in patches, of the stages that have attention. This is the
            meaning on the command line of the published code; the published network class takes
            ``image_size`` divided by these heights.
        dropout: Probability in [0, 1).
        conv_resample: Resample with a convolution. Ignored if ``resblock_updown`` is True.
        num_heads: Number of attention heads. Ignored if ``num_head_channels`` is set.
        num_head_channels: Channels per attention head, instead of ``num_heads``.
        num_heads_upsample: Number of attention heads in the decoder; ``num_heads`` if None.
        use_scale_shift_norm: The embedding scales and shifts activations instead of being added.
        resblock_updown: Resample inside residual blocks.
        new_attention_order: See ``new_order`` of :class:`AttentionBlock`. It is False in
            improved-diffusion, and by default in guided-diffusion.
        num_classes: Number of classes; None for a network without class labels.
        patch_size: Height and width, in pixels, of the squares that the network sees as one
            position, with the values of all their pixels as channels.
        null_class: Whether there is one more label, ``num_classes``, that stands for "no class".

    Raises:
        InvalidArgumentError: If ``image_size``, the widths or the heads do not divide evenly, or
            ``attention_resolutions`` holds a height that no stage has.

    Source: Dhariwal & Nichol 2021, arXiv:2105.05233.
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
        patch_size: int = 1,
        null_class: bool = False,
    ) -> None:
        super().__init__()
        self.model_channels = model_channels
        self.widths = [int(model_channels * m) for m in channel_mult]
        height = patches_across(image_size, patch_size)
        self.patch_size = image_size // height
        patch_values = self.patch_size**2
        sizes = [height >> i for i in range(len(self.widths))]
        _check_sizes(height, self.widths, sizes, attention_resolutions)
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
        self.label_emb = make_label_embedding(num_classes, null_class, self.emb_channels)
        down, up = stage_inputs(self.widths[0], self.widths, num_res_blocks)
        first = nn.Conv2d(in_channels * patch_values, self.widths[0], 3, padding=1)
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
            zeroed(nn.Conv2d(self.widths[0], out_channels * patch_values, 3, padding=1)),
        )

    def _steps(self, in_channels: int, stage: int, num_heads: int) -> Steps:
        """A residual block of a stage, followed by attention if the stage has it."""
        steps = Steps([self._block(in_channels, self.widths[stage])])
        if self.attends[stage]:
            steps.append(self._attention(self.widths[stage], num_heads))
        return steps

    def _block(self, in_channels: int, out_channels: int, direction: str = "") -> nn.Module:
        return ResBlock(in_channels, out_channels, *self.block_options, direction)

    def _change(self, channels: int, direction: str) -> nn.Module:
        """The layer that doubles ("up") or halves ("down") height and width."""
        if self.resblock_updown:
            return self._block(channels, channels, direction)
        resampler = upsample if direction == "up" else _downsample
        return resampler(channels, self.conv_resample)

    def _attention(self, channels: int, num_heads: int) -> nn.Module:
        per_head = self.num_head_channels
        heads = num_heads if per_head is None else channels // max(per_head, 1)
        if heads < 1 or channels % heads or per_head not in (None, channels // heads):
            name = "num_heads" if per_head is None else "num_head_channels"
            raise InvalidArgumentError(
                f"`{name}` must divide the {channels} channels of a stage, got"
                f" {num_heads if per_head is None else per_head}"
            )
        return AttentionBlock(channels, heads, self.new_attention_order)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the prediction: eps, v or clean data, whichever the network was trained for.

        Args:
            x: Noisy images, shape (batch, in_channels, H, W).
            t: Real-valued zero-based steps, scaled as in training, shape (batch,), float32 or
                float64.
            y: Class labels from 0, shape (batch,), int64. Required if and only if the network
                has classes.

        Returns:
            Shape (batch, out_channels, H, W).

        Raises:
            InvalidArgumentError: If the labels are missing, not expected, or not one per image.
        """
        embedding = step_embedding(t, self.model_channels, cosines_first=True)
        emb: Tensor = self.time_embed(embedding.to(next(self.parameters()).dtype))
        emb = add_labels(emb, y, self.label_emb)
        h, skips = to_patches(x, self.patch_size), []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return from_patches(self.out(h), self.patch_size)


def _check_sizes(
    height: int, widths: Sequence[int], sizes: Sequence[int], attention: Sequence[int]
) -> None:
    """Check that sizes halve evenly, widths suit the norms and attention names known sizes."""
    if not widths or height < 1 or height % 2 ** (len(widths) - 1):
        raise InvalidArgumentError(
            f"`image_size` / `patch_size` must be divisible by 2^(stages - 1), got {height} with"
            f" {len(widths)} stages"
        )
    if any(width < 1 or width % _GROUPS for width in widths):
        raise InvalidArgumentError(
            f"the number of channels of every stage must be a multiple of {_GROUPS}, got"
            f" {list(widths)}"
        )
    unknown = sorted(set(attention) - set(sizes))
    if unknown:
        raise InvalidArgumentError(
            f"`attention_resolutions` must be among the heights of the stages, {list(sizes)},"
            f" got {unknown}"
        )
