"""A way to encode is one row of one table, and what latents are is said by the latents."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from fastdpm import Recipe
from fastdpm.core import inverse
from fastdpm.core.inverse import EncodingMethod, first_order_inverse
from fastdpm.core.reverse import ddim_rev
from fastdpm.evaluation.reconstruction import recipe_grid, reconstruct
from fastdpm.inverse.encoding import decode, encode
from fastdpm.inverse.interpolation import CLOSE, error_of_ends
from fastdpm.inverse.latents_file import read_latents, write_latents
from fastdpm.output.figures_inverse import write_psnr
from fastdpm.sampling.implicit import ImplicitOptions


@pytest.fixture
def toy(monkeypatch) -> str:
    """The name of a toy row, which is the first order under another name."""
    row = EncodingMethod("toy", first_order_inverse, ddim_rev, "a toy")
    table = MappingProxyType({**inverse.ENCODINGS, row.name: row})
    monkeypatch.setattr(inverse, "ENCODINGS", table)
    return row.name


@pytest.fixture
def images():
    torch.manual_seed(2)
    return torch.rand(3, 1, 8, 8) * 2 - 1


@pytest.fixture
def levels(image_model):
    return Recipe(num_steps=6).choose_levels(image_model.schedule)


def test_a_row_encodes_decodes_is_kept_and_drawn(image_model, images, levels, toy, tmp_path):
    latents, wanted = (encode(image_model, images, levels, name) for name in (toy, "first"))
    assert torch.equal(latents.x, wanted.x)
    assert latents.method == toy
    write_latents(tmp_path / "a.safetensors", latents)
    back = read_latents(tmp_path / "a.safetensors").latents
    assert torch.equal(decode(image_model, back), decode(image_model, wanted))
    found = reconstruct(image_model, images, levels, toy)
    write_psnr(
        tmp_path / "a.png", {"STEP linear": {toy: {6: found.psnr}, "first": {6: found.psnr}}}
    )
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("row", inverse.ENCODINGS.values(), ids=lambda row: row.name)
def test_a_row_says_what_its_latents_hold_and_cost(image_model, images, levels, row):
    solver = ImplicitOptions(keep_best=True) if row.solved else None
    latents = encode(image_model, images, levels, row.name, solver=solver)
    assert latents.plan.num_past == row.num_past == int(latents.past is not None)
    if row.plan is not None:
        assert latents.evaluations.tolist() == [row.plan(levels).num_rows] * 3
    assert row.summary


def test_latents_say_how_near_they_are_to_noise(image_model, images, levels):
    latents = encode(image_model, images, levels, "first")
    torch.manual_seed(0)
    noise = torch.randn(3, 1, 8, 8)
    noise[0] = torch.nan
    for scale, near in ((0.45, False), (0.6, True), (1.8, True), (2.3, False)):
        scaled = replace(latents, x=scale * noise)
        assert scaled.usable.tolist() == [False, True, True]
        assert scaled.deviation == pytest.approx(float(scaled.x[1:].std()))
        assert scaled.near_noise == near


def test_latents_say_whether_only_the_row_at_clean_data_was_lost(image_model, images, levels):
    latents = encode(image_model, images, levels, "first")
    last = latents.plan.num_rows - 1
    for rows, at_clean in (([-1, last, last], True), ([last, 2, -1], False)):
        assert replace(latents, row=torch.tensor(rows)).lost_at_clean == at_clean
    noisy = encode(image_model, images, levels[:-1], "first")
    last = noisy.plan.num_rows - 1
    assert not replace(noisy, row=torch.tensor([last, -1, -1])).lost_at_clean


def test_the_error_of_ends_is_the_larger_one_relative_to_its_data():
    ends = torch.stack([torch.full((1, 4), 2.0), torch.full((1, 4), 0.5)])
    samples = torch.cat([ends[:1] + 0.2, torch.zeros(3, 1, 4), ends[1:] - 0.1])
    assert error_of_ends(ends, samples) == pytest.approx(0.2)
    assert error_of_ends(ends, torch.cat([ends[:1], samples[1:4], ends[1:]])) < CLOSE


def test_a_summary_leaves_out_what_was_lost(image_model, images, levels):
    found = reconstruct(image_model, images, levels, "first")
    nan = float("nan")
    some = replace(
        found,
        psnr=(10.0, nan, 30.0),
        relative=(0.5, nan, 0.1),
        deviation=(1.0, nan, 7.0),
        evaluations=(6, 9, 6),
        decoding=6,
    )
    assert some.summary is not None
    assert tuple(some.summary) == pytest.approx((20.0, 0.5, 5.0))
    assert some.total_evaluations == pytest.approx(7 + 6 * 2 / 3)
    assert replace(found, psnr=(nan, nan, nan)).summary is None


def test_a_grid_has_every_choice_at_every_number_of_steps_once():
    recipe = Recipe(num_steps=9, levels="var", spacing="quadratic")
    grid = recipe_grid(recipe, [5, 3, 5], ["step", "var"])
    assert list(grid) == [
        ("STEP quadratic", 3),
        ("STEP quadratic", 5),
        ("VAR quadratic", 3),
        ("VAR quadratic", 5),
    ]
    assert grid["STEP quadratic", 5] == recipe.replace(num_steps=5, levels="step")
    assert list(recipe_grid(recipe, [4])) == [("VAR quadratic", 4)]
    assert np.all([one.kappa == recipe.kappa for one in grid.values()])
