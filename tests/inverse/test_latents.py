"""Data comes back from its latents, by each method to its tolerance, and from no others."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fastdpm import Recipe, load_model
from fastdpm.core.choices import CHOICES
from fastdpm.core.errors import DataError, InvalidArgumentError, SamplingError
from fastdpm.core.inverse import ENCODINGS
from fastdpm.data.inputs import read_samples
from fastdpm.data.mel import log_mel
from fastdpm.inverse.encoding import decode, encode
from fastdpm.inverse.interpolation import arc_weights, between, interpolate
from fastdpm.inverse.latents_file import (
    check_usable,
    read_latents,
    select,
    unsolved,
    write_latents,
)
from fastdpm.sampling.implicit import ImplicitOptions
from tests.conftest import IMAGE, MEL, write_model
from tests.messages import tells

LEVELS = [(choice.levels, choice.spacing) for choice in CHOICES.values()]


@pytest.fixture(scope="module")
def digits():
    return load_model("digits")


@pytest.fixture(scope="module")
def held_out(digits):
    return read_samples(Path("sklearn:digits-test"), digits.config.data, n=24)[1]


@pytest.fixture
def images():
    torch.manual_seed(2)
    return torch.rand(3, 1, 8, 8) * 2 - 1


def _levels(model, num_steps=10, levels="step", spacing="quadratic"):
    return Recipe(num_steps=num_steps, levels=levels, spacing=spacing).choose_levels(
        model.schedule
    )


def _errors(x, back):
    return ((back - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).tolist()


@pytest.mark.parametrize("num_steps", [10, 50])
@pytest.mark.parametrize(("levels", "spacing"), LEVELS)
def test_the_invertible_plan_brings_real_digits_back(digits, held_out, num_steps, levels, spacing):
    latents = encode(digits, held_out, _levels(digits, num_steps, levels, spacing))
    assert max(_errors(held_out, decode(digits, latents))) < 1e-4
    assert latents.past is not None
    assert latents.x.dtype == latents.past.dtype == torch.float32


def test_the_second_order_is_nearer_than_the_first_and_latents_are_near_noise(digits, held_out):
    levels = _levels(digits, 50)
    errors, deviations = {}, {}
    for method in ("first", "second"):
        latents = encode(digits, held_out, levels, method)
        errors[method] = max(_errors(held_out, decode(digits, latents)))
        deviations[method] = float(latents.noise.std())
    assert errors["second"] < errors["first"] / 2 < 0.5
    assert all(0.8 < value < 1.2 for value in deviations.values())


@pytest.mark.parametrize("method", ENCODINGS)
def test_a_latent_does_not_depend_on_its_batch(image_model, images, method):
    levels = _levels(image_model, 20)
    latents = encode(image_model, images, levels, method)
    one = encode(image_model, images[1:2], levels, method)
    by_one = encode(image_model, images, levels, method, batch_size=1)
    for other in (one, select(by_one, torch.tensor([1]))):
        assert _errors(latents.x[1:2], other.x)[0] < 1e-3
    if method in ("implicit", "invertible"):
        assert max(_errors(images, decode(image_model, latents))) < 1e-4
    assert latents.evaluations.shape == latents.row.shape == latents.residual.shape == (3,)


def test_a_vocoder_encodes_sounds_of_any_length_with_their_conditions(vocoder):
    torch.manual_seed(0)
    sound = torch.rand(2, 1, 20 * 16) * 0.5
    levels = _levels(vocoder, 10, "step", "linear")
    latents = encode(vocoder, sound, levels)
    assert latents.condition is not None
    assert latents.condition.shape == (2, 8, 20)
    assert torch.equal(latents.condition, log_mel(sound[:, 0], MEL))
    assert max(_errors(sound, decode(vocoder, latents))) < 1e-4


def test_data_of_a_vocoder_has_one_channel(vocoder):
    with pytest.raises(
        InvalidArgumentError, match=tells("tiny-vocoder", "(n, 1, 320)", "(2, 2, 320)")
    ):
        encode(vocoder, torch.zeros(2, 2, 320), _levels(vocoder))


@pytest.mark.parametrize("method", ["implicit", "invertible"])
def test_levels_that_end_above_clean_data_take_it_as_it_is_there(digits, held_out, method):
    levels = _levels(digits, 10)[:-1]
    latents = encode(digits, held_out[:4], levels, method)
    assert latents.plan.level[-1] == levels.level[-1] < 1
    assert (latents.row == -1).all()
    assert max(_errors(held_out[:4], decode(digits, latents))) < 1e-4


@pytest.mark.parametrize(
    ("x", "values"),
    [
        (torch.zeros(3, 1, 8, 7), ["(n, 1, 8, 8)", "(3, 1, 8, 7)"]),
        (torch.zeros(1, 8, 8), ["(n, 1, 8, 8)", "(1, 8, 8)"]),
        (torch.full((1, 1, 8, 8), 128.0), ["[-1, 1]", 128]),
        (torch.full((1, 1, 8, 8), torch.nan), ["`x`"]),
    ],
)
def test_data_that_is_none_of_the_model_is_refused(image_model, x, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        encode(image_model, x, _levels(image_model))


@pytest.mark.parametrize("method", ["first", "invertible"])
def test_latents_come_back_from_their_file_to_the_last_bit(image_model, images, method, tmp_path):
    latents = encode(image_model, images, _levels(image_model), method)
    gain = torch.tensor([0.5, 1.0, 1 / 3], dtype=torch.float64)
    write_latents(tmp_path / "a.safetensors", latents, inputs=["a", "b", "c"], gain=gain)
    read = read_latents(tmp_path / "a.safetensors")
    assert torch.equal(read.gain, gain)
    assert read.latents.model_name == "tiny-image"
    assert read.inputs == ("a", "b", "c")
    found = read.latents
    assert (found.method, found.model) == (latents.method, latents.model)
    assert found.plan.fingerprint == latents.plan.fingerprint
    assert torch.equal(found.x, latents.x)
    assert (found.past is None) == (method == "first")
    assert torch.equal(found.row, latents.row)
    assert torch.equal(found.evaluations, latents.evaluations)
    assert torch.equal(decode(image_model, found), decode(image_model, latents))


def test_a_vocoders_conditions_are_in_the_file(vocoder, tmp_path):
    sound = torch.zeros(1, 1, 320) + 0.1
    latents = encode(vocoder, sound, _levels(vocoder, 10, "step", "linear"))
    write_latents(tmp_path / "a.safetensors", latents)
    found = read_latents(tmp_path / "a.safetensors").latents
    assert found.condition is not None
    assert latents.condition is not None
    assert torch.equal(found.condition, latents.condition)


@pytest.fixture
def changed(image_model, images, tmp_path):
    """Write latents with some of the file's contents replaced, and read them back."""
    latents = encode(image_model, images, _levels(image_model))

    def changed(head=None, **tensors):
        path = tmp_path / "a.safetensors"
        write_latents(path, latents)
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()} | tensors  # noqa: SIM118
            metadata = file.metadata() | (head(file.metadata()) if head else {})
        metadata.pop("digest")  # as in files of older versions
        kept = {n: t for n, t in found.items() if t is not None}
        save_file(kept, path, {k: v for k, v in metadata.items() if v is not None})
        return read_latents(path)

    return changed


def test_values_that_changed_in_the_file_are_noticed(image_model, images, tmp_path):
    path = tmp_path / "a.safetensors"
    write_latents(path, encode(image_model, images, _levels(image_model)))
    whole = path.read_bytes()
    body = 8 + int.from_bytes(whole[:8], "little")
    for at in (body, (body + len(whole)) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=tells("a.safetensors", "digest")):
            read_latents(path)


def test_latents_do_not_decode_by_another_plan(changed, image_model):
    other = encode(image_model, torch.zeros(1, 1, 8, 8), _levels(image_model, 12)).plan

    def edited(head):
        plan = json.loads(head["plan"])
        plan["t"][0] += 1e-3
        return {"plan": json.dumps(plan)}

    with pytest.raises(DataError, match=tells("a.safetensors", "fingerprint")):
        changed(edited)
    with pytest.raises(DataError, match=tells("a.safetensors", other.fingerprint)):
        changed(lambda _: {"plan": other.to_json()})


@pytest.mark.parametrize(
    ("head", "tensors", "values"),
    [
        ({"format": "other"}, {}, ["format", "other", "fastdpm-latents"]),
        ({"version": "2"}, {}, ["version", 2, 1]),
        ({"plan": None}, {}, ["plan"]),
        ({"plan": "{"}, {}, ["the plan", "a plan"]),
        ({"method": "magic"}, {}, ["magic", "two-step plan from a pair"]),
        ({"method": "first"}, {}, ["first", "two-step plan from a pair"]),
        ({}, {"gain": torch.ones(2, dtype=torch.float64)}, ["gain", "torch.float64", "(2,)"]),
        ({"inputs": '["a"]'}, {}, [3]),
        ({}, {"past": None}, [2, 1]),
        ({}, {"row": None}, ["row"]),
        ({}, {"row": torch.zeros(2)}, ["row", "(2,)"]),
        ({}, {"past": torch.zeros(3, 1, 8, 7)}, ["past", "(3, 1, 8, 7)", "(3, 1, 8, 8)"]),
        ({}, {"x": torch.full((3, 1, 8, 8), torch.nan)}, []),
        ({}, {"x": torch.zeros(3, 1, 8, 8, dtype=torch.float16)}, ["x", "torch.float16"]),
    ],
)
def test_damaged_files_of_latents_are_refused(changed, head, tensors, values):
    with pytest.raises(DataError, match=tells("a.safetensors", *values)):
        changed(lambda _: head, **tensors)


def test_edited_latents_do_not_decode(changed, image_model):
    cut = {"x": torch.zeros(3, 1, 8, 4), "past": torch.zeros(3, 1, 8, 4)}
    with pytest.raises(InvalidArgumentError, match=tells("tiny-image", "(1, 8, 8)", "(1, 8, 4)")):
        decode(image_model, changed(**cut).latents)
    with pytest.raises(InvalidArgumentError, match=tells("tiny-image", "condition")):
        decode(image_model, changed(condition=torch.zeros(3)).latents)


@pytest.mark.parametrize("method", ["invertible", "implicit"])
def test_too_few_rows_are_refused(image_model, images, method):
    levels = _levels(image_model, 2)[:-1]
    if method == "implicit":
        assert encode(image_model, images, levels, method).plan.num_rows == 1
        return
    with pytest.raises(InvalidArgumentError, match=tells(2, 1)):
        encode(image_model, images, levels, method)


def test_files_that_are_no_latents_are_refused(tmp_path):
    with pytest.raises(DataError, match=tells("none.safetensors")):
        read_latents(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("words")
    with pytest.raises(DataError, match=tells("text.safetensors")):
        read_latents(tmp_path / "text.safetensors")


def test_latents_of_another_model_are_refused(image_model, images, tmp_path):
    latents = encode(image_model, images, _levels(image_model))
    others = (
        replace(IMAGE, schedule={**IMAGE.schedule, "beta_end": 0.11}),
        replace(IMAGE, time_scale=0.5),
        replace(IMAGE, prediction="sample"),
    )
    for i, other in enumerate(others):
        model = load_model(write_model(tmp_path / str(i), other))
        with pytest.raises(InvalidArgumentError, match=tells("tiny-image")):
            decode(model, latents)


def test_samples_that_did_not_converge_are_reported_and_only_the_others_kept(image_model, images):
    solver = ImplicitOptions(tolerance=1e-12, max_evaluations=1)
    levels = _levels(image_model, 4)
    lost = encode(image_model, images, levels, "implicit", solver=solver)
    assert not lost.usable.any()
    assert re.search(tells("b", "row 3 of 4"), unsolved(lost, "abc")[1])
    with pytest.raises(SamplingError, match=tells("3 of 3", "a", "b", "c", "row 3")):
        check_usable(lost, "abc")
    with pytest.raises(DataError):
        write_latents("never", lost)
    best = encode(image_model, images, levels, "implicit", solver=replace(solver, keep_best=True))
    assert best.usable.all()
    assert len(unsolved(best, "abc")) == 3
    check_usable(best, "abc")


def test_an_arc_keeps_the_norm_and_its_ends():
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 1000)
    fraction = torch.linspace(0, 1, 11, dtype=torch.float64)
    weights = arc_weights(a, b, fraction)
    assert weights[0].tolist() == [1, 0]
    assert weights[-1].tolist() == [0, 1]
    norms = (weights[:, :1] * a.flatten() + weights[:, 1:] * b.flatten()).norm(dim=1)
    assert norms.min() > 0.98 * min(a.norm(), b.norm())
    unit = torch.stack([a.flatten() / a.norm(), b.flatten() / b.norm()]).double()
    along = weights_of(unit, fraction)
    torch.testing.assert_close(along.norm(dim=1), torch.ones(11, dtype=torch.float64))
    angles = torch.arccos((along[:-1] * along[1:]).sum(1))
    torch.testing.assert_close(angles, angles[:1].expand(10), rtol=1e-4, atol=0)
    torch.testing.assert_close(arc_weights(a, a, fraction)[3], torch.tensor([0.7, 0.3]).double())


def weights_of(pair, fraction):
    return arc_weights(pair[0], pair[1], fraction) @ pair


@pytest.mark.parametrize(
    ("method", "max_error"), [("invertible", 1e-4), ("implicit", 1e-4), ("first", 0.5)]
)
def test_the_ends_of_an_interpolation_are_the_samples(digits, held_out, method, max_error):
    a, b = held_out[3], held_out[5]
    way = interpolate(digits, a, b, _levels(digits, 50), n=5, method=method)
    assert way.shape == (5, *a.shape)
    assert max(_errors(torch.stack([a, b]), way[[0, -1]])) < max_error
    assert (way[1:] - way[:-1]).flatten(1).norm(dim=1).min() > 0.5


def test_what_lies_between_two_digits_is_as_near_to_digits_as_they_are(digits, held_out):
    """Weights of their own for both states of a pair leave no sample behind."""
    train = read_samples(Path("sklearn:digits"), digits.config.data)[1].flatten(1)

    def distance(x):
        return float(torch.cdist(x.flatten(1), train).min(1).values.mean())

    a, b = held_out[:12], held_out[12:]
    levels = Recipe(num_steps=50, levels="var", spacing="quadratic").choose_levels(digits.schedule)
    middles = torch.cat(
        [interpolate(digits, *pair, levels, n=3)[1:2] for pair in zip(a, b, strict=True)]
    )
    assert distance(middles) < 1.25 * distance(held_out)
    assert distance((a + b) / 2) > 1.25 * distance(held_out)


def test_a_pair_of_states_is_combined_with_one_set_of_weights(image_model, images):
    ends = encode(image_model, images[:2], _levels(image_model))
    fraction = torch.tensor([0.0, 0.3, 1.0])
    found = between(ends, fraction)
    assert ends.past is not None
    assert found.past is not None
    weights = arc_weights(ends.past[0], ends.past[1], fraction.double()).float()
    torch.testing.assert_close(found.x, torch.tensordot(weights, ends.x, dims=1))
    torch.testing.assert_close(found.past, torch.tensordot(weights, ends.past, dims=1))
    assert found.model_name == ends.model_name == "tiny-image"
    assert (found.model, found.plan, found.method) == (ends.model, ends.plan, ends.method)
    assert torch.equal(found.x[[0, 2]], ends.x)
    assert torch.equal(found.past[[0, 2]], ends.past)


def test_conditions_are_interpolated_and_different_labels_refused(vocoder, image_model, images):
    torch.manual_seed(0)
    sound = torch.rand(2, 1, 320) * 0.5
    levels = _levels(vocoder, 10, "step", "linear")
    mel = torch.rand(2, 8, 20)
    found = between(encode(vocoder, sound, levels, condition=mel), torch.tensor([0.0, 0.5]))
    assert found.condition is not None
    torch.testing.assert_close(found.condition, torch.stack([mel[0], mel.mean(0)]))
    ends = encode(image_model, images[:2], _levels(image_model))
    with pytest.raises(InvalidArgumentError, match=tells(3, 5)):
        between(replace(ends, condition=torch.tensor([3, 5])), torch.tensor([0.5]))
    same = between(replace(ends, condition=torch.tensor([3, 3])), torch.tensor([0.5, 1.0]))
    assert same.condition is not None
    assert same.condition.tolist() == [3, 3]


def test_bad_interpolations_are_refused(image_model, images):
    levels = _levels(image_model)
    with pytest.raises(InvalidArgumentError, match=tells("n", 2, 1)):
        interpolate(image_model, images[0], images[1], levels, n=1)
    with pytest.raises(InvalidArgumentError, match=tells("(1, 8, 8)", "(1, 4, 8)")):
        interpolate(image_model, images[0], images[1, :, :4], levels)
    ends = encode(image_model, images, levels)
    with pytest.raises(InvalidArgumentError, match=tells(3)):
        between(ends, torch.tensor([0.5]))
    with pytest.raises(InvalidArgumentError, match=tells("`fraction`", "[0, 1]", "1.5000")):
        between(select(ends, torch.tensor([0, 1])), torch.tensor([1.5]))
