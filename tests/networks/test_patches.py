"""A network on patches is the network on an image whose channels are the pixels of a patch."""

import pytest
import torch
import torch.nn.functional as F

from fastdpm import InvalidArgumentError
from fastdpm.networks.adm_unet import ADMUNet
from fastdpm.networks.unet import UNet
from tests.messages import tells

SMALL = {
    UNet: {"base_channels": 8, "channel_multipliers": [1, 2], "num_groups": 4},
    ADMUNet: {"model_channels": 32, "channel_mult": [1, 2]},
}


@pytest.mark.parametrize("kind", SMALL)
def test_a_patched_network_sees_the_pixels_of_a_patch_as_channels(kind):
    shared = SMALL[kind] | {"num_res_blocks": 1, "attention_resolutions": [4]}
    patched = kind(image_size=16, in_channels=3, out_channels=6, patch_size=2, **shared)
    plain = kind(image_size=8, in_channels=12, out_channels=24, **shared)
    weights = {n: torch.randn_like(w) * 0.3 for n, w in plain.state_dict().items()}
    for network in (patched, plain):
        network.load_state_dict(weights)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 700.5])
    out = plain(F.pixel_unshuffle(x, 2), t)
    torch.testing.assert_close(patched(x, t), F.pixel_shuffle(out, 2), rtol=0, atol=0)
    assert patched(x, t).shape == (2, 6, 16, 16)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("patch_size", [3, 0, -1])
def test_patches_must_fill_the_image(kind, patch_size):
    with pytest.raises(InvalidArgumentError, match=tells("patch_size", 16, patch_size)):
        kind(image_size=16, patch_size=patch_size)
