"""Wrong arguments of public calls end in the library's own error, which names them."""

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch

import fastdpm
from fastdpm import (
    FastDPMError,
    FastDPMScheduler,
    InvalidArgumentError,
    Model,
    VarianceSchedule,
    ddim_rev,
    evaluation,
)
from fastdpm.core.errors import shown
from tests.bad_calls import Net, calls, replaced
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear(20, 1e-3, 0.3)
# Without their types, because these tests pass values of other types.
Plan: Any = fastdpm.Plan
Recipe: Any = fastdpm.Recipe
levels_step: Any = fastdpm.levels_step
MeasureOptions: Any = evaluation.MeasureOptions
choose_methods: Any = evaluation.choose_methods


ARGUMENT = re.compile(r"`[a-z_][a-z0-9_]*`")
# Their messages show which argument is meant: "level 1 is ...", "no model 'x'", "not a plan".
EVIDENT = {
    *(("from_config", "config"), ("from_json", "text"), ("write_latents", "path")),
    *(("NoiseLevels", "level"), ("levels_custom level", "level"), ("levels_custom", "t")),
    *(("set_timesteps", "timesteps"), ("compare", "methods"), ("compare", "model")),
    *(("evaluate", name) for name in ("features", "inception")),
    *(("load_model", name) for name in ("name_or_path", "device", "checkpoint", "variant")),
    *(("read_samples", name) for name in ("path", "n", "resize")),
    *(("convert", name) for name in ("source", "preset", "layout", "variant", "name", "half")),
    *(("convert", name) for name in ("overwrite", "resume", "out", "recipes", "recipe")),
    *((name, "recipe") for name in ("sample labels", "sample plan", "Model.sample")),
    *(("read_recipes", "path"), ("compare", "recipes"), ("FastDPMScheduler", "plan")),
    *(("measured", name) for name in ("options", "against")),  # refused for the plan itself
    *(("recommend", name) for name in ("model", "methods", "recipes")),
    *(("prepare_recommendation", name) for name in ("model", "methods", "recipes")),
}


ROOMS = ("core", "data", "evaluation", "inverse", "models", "sampling", "tuning")


@pytest.mark.filterwarnings("ignore")
def test_every_wrong_argument_is_refused_in_one_line_or_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw, named, unnamed = [], 0, set()
    for call in calls(tmp_path):
        for name, label, arguments in replaced(call):
            where = f"{call.name}({name}={label})"
            try:
                call.function(**arguments)
            except FastDPMError as error:
                raw += [f"{where}: {error}"] if "\n" in str(error) else []
                received = shown(arguments[name]) in str(error)
                named += f"`{name}` must be" in str(error) and received
                if isinstance(error, InvalidArgumentError) and not ARGUMENT.search(str(error)):
                    unnamed.add((call.name, name))
            except Exception as error:
                raw.append(f"{where}: {type(error).__name__}: {error}")
    assert raw == []
    assert named > 7000
    assert unnamed <= EVIDENT


def test_the_walk_reaches_every_public_name(tmp_path):
    reached = {call.function for call in calls(tmp_path)}
    names = {getattr(function, "__qualname__", "") for function in reached}
    results = {"Model", "Evaluation", "Comparison", "CostEstimate", "Reconstruction", "Bound"}
    results |= {"Recommendation", "TunedPlan", "Tuning"}
    results |= {"DiffusionChain", "Latents", "SamplingState", "NoisePredictor", "builtin_models"}
    methods = {"VarianceSchedule"}
    for room in ("", *(f".{name}" for name in ROOMS)):
        module = __import__(f"fastdpm{room}", fromlist=["__all__"])
        public = {n for n in module.__all__ if not n.endswith("Error") and n[0] != "_"}
        assert public - names - results - methods == set(), room


SPECIFIC = {
    "5.5 steps": (lambda: levels_step(SCHEDULE, 5.5), ("`num_steps`", "5.5", "whole number")),
    "text": (lambda: levels_step(SCHEDULE, "3"), ("`num_steps`", "'3'", "whole number")),
    "falling betas": (lambda: VarianceSchedule.from_betas([0.2, 0.1]), ("`betas`", "0.1", "0.2")),
    "seed": (lambda: _model().sample(1, seed=None), ("`seed`", "None", "whole number")),
    "labels": (
        lambda: _model(3).sample(2, num_steps=2, class_labels=[0, 1, 2]),
        ("`class_labels`", "2", "3"),
    ),
    "plan and steps": (
        lambda: _model().sample(1, plan=ddim_rev(levels_step(SCHEDULE, 3)), num_steps=20),
        ("`num_steps`", "`plan`"),
    ),
    "no kappas": (lambda: choose_methods("paper", []), ("`kappas`",)),
    "methods": (lambda: choose_methods(3), ("`names`", "3")),
    "device": (lambda: fastdpm.load_model("digits", "nope"), ("`device`", "'nope'")),
    "too many steps": (lambda: VarianceSchedule.linear(10**12), ("`num_train_steps`",)),
    "plan of a file": (
        lambda: Plan.from_json(ddim_rev(levels_step(SCHEDULE, 3)).to_json().replace('"c"', '"d"')),
        ("unknown", "d"),
    ),
    "a plan for methods": (
        lambda: fastdpm.compare(_model(), methods=[_plan()]),
        ("`methods`", "DDIM-rev", "var-linear-k0", "evaluate"),
    ),
    "recipes for methods": (
        lambda: fastdpm.compare(_model(), methods=[Recipe()]),
        ("`methods`", "list", "Recipe"),
    ),
    "level of the network": (lambda: _with_network_level(1.5), ("`network_level`", "1.5")),
}


def _model(classes=None):
    return Model.wrap(Net().eval(), SCHEDULE, (1, 8, 8), classes=classes)


def _plan():
    return ddim_rev(levels_step(SCHEDULE, 3))


def _with_network_level(level):
    plan = ddim_rev(levels_step(SCHEDULE, 1))
    tables = {name: getattr(plan, name) for name in ("level", "t", "a", "b", "c")}
    return Plan(**tables, network_level=[level])


@pytest.mark.parametrize(("call", "said"), SPECIFIC.values(), ids=SPECIFIC)
def test_a_message_says_what_was_passed_and_what_is_expected(call, said):
    with pytest.raises(InvalidArgumentError, match=tells(*said)):
        call()


def test_numbers_of_numpy_and_pytorch_are_numbers():
    assert levels_step(SCHEDULE, 10.0).num_steps == 10
    recipe = Recipe(num_steps=np.int64(3), kappa=torch.tensor(0.5), at_steps=np.array([3.0]))
    assert (recipe.num_steps, recipe.kappa, recipe.at_steps) == (3, 0.5, (3.0,))
    assert all(type(value) in (int, float) for value in (recipe.num_steps, recipe.kappa))


def test_iterators_and_folders_are_taken(tmp_path):
    assert choose_methods(iter(["paper"]), iter([0.5])) == choose_methods("paper", [0.5])
    assert MeasureOptions(cache=str(tmp_path)).cache.root == tmp_path


def test_a_model_is_copied_and_pickled():
    model, wanted = _model(), _model().sample(2, num_steps=3)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert torch.equal(other.sample(2, num_steps=3), wanted)


@pytest.mark.parametrize(
    "choice",
    [
        {"num_steps": np.int64(10)},
        {"kappa": torch.tensor(0.5)},
        {"at_steps": torch.tensor([900.0, 1.0])},
        {"trained_betas": torch.linspace(1e-4, 0.02, 100)},
    ],
)
def test_a_scheduler_keeps_plain_numbers_that_it_can_save(choice, tmp_path):
    scheduler = FastDPMScheduler(**choice)
    scheduler.save_pretrained(tmp_path)
    (name,) = choice
    loaded = FastDPMScheduler.from_pretrained(tmp_path).config[name]
    assert loaded == scheduler.config[name]
    np.testing.assert_allclose(loaded, np.asarray(choice[name]))


def test_python_reports_names_itself():
    with pytest.raises(TypeError, match="steps"):
        levels_step(SCHEDULE, steps=3)
    with pytest.raises(TypeError, match="num_steps"):
        levels_step(SCHEDULE)
