"""Built-in models ship tuned plans, which fit their weights and are used by default."""

import pytest
import torch

from fastdpm import load_model
from fastdpm.models import builtin_models
from fastdpm.models.choosing import usable_plan
from fastdpm.models.config import BUILTIN
from fastdpm.models.tuned import tuned_files

WITH_PLANS = [name for name in builtin_models() if tuned_files(BUILTIN / name)]


@pytest.mark.parametrize("name", WITH_PLANS)
def test_the_plans_are_for_the_model_and_their_quality_was_measured(name):
    model = load_model(name)
    assert model.config.recipe.num_steps in model.plans
    for num_steps, tuned in model.plans.items():
        assert usable_plan(tuned, model, model.config.recipe).num_rows == num_steps
        assert tuned.quality["n"] >= 30
        assert tuned.record["teacher"]["steps"] > num_steps


def test_digits_are_sampled_by_the_tuned_plan_unless_something_is_chosen():
    model = load_model("digits")
    assert "digits" in WITH_PLANS
    drawn = model.sample(2)
    tuned = model.plans[model.config.recipe.num_steps]
    torch.testing.assert_close(drawn, model.sample(2, plan=tuned.plan))
    untrained = model.sample(2, kappa=0.5)
    assert not torch.allclose(drawn, untrained)
    torch.testing.assert_close(untrained, model.sample(2, recipe=model.config.recipe, kappa=0.5))
