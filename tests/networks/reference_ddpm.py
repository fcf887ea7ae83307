"""The U-Net of DDPM's PyTorch port and of DDIM's code, reimplemented.

Written from the published layout, with no module: the stages are walked by the names of a state.
Sources: Ho et al. 2020, arXiv:2006.11239, appendix B; https://github.com/pesser/pytorch_diffusion
and https://github.com/ermongroup/ddim for the names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def ddpm_reference(state: State, x: Tensor, t: Tensor) -> Tensor:
    """Eps at real-valued zero-based steps.

    Args:
        state: Weights by their published names.
        x: Shape (batch, channels, H, W).
        t: Shape (batch,).
    """
    width = state["temb.dense.0.weight"].shape[1]
    rates = [10000 ** (-i / (width // 2 - 1)) for i in range(width // 2)]
    angles = torch.stack([t.double() * rate for rate in rates], dim=1)
    temb = torch.cat([angles.sin(), angles.cos()], dim=1).to(x)
    temb = _dense(state, "temb.dense.1", _swish(_dense(state, "temb.dense.0", temb)))
    stages = _count(state, "down")
    h = _conv(state, "conv_in", x)
    kept = [h]
    for i in range(stages):
        for j in range(_count(state, f"down.{i}.block")):
            h = _block(state, f"down.{i}", j, h, temb)
            kept.append(h)
        name = f"down.{i}.downsample.conv"
        if name + ".weight" in state:
            padded = torch.nn.functional.pad(h, (0, 1, 0, 1))
            h = torch.conv2d(padded, state[name + ".weight"], state[name + ".bias"], stride=2)
            kept.append(h)
    h = _residual(state, "mid.block_1", h, temb)
    h = _residual(state, "mid.block_2", _attention(state, "mid.attn_1", h), temb)
    for i in range(stages - 1, -1, -1):
        for j in range(_count(state, f"up.{i}.block")):
            h = _block(state, f"up.{i}", j, torch.cat([h, kept.pop()], dim=1), temb)
        if f"up.{i}.upsample.conv.weight" in state:
            doubled = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            h = _conv(state, f"up.{i}.upsample.conv", doubled)
    return _conv(state, "conv_out", _swish(_norm(state, "norm_out", h)))


def ddpm_shapes(base: int, multipliers: Sequence[int], attending: Sequence[int]) -> Shapes:
    """Names and shapes for images of 3 channels, 2 blocks a stage and convolved resampling."""
    shapes: Shapes = {}

    def layer(name: str, *shape: int) -> None:
        shapes[name + ".weight"], shapes[name + ".bias"] = shape, shape[:1]

    def residual(name: str, came: int, goes: int) -> None:
        layer(name + ".norm1", came)
        layer(name + ".conv1", goes, came, 3, 3)
        layer(name + ".temb_proj", goes, 4 * base)
        layer(name + ".norm2", goes)
        layer(name + ".conv2", goes, goes, 3, 3)
        if came != goes:
            layer(name + ".nin_shortcut", goes, came, 1, 1)

    def attention(name: str, width: int) -> None:
        layer(name + ".norm", width)
        for part in ("q", "k", "v", "proj_out"):
            layer(f"{name}.{part}", width, width, 1, 1)

    layer("temb.dense.0", 4 * base, base)
    layer("temb.dense.1", 4 * base, 4 * base)
    layer("conv_in", base, 3, 3, 3)
    widths, now, kept = [base * m for m in multipliers], base, [base]
    for i, width in enumerate(widths):
        for j in range(2):
            residual(f"down.{i}.block.{j}", now, width)
            now = width
            kept.append(now)
            if i in attending:
                attention(f"down.{i}.attn.{j}", width)
        if i + 1 < len(widths):
            layer(f"down.{i}.downsample.conv", width, width, 3, 3)
            kept.append(width)
    residual("mid.block_1", now, now)
    attention("mid.attn_1", now)
    residual("mid.block_2", now, now)
    for i in reversed(range(len(widths))):
        for j in range(3):
            residual(f"up.{i}.block.{j}", now + kept.pop(), widths[i])
            now = widths[i]
            if i in attending:
                attention(f"up.{i}.attn.{j}", now)
        if i > 0:
            layer(f"up.{i}.upsample.conv", now, now, 3, 3)
    layer("norm_out", base)
    layer("conv_out", 3, base, 3, 3)
    return shapes


def _count(state: State, name: str) -> int:
    depth = name.count(".") + 1
    found = {key.split(".")[depth] for key in state if key.startswith(name + ".")}
    return len(found)


def _block(state: State, stage: str, j: int, h: Tensor, temb: Tensor) -> Tensor:
    h = _residual(state, f"{stage}.block.{j}", h, temb)
    attended = f"{stage}.attn.{j}.norm.weight" in state
    return _attention(state, f"{stage}.attn.{j}", h) if attended else h


def _residual(state: State, name: str, x: Tensor, temb: Tensor) -> Tensor:
    h = _conv(state, f"{name}.conv1", _swish(_norm(state, f"{name}.norm1", x)))
    h = h + _dense(state, f"{name}.temb_proj", _swish(temb))[:, :, None, None]
    h = _conv(state, f"{name}.conv2", _swish(_norm(state, f"{name}.norm2", h)))
    if f"{name}.nin_shortcut.weight" in state:
        x = _conv(state, f"{name}.nin_shortcut", x)
    return x + h


def _attention(state: State, name: str, x: Tensor) -> Tensor:
    h = _norm(state, f"{name}.norm", x)
    q, k, v = (_conv(state, f"{name}.{part}", h).flatten(2) for part in "qkv")
    scores = torch.einsum("bci,bcj->bij", q, k) / math.sqrt(q.shape[1])
    attended = torch.einsum("bij,bcj->bci", torch.softmax(scores, dim=2), v)
    return x + _conv(state, f"{name}.proj_out", attended.reshape(x.shape))


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    grouped = x.reshape(x.shape[0], 32, -1)
    mean = grouped.mean(2, keepdim=True)
    spread = torch.sqrt(((grouped - mean) ** 2).mean(2, keepdim=True) + 1e-6)
    normed = ((grouped - mean) / spread).reshape(x.shape)
    weight, bias = state[name + ".weight"], state[name + ".bias"]
    return normed * weight[:, None, None] + bias[:, None, None]


def _conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[name + ".weight"]
    return torch.conv2d(x, weight, state[name + ".bias"], padding=weight.shape[-1] // 2)


def _dense(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[name + ".weight"].T + state[name + ".bias"]


def _swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))
