"""Classes by name, the null class, and guidance of a model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdpm import (
    DataError,
    InvalidArgumentError,
    Model,
    Recipe,
    SamplingError,
    VarianceSchedule,
    load_model,
    run,
)
from fastdpm.core import GuidanceScale
from fastdpm.data.spec import DataSpec
from fastdpm.evaluation.reconstruction import reconstruct
from fastdpm.inverse import decode, edit, encode, interpolate, read_latents, write_latents
from fastdpm.inverse.likelihood import bits_per_dimension, grey_levels_of
from fastdpm.models.identity import config_digest
from tests.conftest import CLASSES, write_model
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear(50, 1e-4, 0.1)


class Counted(nn.Module):
    """Pulls towards its condition, and records how many states each call has."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))
        self.batches: list[int] = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.batches.append(len(x))
        shape = (-1, *[1] * (x.ndim - 1))
        pull = condition.float().flatten(1).mean(1) if condition.ndim > 1 else condition.float()
        return self.weight * x - 0.1 * pull.reshape(shape)


@pytest.fixture
def embedded() -> Model:
    """A model of conditions (2, 3), with an unconditional one."""
    conditions = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    return Model.wrap(
        Counted().eval(), SCHEDULE, (1, 4, 4), conditions=conditions, unconditional=torch.zeros(3)
    )


def test_classes_are_named_and_the_null_class_is_none_of_them(class_model):
    assert class_model.conditions.tolist() == [0, 1, 2]
    assert class_model.unconditional.tolist() == [3]
    by_number = class_model.sample(3, condition=torch.tensor([2, 0, 3]))
    assert torch.equal(class_model.sample(3, class_labels=["horse", 0, "none"]), by_number)
    assert torch.equal(class_model.sample(3, class_labels=["Horse", "0", "NONE"]), by_number)
    horse, none = (class_model.sample(3, class_labels=name) for name in ("horse", "none"))
    torch.testing.assert_close(horse[0], by_number[0], rtol=0, atol=1e-4)
    assert (none[0] - horse[0]).abs().max() > 0.1


@pytest.mark.parametrize("three", [2, [2], (2,), np.array(2), np.array([2]), torch.tensor(2)])
def test_a_condition_can_be_a_number_a_list_an_array_or_a_tensor(class_model, three):
    expected = class_model.sample(2, class_labels="horse")
    assert torch.equal(class_model.sample(2, condition=three), expected)
    assert torch.equal(class_model.sample(2, class_labels=three), expected)


def test_other_conditions_can_be_lists_too(embedded):
    one = [4.0, 5.0, 6.0]
    expected = embedded.sample(2, condition=embedded.conditions[1:])
    for condition in (one, [one], np.array(one), torch.tensor(one).double()):
        assert torch.equal(embedded.sample(2, condition=condition), expected)
    with pytest.raises(InvalidArgumentError, match=tells("condition", "(m, 3)", "(2,)")):
        embedded.sample(2, condition=[1.0, 2.0])
    with pytest.raises(InvalidArgumentError, match=tells("condition")):
        embedded.sample(2, condition="horse")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("horze", ["horze", "cat", "dog", "horse", "none", "[0, 2]"]),
        (4, [4, "cat", "dog", "horse", "none", "[0, 2]"]),
        (3, [3, "cat", "dog", "horse", "none", "[0, 2]"]),  # the label of the null class
        ("3", [3, "cat", "dog", "horse", "none"]),
        (["none", 3], [3, "none"]),
        (np.array([0, 3]), [3, "none"]),
        (torch.tensor([3]), [3, "none"]),
        ([0, "-1"], [-1, "cat", "dog", "horse"]),
        ([0.5], ["[0.5]"]),
    ],
)
def test_a_class_that_does_not_exist_is_refused_with_those_that_do(class_model, labels, expected):
    with pytest.raises(InvalidArgumentError, match=tells(*expected)) as error:
        class_model.sample(2, class_labels=labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("null", [3, [3], np.array([1, 3]), ["3"]])
def test_the_null_class_has_no_number_that_users_pass(class_model, null):
    with pytest.raises(InvalidArgumentError, match=tells("3", "none")):
        class_model.sample(2, condition=null)


@pytest.mark.parametrize(
    "names",
    [
        ("a", "b"),
        ("a", "b", "a"),
        ("a", "b", "none"),
        ("a", "b", "1"),
        ("a", "b", "c,d"),
        ("a", "", "c"),
    ],
)
def test_names_that_could_be_mistaken_are_refused(names):
    with pytest.raises(InvalidArgumentError, match=tells("class_names")):
        DataSpec("image", (1, 8, 8), classes=3, class_names=names)


def test_names_change_no_digest():
    without = replace(CLASSES, data=replace(CLASSES.data, class_names=None))
    assert config_digest(without) == config_digest(CLASSES)
    assert "class_names" not in without.to_dict()["data"]


def test_guidance_1_is_none_and_0_is_the_null_class_to_the_last_bit(class_model):
    plain, none = (class_model.sample(3, class_labels=label) for label in ("dog", "none"))
    for scale in (1, 1.0, [1, 1, 1, 1]):
        found = class_model.sample(3, class_labels="dog", guidance_scale=scale)
        assert torch.equal(found, plain)
    assert torch.equal(class_model.sample(3, class_labels="dog", guidance_scale=0), none)
    assert not torch.equal(class_model.sample(3, class_labels="dog", guidance_scale=2), plain)


def test_a_guided_sample_does_not_depend_on_its_batch(class_model):
    choices = {"class_labels": ["dog", 0, "none"], "guidance_scale": 1.5, "kappa": 1.0}
    together = class_model.sample(4, **choices)
    alone = class_model.sample(4, batch_size=1, **choices)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("choices", "batches"),
    [
        ({}, [2, 2, 2, 2]),
        ({"guidance_scale": 1}, [2, 2, 2, 2]),
        ({"guidance_scale": 0}, [2, 2, 2, 2]),
        ({"guidance_scale": 3}, [4, 4, 4, 4]),
        ({"guidance_scale": [1, 3, 0, 2]}, [2, 4, 2, 4]),
        ({"guidance_scale": 3, "guidance_interval": (0.4, 0.6)}, [2, 4, 2, 2]),
    ],
)
def test_both_halves_are_one_batch(embedded, choices, batches):
    plan = Recipe(at_levels=(0.3, 0.5, 0.7, 0.9)).compile(embedded.schedule)
    embedded.sample(2, plan=plan, **choices)
    assert embedded.network.batches == batches


def test_clipping_comes_after_guidance(embedded):
    x = torch.full((1, 1, 4, 4), 0.4)
    condition = embedded.conditions[:1]
    clipped = embedded.noise_predictor(condition, clip="x0", guidance_scale=30.0)
    level = 0.8
    eps = clipped(x, torch.tensor([3.0]), level)
    implied = (x - (1 - level**2) ** 0.5 * eps) / level
    torch.testing.assert_close(implied, torch.ones_like(implied))


def test_everything_that_uses_the_network_is_guided(class_model):
    x = class_model.sample(2, class_labels="cat")
    levels = class_model.config.recipe.replace(num_steps=4).choose_levels(class_model.schedule)
    grey, _ = grey_levels_of(class_model.config.data)

    def found(scale):
        chosen = {"class_labels": "cat", "guidance_scale": scale}
        return [
            encode(class_model, x, levels, "invertible", **chosen).x,
            encode(class_model, x, levels, "implicit", **chosen).x,
            interpolate(class_model, x[0], x[1], levels, 3, "first", **chosen),
            edit(class_model, x, strength=0.5, **chosen),
            bits_per_dimension(class_model, x, levels, grey, rounding=0.5, **chosen).terms,
        ]

    for none, same, other in zip(found(None), found(1.0), found(2.0), strict=True):
        assert torch.equal(none, same)
        assert not torch.allclose(none, other, equal_nan=True)


@pytest.mark.parametrize(
    ("method", "encoding", "decoding"), [("invertible", 8, 6), ("first", 8, 8), ("second", 16, 8)]
)
def test_latents_are_decoded_with_the_guidance_that_encoded_them(
    class_model, tmp_path, method, encoding, decoding
):
    x = class_model.sample(2, class_labels="cat")
    levels = class_model.config.recipe.replace(num_steps=4).choose_levels(class_model.schedule)
    guidance = GuidanceScale((2.0, 2.5, 1.5, 3.0))
    latents = encode(class_model, x, levels, method, class_labels="cat", guidance_scale=guidance)
    write_latents(tmp_path / "l", latents)
    again = read_latents(tmp_path / "l").latents
    assert again.guidance == guidance
    assert (again.evaluations.tolist(), again.decoding_evaluations) == ([encoding] * 2, decoding)
    if method == "invertible":
        torch.testing.assert_close(decode(class_model, again), x, rtol=0, atol=1e-4)
    else:
        unguided = replace(again, guidance=GuidanceScale())
        with pytest.raises(InvalidArgumentError, match=tells("tiny-classes")):
            decode(class_model, unguided)
    counted = reconstruct(
        class_model, x, levels, method, class_labels="cat", guidance_scale=guidance
    )
    assert counted.total_evaluations == encoding + decoding


@pytest.mark.parametrize("method", ["invertible", "first"])
def test_latents_are_decoded_with_another_class_and_guidance(class_model, method):
    x = class_model.sample(2, class_labels="cat")
    levels = class_model.config.recipe.replace(num_steps=4).choose_levels(class_model.schedule)
    latents = encode(class_model, x, levels, method, class_labels="cat")
    same = decode(class_model, latents)
    assert torch.equal(decode(class_model, latents, class_labels=[0, "cat"]), same)
    assert torch.equal(decode(class_model, latents, guidance_scale=1), same)
    # Only the network's condition changes: it is the plan that a network for that class runs.
    network = class_model.noise_predictor(torch.tensor([1, 3]), guidance_scale=2.0)
    past = () if latents.past is None else (latents.past.double(),)
    expected = run(latents.plan, network, latents.x.double(), past=past).float()
    found = decode(class_model, latents, class_labels=["dog", "none"], guidance_scale=2)
    torch.testing.assert_close(found, expected)
    assert (found - same).flatten(1).abs().amax(dim=1).min() > 0.01
    assert latents.condition is not None
    assert latents.condition.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"class_labels": 3}, ["3", "cat, dog, horse", "none"]),
        ({"class_labels": [0, 1, 2]}, ["class_labels", 2, 3]),
        ({"class_labels": 0, "condition": 0}, ["class_labels", "condition"]),
        ({"guidance_scale": [2, 2]}, ["guidance_scale", 4, 2]),
    ],
)
def test_what_latents_cannot_be_decoded_with_is_refused(class_model, choices, expected):
    x = class_model.sample(2, class_labels="cat")
    levels = class_model.config.recipe.choose_levels(class_model.schedule)
    latents = encode(class_model, x, levels, "first", class_labels="cat")
    with pytest.raises(InvalidArgumentError, match=tells(*expected)):
        decode(class_model, latents, **choices)


def test_a_solver_counts_two_evaluations_an_iteration(class_model):
    x = class_model.sample(1, class_labels="cat")
    levels = class_model.config.recipe.choose_levels(class_model.schedule)[2:]
    calls: list[int] = []
    hook = class_model.network.register_forward_hook(lambda m, inputs, out: calls.append(len(out)))
    found = encode(class_model, x, levels, "implicit", class_labels="cat", guidance_scale=1.2)
    hook.remove()
    assert found.evaluations.tolist() == [sum(calls)]
    assert set(calls) == {2}


def test_the_recommended_recipe_can_be_guided(tmp_path):
    recipe = replace(CLASSES.recipe, guidance_scale=2.0, guidance_rescale=0.5)
    model = load_model(write_model(tmp_path / "m", replace(CLASSES, recipe=recipe)))
    assert model.config.recipe == recipe
    guided = model.sample(1, class_labels=1)
    stated = model.sample(1, class_labels=1, guidance_scale=2, guidance_rescale=0.5)
    assert torch.equal(guided, stated)
    plain = model.sample(1, class_labels=1, guidance_scale=1)
    assert not torch.equal(guided, plain)
    none = model.sample(1, class_labels="none")  # there is nothing to guide away from
    zero = model.sample(1, class_labels=1, guidance_scale=0, guidance_rescale=0)
    assert torch.equal(none, zero)
    levels = recipe.choose_levels(model.schedule)
    encoded, unguided, stated = (
        encode(model, plain, levels, class_labels=1, guidance_scale=scale).x
        for scale in (None, 1, recipe.guidance)
    )
    assert torch.equal(encoded, unguided)  # without guidance, rows are easier to invert
    assert not torch.equal(encoded, stated)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda s: Model.wrap(s, SCHEDULE, (1, 4, 4), classes=3),
            ["null class", "guidance_scale"],
        ),
        (
            lambda s: Model.wrap(s, SCHEDULE, (1, 4, 4), conditions=torch.ones(2, 3)),
            ["unconditional", "guidance_scale"],
        ),
        (lambda s: Model.wrap(s, SCHEDULE, (1, 4, 4)), ["guidance_scale"]),
    ],
)
def test_a_model_without_a_null_condition_cannot_be_guided(make, expected):
    model = make(Counted().eval())
    with pytest.raises(InvalidArgumentError, match=tells("custom", *expected)) as error:
        model.sample(1, guidance_scale=2)
    assert "\n" not in str(error.value)
    with pytest.raises(InvalidArgumentError, match=tells("custom", *expected)):
        model.noise_predictor(model.conditions, guidance_scale=2.0)


def test_none_is_no_class_of_a_model_without_a_null_class():
    model = Model.wrap(Counted().eval(), SCHEDULE, (1, 4, 4), classes=3)
    with pytest.raises(InvalidArgumentError, match=tells("none", "null class", "[0, 2]")):
        model.sample(1, class_labels="none")


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"null_class": True}, ["null_class", "classes"]),
        ({"unconditional": torch.zeros(3)}, ["unconditional", "conditions"]),
        (
            {"conditions": torch.ones(2, 3), "unconditional": torch.zeros(4)},
            ["unconditional", "(3,)", "(4,)"],
        ),
        ({"classes": 3, "null_class": True, "unconditional": torch.tensor(0)}, ["null_class"]),
        ({"classes": 3, "class_names": ["a"]}, ["class_names", 3, "a"]),
    ],
)
def test_a_null_condition_that_does_not_fit_is_refused(choices, expected):
    with pytest.raises(InvalidArgumentError, match=tells(*expected)):
        Model.wrap(Counted().eval(), SCHEDULE, (1, 4, 4), **choices)


def test_damaged_guidance_in_latents_is_refused(class_model, tmp_path):
    from safetensors.torch import load_file, save_file

    from fastdpm.data.tensors import read_with_head

    x = class_model.sample(1, class_labels="cat")
    levels = class_model.config.recipe.choose_levels(class_model.schedule)
    latents = encode(class_model, x, levels, class_labels="cat", guidance_scale=2.0)
    write_latents(tmp_path / "l", latents)
    head, _ = read_with_head(tmp_path / "l", DataError)
    for text in ("{", "[2]", '{"scale": [1, 2]}', '{"speed": 2}'):
        path = tmp_path / "damaged"
        save_file(load_file(tmp_path / "l"), path, head | {"guidance": text})
        with pytest.raises(DataError, match=tells("damaged")):
            read_latents(path)


class Labeled(nn.Module):
    """Fails without labels, as published networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None, "must specify y"
        labels: Tensor = self.embedding(y)
        return x + labels[..., None, None]


@pytest.mark.parametrize("kind", [Labeled, Counted])
def test_a_network_that_fails_without_labels_is_said_to_need_classes(kind):
    network, argument = kind().eval(), "y" if kind is Labeled else "condition"
    with pytest.raises(SamplingError, match=tells(argument, "`classes`", "Model.wrap")):
        Model.wrap(network, SCHEDULE, (1, 4, 4)).sample(1, num_steps=2)
    assert (
        Model.wrap(network, SCHEDULE, (1, 4, 4), classes=3).sample(1, num_steps=2).isfinite().all()
    )
