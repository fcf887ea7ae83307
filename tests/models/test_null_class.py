"""The null class of a published checkpoint, which its preset says."""

import pytest
import torch

from fastdpm import ModelError, load_model
from fastdpm.networks.adm_unet import ADMUNet
from tests.messages import tells
from tests.networks.adm_networks import SMALL

PRESET = """
name = "tiny-adm"
[network]
type = "adm-unet"
num_heads = 4
{null}
[schedule]
type = "linear"
num_train_steps = 50
[data]
modality = "image"
shape = [3, 16, 16]
classes = {classes}
"""


@pytest.fixture
def opened(tmp_path):
    """Open a checkpoint whose embedding has five rows."""
    torch.manual_seed(0)
    network = ADMUNet(**SMALL | {"num_classes": 5})
    torch.save(network.state_dict(), tmp_path / "weights.pt")

    def opened(classes: int, null: str):
        preset = tmp_path / "preset.toml"
        preset.write_text(PRESET.format(classes=classes, null=null))
        return load_model(preset, checkpoint=tmp_path / "weights.pt")

    return opened


def test_the_last_row_of_a_published_embedding_can_be_the_null_class(opened):
    model = opened(4, "null_class = true")
    assert (model.null_class, model.conditions.tolist()) == (4, [0, 1, 2, 3])
    assert model.network.label_emb.num_embeddings == 5
    assert opened(5, "").null_class is None


def test_a_null_class_that_is_counted_is_refused(opened):
    with pytest.raises((ModelError, ValueError), match=tells("4", "5", "classes")):
        opened(5, "null_class = true")
