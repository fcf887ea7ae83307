"""What data is encoded, edited and judged for."""

import pytest
import torch

from fastdpm import InvalidArgumentError, Model, VarianceSchedule
from fastdpm.data.mel import log_mel
from fastdpm.inverse.batches import own_condition
from tests.messages import tells


class Classes(torch.nn.Module):
    def forward(self, x, t, labels):
        return x


@pytest.fixture
def classes() -> Model:
    return Model.wrap(Classes().eval(), VarianceSchedule.linear(50), (1, 8, 8), classes=4)


def test_a_sound_is_encoded_for_its_own_mel_unless_another_is_stated(vocoder):
    sounds, mel = 0.5 * torch.randn(2, 1, 512).clamp(-1, 1), vocoder.config.data.mel
    assert mel is not None
    own = own_condition(vocoder, sounds, None)
    assert own is not None
    torch.testing.assert_close(own, log_mel(sounds[:, 0], mel))
    stated = own_condition(vocoder, sounds, torch.rand(8, 32))
    assert stated is not None
    assert stated.shape == (1, 8, 32)
    with pytest.raises(InvalidArgumentError, match=tells(496, 512, "`condition`")):
        own_condition(vocoder, sounds, own[..., :31])


def test_data_of_classes_must_be_said_of_which_it_is(classes, image_model):
    x = torch.zeros(3, 1, 8, 8)
    assert own_condition(image_model, x, None) is None
    with pytest.raises(InvalidArgumentError, match=tells("custom", "`class_labels`")):
        own_condition(classes, x, None)
    with pytest.raises(InvalidArgumentError, match=tells("[0, 3]", 4)):
        own_condition(classes, x, torch.tensor([4]))
    for chosen in (
        own_condition(classes, x, torch.tensor([1])),
        own_condition(classes, x, None, [1]),
    ):
        assert chosen is not None
        assert chosen.tolist() == [1]
