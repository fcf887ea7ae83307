"""Networks equal the published ones, with the published parameter names."""

import math
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdpm import InvalidArgumentError
from fastdpm.networks.diffwave import DiffWave, MelUpsample, ResidualBlock
from fastdpm.networks.embedding import step_embedding
from fastdpm.networks.unet import AttnBlock, UNet
from tests.messages import tells

UNET: dict[str, Any] = {
    "image_size": 8,
    "in_channels": 2,
    "out_channels": 2,
    "base_channels": 8,
    "channel_multipliers": [1, 2],
    "num_res_blocks": 1,
    "attention_resolutions": [4],
    "num_groups": 4,
}


def _random(network: torch.nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(0)
    weights = {n: torch.randn_like(w) * 0.3 for n, w in network.state_dict().items()}
    network.load_state_dict(weights)
    return weights


def test_the_embedding_is_sines_then_cosines_of_the_unrounded_step():
    t = torch.tensor([0.0, 12.75, 999.0], dtype=torch.float64)
    out = step_embedding(t, 6)
    for i, value in enumerate(t.tolist()):
        for k in range(3):
            angle = value * 10000 ** (-k / 2)
            assert float(out[i, k]) == pytest.approx(math.sin(angle), abs=1e-4)
            assert float(out[i, 3 + k]) == pytest.approx(math.cos(angle), abs=1e-4)


def test_the_unet_of_the_paper_has_its_parameters_and_names():
    network = UNet(base_channels=128, dropout=0.1)
    names = network.state_dict().keys()
    assert sum(p.numel() for p in network.parameters()) == 35_746_307  # Ho et al.: 35.7 M
    for name in (
        "temb.dense.1.weight",
        "down.1.block.0.nin_shortcut.weight",
        "down.1.attn.1.proj_out.bias",
        "down.2.downsample.conv.weight",
        "mid.attn_1.q.weight",
        "up.0.block.2.temb_proj.weight",
        "up.3.upsample.conv.bias",
        "norm_out.weight",
    ):
        assert name in names
    assert "down.3.downsample.conv.weight" not in names
    assert "up.0.upsample.conv.weight" not in names


def _unet_by_hand(w: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    """The published computation of UNET, written out block by block."""

    def conv(name: str, h: Tensor, **kw: int) -> Tensor:
        return F.conv2d(h, w[name + ".weight"], w[name + ".bias"], **kw)

    def dense(name: str, h: Tensor) -> Tensor:
        return h @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, 4, w[name + ".weight"], w[name + ".bias"], 1e-6)

    angles = t[:, None] * 10000 ** (-torch.arange(4) / 3)
    temb = dense("temb.dense.0", torch.cat([angles.sin(), angles.cos()], 1))
    temb = dense("temb.dense.1", F.silu(temb))

    def block(name: str, h: Tensor) -> Tensor:
        y = conv(f"{name}.conv1", F.silu(norm(f"{name}.norm1", h)), padding=1)
        y = y + dense(f"{name}.temb_proj", F.silu(temb))[:, :, None, None]
        y = conv(f"{name}.conv2", F.silu(norm(f"{name}.norm2", y)), padding=1)
        has_shortcut = f"{name}.nin_shortcut.weight" in w
        return y + (conv(f"{name}.nin_shortcut", h) if has_shortcut else h)

    def attention(name: str, h: Tensor) -> Tensor:
        y = norm(f"{name}.norm", h)
        q, k, v = (conv(f"{name}.{part}", y).flatten(2) for part in "qkv")
        weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(q.shape[1]), 2)
        y = torch.einsum("bcj,bij->bci", v, weights).reshape(h.shape)
        return h + conv(f"{name}.proj_out", y)

    skips = [conv("conv_in", x, padding=1)]
    skips.append(block("down.0.block.0", skips[-1]))
    skips.append(conv("down.0.downsample.conv", F.pad(skips[-1], (0, 1, 0, 1)), stride=2))
    skips.append(attention("down.1.attn.0", block("down.1.block.0", skips[-1])))
    h = block("mid.block_2", attention("mid.attn_1", block("mid.block_1", skips[-1])))
    for j in range(2):
        h = block(f"up.1.block.{j}", torch.cat([h, skips.pop()], 1))
        h = attention(f"up.1.attn.{j}", h)
    h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    h = conv("up.1.upsample.conv", h, padding=1)
    for j in range(2):
        h = block(f"up.0.block.{j}", torch.cat([h, skips.pop()], 1))
    return conv("conv_out", F.silu(norm("norm_out", h)), padding=1)


@pytest.mark.parametrize("t", [0.0, 37.0, 512.375])
def test_the_unet_computes_what_the_published_one_does(t):
    network = UNet(**UNET).eval()
    weights = _random(network)
    x = torch.randn(2, 2, 8, 8)
    steps = torch.full((2,), t)
    expected = _unet_by_hand(weights, x, steps)
    with torch.no_grad():
        torch.testing.assert_close(network(x, steps), expected, rtol=1e-4, atol=1e-4)


def test_pooling_replaces_convolutions_where_configured():
    network = UNet(**UNET | {"resample_with_conv": False})
    assert not any("sample" in name for name in network.state_dict())
    assert network(torch.randn(1, 2, 8, 8), torch.zeros(1)).shape == (1, 2, 8, 8)


def test_attention_starts_from_its_input():
    block = AttnBlock(8, 4)
    torch.nn.init.zeros_(block.proj_out.weight)
    assert block.proj_out.bias is not None
    torch.nn.init.zeros_(block.proj_out.bias)
    x = torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(block(x), x)


def test_diffwave_of_the_paper_has_its_names_and_size():
    network = DiffWave(res_channels=256, skip_channels=256, num_res_layers=36, dilation_cycle=12)
    names = network.state_dict().keys()
    for name in (
        "init_conv.0.conv.weight_g",
        "residual_layer.fc_t2.bias",
        "residual_layer.residual_blocks.35.dilated_conv_layer.conv.weight_v",
        "residual_layer.residual_blocks.0.res_conv.weight_g",
        "residual_layer.residual_blocks.0.fc_t.weight",
        "final_conv.0.conv.bias",
        "final_conv.2.conv.weight",
    ):
        assert name in names
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(24.1e6, rel=0.01)
    vocoder = DiffWave(mel_bands=80).state_dict()
    assert vocoder["residual_layer.residual_blocks.3.upsample_conv2d.1.weight_v"].shape == (
        1,
        1,
        3,
        32,
    )
    assert "residual_layer.residual_blocks.3.mel_conv.conv.weight_g" in vocoder


def _diffwave_by_hand(w: dict[str, Tensor], x: Tensor, t: Tensor, mel: Tensor | None) -> Tensor:
    """The published computation of a three-layer DiffWave, its in-place sum included."""

    def weight(name: str) -> Tensor:
        v = w[name + ".weight_v"]
        flat = v.reshape(v.shape[0], -1)
        scale = w[name + ".weight_g"].reshape(-1, 1) / flat.pow(2).sum(1, keepdim=True).sqrt()
        return (flat * scale).reshape(v.shape)

    def conv(name: str, h: Tensor, dilation: int = 1) -> Tensor:
        kernel = weight(name)
        pad = dilation * (kernel.shape[-1] - 1) // 2
        return F.conv1d(h, kernel, w[name + ".bias"], padding=pad, dilation=dilation)

    def dense(name: str, h: Tensor) -> Tensor:
        return h @ w[name + ".weight"].T + w[name + ".bias"]

    angles = t[:, None] * 10000 ** (-torch.arange(8) / 7)
    emb = torch.cat([angles.sin(), angles.cos()], 1)
    for layer in ("fc_t1", "fc_t2"):
        emb = dense(f"residual_layer.{layer}", emb)
        emb = emb * torch.sigmoid(emb)
    h, total = torch.relu(conv("init_conv.0.conv", x)), torch.zeros(())
    for n, dilation in enumerate([1, 2, 1]):
        name = f"residual_layer.residual_blocks.{n}"
        h = h + dense(f"{name}.fc_t", emb)[:, :, None]
        y = conv(f"{name}.dilated_conv_layer.conv", h, dilation)
        if mel is not None:
            m = mel[:, None]
            for k in range(2):
                up = f"{name}.upsample_conv2d.{k}"
                bias = w[up + ".bias"]
                m = F.conv_transpose2d(m, weight(up), bias, stride=(1, 4), padding=(1, 2))
                m = F.leaky_relu(m, 0.4)
            y = y + conv(f"{name}.mel_conv.conv", m[:, 0, :, : x.shape[-1]])
        half = y.shape[1] // 2
        y = torch.tanh(y[:, :half]) * torch.sigmoid(y[:, half:])
        total = total + conv(f"{name}.skip_conv", y)
        h = (h + conv(f"{name}.res_conv", y)) / math.sqrt(2)
    y = torch.relu(conv("final_conv.0.conv", total / math.sqrt(3)))
    return F.conv1d(y, w["final_conv.2.conv.weight"], w["final_conv.2.conv.bias"])


@pytest.mark.parametrize("t", [0.0, 49.0, 17.625])
@pytest.mark.parametrize("bands", [None, 6])
def test_diffwave_computes_what_the_published_one_does(t, bands):
    network = DiffWave(8, 10, 3, 2, (16, 12, 20), bands, (4, 4)).eval()
    weights = _random(network)
    x = torch.randn(2, 1, 100)
    mel = None if bands is None else torch.randn(2, bands, 7)
    expected = _diffwave_by_hand(weights, x, torch.full((2,), t), mel)
    with torch.no_grad():
        out = network(x, torch.full((2,), t), mel)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_a_fresh_network_starts_with_the_norm_in_g():
    network = DiffWave(8, 8, 1, 1)
    block = cast(ResidualBlock, network.residual_layer.residual_blocks[0])
    torch.testing.assert_close(block.res_conv.weight, block.res_conv.weight_v.detach())
    assert float(network(torch.randn(1, 1, 50), torch.zeros(1)).detach().abs().max()) == 0


def test_a_fresh_upsampler_interpolates_between_frames():
    ramp = torch.arange(6.0).repeat(1, 1, 3, 1)
    out = MelUpsample(4)(ramp)[0, 0, 1].detach()
    inside = torch.arange(2, 22)
    torch.testing.assert_close(out[inside], (inside + 0.5) / 4 - 0.5)


@pytest.mark.parametrize(
    ("bands", "mel", "values"),
    [
        (None, torch.zeros(1, 6, 7), ["condition"]),
        (6, None, ["6 bands"]),
        (6, torch.zeros(1, 5, 7), [100, "(batch, 6, 7", "(1, 5, 7)"]),
        (6, torch.zeros(1, 6, 6), [100, "(batch, 6, 7", "(1, 6, 6)"]),
    ],
)
def test_a_condition_that_does_not_fit_is_refused(bands, mel, values):
    network = DiffWave(8, 8, 1, 1, (16, 8, 8), bands, (4, 4))
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        network(torch.zeros(1, 1, 100), torch.zeros(1), mel)
