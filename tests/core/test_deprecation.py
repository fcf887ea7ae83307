"""Arguments and attributes that were renamed still work by their old names, with a warning."""

import numpy as np
import pytest
import torch

from fastdpm import Plan
from fastdpm.sampling import Guidance, ImplicitOptions
from tests.messages import tells


def _plan(**more):
    a, b, c = np.array([[2.0]]), np.array([[-1.0]]), np.zeros(1)
    return Plan(np.array([0.5, 1.0]), np.array([10.0]), a, b, c, **more)


def _guidance(**scale):
    return Guidance(lambda x, t, c: x, torch.ones(2), torch.zeros(2), **scale)


@pytest.mark.parametrize(
    ("build", "old", "new", "value"),
    [
        (_plan, "told", "network_level", [0.7]),
        (_guidance, "scale", "guidance_scale", 3.0),
        (ImplicitOptions, "most", "max_evaluations", 7),
    ],
)
def test_an_argument_and_its_attribute_work_by_their_old_name(build, old, new, value):
    with pytest.warns(DeprecationWarning, match=tells(f"`{old}`", f"`{new}`")) as warned:
        made = build(**{old: value})
    assert warned[0].filename == __file__
    assert np.array_equal(getattr(made, new), value)
    with pytest.warns(DeprecationWarning, match=tells(f"`{old}`", f"`{new}`")) as warned:
        assert np.array_equal(getattr(made, old), value)
    assert warned[0].filename == __file__
    with pytest.raises(TypeError):
        build(**{old: value, new: value})


def test_methods_and_properties_work_by_their_old_name(image_model):
    with pytest.warns(DeprecationWarning, match=tells("`network_level`")):
        assert np.array_equal(getattr(_plan(), "asked"), [0.5])  # noqa: B009
    with pytest.warns(DeprecationWarning, match=tells("`noise_predictor`")):
        predictor = image_model.denoiser(clip="x0")
    assert type(predictor) is type(image_model.noise_predictor(clip="x0"))
