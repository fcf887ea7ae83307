"""The DDPM U-Net, with the parameter names of its PyTorch port and of the DDIM code.

Published weights load without renaming: ``temb.dense.0``, ``conv_in``, ``down.0.block.0.norm1``,
``mid.attn_1.proj_out``, ``up.0.upsample.conv``, ``norm_out``, ``conv_out`` and so on.
Source: Ho et al. 2020, arXiv:2006.11239, appendix B.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdpm.networks.embedding import (
    activated,
    add_labels,
    make_label_embedding,
    step_embedding,
)
from fastdpm.networks.patches import from_patches, patches_across, to_patches


def _norm(groups: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """A residual block of two convolutions, each after a group norm, with a step embedding.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        temb_channels: Size of the step embedding.
        dropout: Probability in [0, 1).
        groups: Groups of the norms; divides both channel counts.
    """

    def __init__(
        self, in_channels: int, out_channels: int, temb_channels: int, dropout: float, groups: int
    ) -> None:
        super().__init__()
        self.norm1 = _norm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.temb_proj = nn.Linear(temb_channels, out_channels)
        self.norm2 = _norm(groups, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.nin_shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        """Map (batch, in, H, W) and an activated embedding (batch, temb) to (batch, out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.temb_proj(temb)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        out: Tensor = self.nin_shortcut(x) + h
        return out


class AttnBlock(nn.Module):
    """Single-head self-attention over all pixels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(groups, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, C, H, W) to the same shape."""
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        out: Tensor = self.proj_out(h)
        return x + out


def _downsample(channels: int, with_conv: bool) -> nn.Module:
    """Halve height and width: a strided convolution, padded right and bottom, or mean pooling."""
    if not with_conv:
        return nn.AvgPool2d(2)
    conv = nn.Conv2d(channels, channels, 3, stride=2)
    return nn.Sequential(OrderedDict(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=conv))


def upsample(channels: int, with_conv: bool) -> nn.Module:
    """Double height and width by repeating pixels, with a convolution after it if requested."""
    conv = nn.Conv2d(channels, channels, 3, padding=1) if with_conv else nn.Identity()
    return nn.Sequential(OrderedDict(repeat=nn.Upsample(scale_factor=2.0), conv=conv))


class Stage(nn.Module):
    """One resolution: residual blocks, optional attention and an optional resampling layer."""

    downsample: nn.Module
    upsample: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleList()
        self.attn = nn.ModuleList()

    def run_block(self, index: int, x: Tensor, temb: Tensor) -> Tensor:
        """Apply block ``index``, from 0, and its attention if the stage has it."""
        h: Tensor = self.block[index](x, temb)
        if len(self.attn):
            h = self.attn[index](h)
        return h


def stage_inputs(
    first: int, widths: Sequence[int], num_res_blocks: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Input channels of every residual block of a U-Net, for the encoder and the decoder.

    Every block and every downsampling layer of the encoder stores a skip connection. Every block
    of the decoder concatenates the one that was stored last.

    Args:
        first: Channels after the first convolution.
        widths: Channels of each stage, from the full resolution down.
        num_res_blocks: Residual blocks per stage in the encoder; the decoder has one more.

    Returns:
        One list per stage for the encoder, and likewise for the decoder, both from the full
        resolution down.
    """
    down, skips = [], [first]
    for before, width in pairwise([first, *widths]):
        down.append([before, *[width] * num_res_blocks][:num_res_blocks])
        skips += [width] * (num_res_blocks + 1)
    skips.pop()  # the lowest resolution has no downsampling layer
    up = []
    for below, width in pairwise([widths[-1], *reversed(widths)]):
        states = [below, *[width] * num_res_blocks]
        up.append([channels + skips.pop() for channels in states])
    return down, up[::-1]


class UNet(nn.Module):
    """The DDPM U-Net: predicts eps from a noisy image.

    Args:
        image_size: Height and width in pixels, divisible by ``patch_size`` *
            2^(number of stages - 1).
        in_channels: Number of image channels.
        out_channels: Number of output channels: ``in_channels``, or twice that with a learned
            variance.
        base_channels: Base width, a multiple of ``num_groups``.
        channel_multipliers: Width of each stage as a multiple of ``base_channels``, from the full
            resolution down.
        num_res_blocks: Residual blocks per stage in the encoder. The decoder has one more.
        attention_resolutions: Heights, in patches, of the stages that have attention.
        dropout: Probability in [0, 1).
        resample_with_conv: Resample with a convolution.
        num_groups: Groups of every group norm.
        patch_size: Height and width, in pixels, of the squares that the network sees as one
            position, with the values of all their pixels as channels.
        num_classes: Number of classes; None for a network without class labels.
        null_class: Whether there is one more label, ``num_classes``, that stands for "no class".

    Raises:
        InvalidArgumentError: If ``patch_size`` does not divide ``image_size``, or there is a null
            class, but no other class.

    Source: Ho et al. 2020, arXiv:2006.11239, appendix B.
    """

    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 2, 2),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (16,),
        dropout: float = 0.0,
        resample_with_conv: bool = True,
        num_groups: int = 32,
        patch_size: int = 1,
        num_classes: int | None = None,
        null_class: bool = False,
    ) -> None:
        super().__init__()
        self.base_channels = base_channels
        self.widths = [base_channels * m for m in channel_multipliers]
        height = patches_across(image_size, patch_size)
        self.patch_size = image_size // height
        patch_values = self.patch_size**2
        self.sizes = [height >> i for i in range(len(self.widths))]
        self.attention_resolutions = tuple(attention_resolutions)
        self.resample_with_conv = resample_with_conv
        self.block_options = (4 * base_channels, dropout, num_groups)
        width = self.block_options[0]
        dense = {"0": nn.Linear(base_channels, width), "1": nn.Linear(width, width)}
        self.temb = nn.Sequential(OrderedDict(dense=activated(dense, nn.SiLU())))
        self.num_classes = num_classes
        self.label_emb = make_label_embedding(num_classes, null_class, width)
        self.conv_in = nn.Conv2d(in_channels * patch_values, base_channels, 3, padding=1)
        down, up = stage_inputs(base_channels, self.widths, num_res_blocks)
        self.down = nn.ModuleList(self._stage(inputs, i) for i, inputs in enumerate(down))
        width = self.widths[-1]
        self.mid = nn.ModuleDict({"block_1": ResnetBlock(width, width, *self.block_options)})
        self.mid["attn_1"] = AttnBlock(width, num_groups)
        self.mid["block_2"] = ResnetBlock(width, width, *self.block_options)
        stages = [self._stage(inputs, i, up=True) for i, inputs in reversed(list(enumerate(up)))]
        self.up = nn.ModuleList(reversed(stages))
        self.norm_out = _norm(num_groups, self.widths[0])
        self.conv_out = nn.Conv2d(self.widths[0], out_channels * patch_values, 3, padding=1)

    def _stage(self, inputs: list[int], i: int, *, up: bool = False) -> Stage:
        """Stage ``i``: a block for each of ``inputs``, its channels, and a resampling layer."""
        stage = Stage()
        for channels in inputs:
            stage.block.append(ResnetBlock(channels, self.widths[i], *self.block_options))
            if self.sizes[i] in self.attention_resolutions:
                stage.attn.append(AttnBlock(self.widths[i], self.block_options[-1]))
        if up and i > 0:
            stage.upsample = upsample(self.widths[i], self.resample_with_conv)
        elif not up and i < len(self.widths) - 1:
            stage.downsample = _downsample(self.widths[i], self.resample_with_conv)
        return stage

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the prediction: eps, v or clean data, whichever the network was trained for.

        Args:
            x: Noisy images, shape (batch, in_channels, H, W).
            t: Real-valued zero-based steps, shape (batch,), float32 or float64.
            y: Class labels from 0, shape (batch,), int64. Required if and only if the network
                has classes.

        Returns:
            Shape (batch, out_channels, H, W).

        Raises:
            InvalidArgumentError: If the labels are missing, not expected, or not one per image.
        """
        embedding = step_embedding(t, self.base_channels)
        temb = self.temb(embedding.to(self.conv_in.weight.dtype))
        temb = add_labels(temb, y, self.label_emb)
        h: Tensor = self.conv_in(to_patches(x, self.patch_size))
        skips = [h]
        down, up = cast("list[Stage]", self.down), cast("list[Stage]", self.up)
        for i, stage in enumerate(down):
            for j in range(len(stage.block)):
                h = stage.run_block(j, h, temb)
                skips.append(h)
            if i < len(down) - 1:
                h = stage.downsample(h)
                skips.append(h)
        h = self.mid["attn_1"](self.mid["block_1"](h, temb))
        h = self.mid["block_2"](h, temb)
        for i in reversed(range(len(up))):
            for j in range(len(up[i].block)):
                h = up[i].run_block(j, torch.cat([h, skips.pop()], dim=1), temb)
            if i > 0:
                h = up[i].upsample(h)
        return from_patches(self.conv_out(F.silu(self.norm_out(h))), self.patch_size)
