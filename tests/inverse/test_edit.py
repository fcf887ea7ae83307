"""Editing: what is kept is kept to the last bit, what is painted comes from the model."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fastdpm import (
    InvalidArgumentError,
    Model,
    Recipe,
    SampleNoise,
    VarianceSchedule,
    ddim_rev,
    levels_step,
    levels_var,
    run,
)
from fastdpm.core import levels_all
from fastdpm.inverse.editing import KnownPart, edit, levels_from, plan_edit
from fastdpm.inverse.masks import check_mask, read_mask, span_mask
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()


def _images(n: int = 3) -> Tensor:
    return (
        torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(2)) / (127.5)
        - 1
    )


def _half() -> Tensor:
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1
    return mask


class _Pair(nn.Module):
    """Exact eps of pairs (y, y + e): y is N(0, 0.3^2), e is N(0, 0.05^2)."""

    COVARIANCE = torch.tensor([[0.09, 0.09], [0.09, 0.0925]], dtype=torch.float64)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        r = float(SCHEDULE.R(float(t[0]) + 1))
        eye = torch.eye(2, dtype=torch.float64)
        whole = r * r * self.COVARIANCE + (1 - r * r) * eye
        eps: Tensor = math.sqrt(1 - r * r) * (x @ torch.linalg.inv(whole)) * self.weight
        return eps


@pytest.mark.parametrize("kappa", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_what_is_kept_is_the_data_to_the_last_bit(image_model, kappa, strength):
    x, keep = _images(), _half() == 0
    found = edit(image_model, x, mask=_half(), kappa=kappa, strength=strength)
    assert torch.equal(found[..., keep], x[..., keep])
    assert float((found - x)[..., ~keep].abs().mean()) > 0.05
    assert found.dtype == torch.float32


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_the_network_sees_the_known_part_diffused_to_each_level(kappa):
    """Mean r x0 and variance 1 - r^2, drawn anew, whatever the network says."""
    levels = levels_var(SCHEDULE, 8, "quadratic")
    x0 = torch.full((4, 50_000), 0.7, dtype=torch.float64)
    unknown = torch.zeros(50_000, dtype=torch.bool)
    unknown[25_000:] = True
    noise, plan = SampleNoise(0, range(4)), ddim_rev(levels, kappa)
    seen: list[Tensor] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x[:, :25_000])
        return 3 * x

    known = KnownPart(network, x0, unknown, plan, noise)
    run(plan, known, noise.start((50_000,), dtype=torch.float64), noise=noise)
    drawn = []
    for r, part in zip(levels.level[:-1], seen, strict=True):
        variance = 1 - r * r
        assert abs(float(part.mean()) - 0.7 * r) < 5 * math.sqrt(variance / 1e5)
        assert float(part.var()) == pytest.approx(variance, rel=0.03)
        drawn.append((part - 0.7 * r).flatten() / math.sqrt(variance))
    others = torch.corrcoef(torch.stack(drawn)) - torch.eye(len(drawn))
    assert float(others.abs().max()) < 0.02


@pytest.mark.parametrize(
    ("kappa", "min_slope", "max_spread"), [(0.0, 0.55, 0.15), (1.0, 0.75, 0.1)]
)
def test_what_is_painted_fits_what_is_kept(kappa, min_slope, max_spread):
    """The data is a pair; its exact conditional distribution has slope 1 and spread 0.05."""
    model = Model.wrap(_Pair().eval(), SCHEDULE, (1, 2))
    known = torch.linspace(-0.6, 0.6, 1000)
    x = torch.stack([known, torch.zeros(1000)], dim=1)[:, None]
    levels = levels_step(SCHEDULE, 50, "quadratic")
    found = edit(model, x, mask=torch.tensor([0, 1]), levels=levels, kappa=kappa)
    painted = found[:, 0, 1].numpy()
    slope, offset = np.polyfit(known.numpy(), painted, 1)
    assert min_slope < slope < 1.05
    assert abs(offset) < 0.05
    assert np.std(painted - slope * known.numpy()) < max_spread


def test_nothing_under_the_mask_is_seen_when_all_rows_run(image_model):
    x, mask = _images(), _half()
    other = x.clone()
    other[..., mask == 1] = 0.123
    levels = levels_step(image_model.schedule, 10)[1:]
    first, second = levels.level[:2]
    cases: list[tuple[dict[str, Any], bool]] = [
        ({}, True),
        ({"strength": 1.0}, True),
        ({"strength": 0.95}, True),  # 9 rows of 9
        ({"strength": 0.5}, False),
        ({"level": first}, True),
        ({"level": 0.9 * first}, True),
        ({"level": 0.5 * (first + second)}, False),
        ({"level": second}, False),
    ]
    for choice, same in cases:
        found, again = (
            edit(image_model, v, mask=mask, levels=levels, **choice) for v in (x, other)
        )
        assert torch.equal(found, again) is same, choice


def test_editing_is_sampling_from_the_data_at_the_level(image_model):
    levels = levels_step(image_model.schedule, 8)
    x, noise = _images(), SampleNoise(6, range(3))
    part = levels[5:]
    r = float(part.level[0])
    start = r * x.double() + math.sqrt(1 - r * r) * noise.start((1, 8, 8), dtype=torch.float64)
    wanted = run(ddim_rev(part, 0.5), image_model.noise_predictor(), start, noise=noise).clamp(
        -1, 1
    )
    for strength, level in ((3 / 8, None), (None, r)):
        found = edit(
            image_model, x, levels=levels, kappa=0.5, seed=6, strength=strength, level=level
        )
        torch.testing.assert_close(found, wanted.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(num_steps=4, kappa=0.6, clip="x0"),
        Recipe(num_steps=4, kappa=0.0, clip="dynamic"),
        Recipe(method="standard", clip="none"),
    ],
    ids=Recipe.describe,
)
def test_what_is_not_said_is_the_recipe(image_model, recipe):
    model = Model(replace(image_model.config, recipe=recipe), image_model.network)
    x, noise = _images(), SampleNoise(0, range(3))
    kappa = 1.0 if recipe.method == "standard" else recipe.kappa
    whole = (
        levels_all(model.schedule)
        if recipe.method == "standard"
        else levels_step(model.schedule, 4)
    )
    part = whole[whole.num_steps // 2 :]
    r = float(part.level[0])
    start = r * x.double() + math.sqrt(1 - r * r) * noise.start((1, 8, 8), dtype=torch.float64)
    made = {
        (k, clip): run(ddim_rev(part, k), model.noise_predictor(clip=clip), start, noise=noise)
        for k in {kappa, 0.0, 1.0}
        for clip in {recipe.clip, "none", "x0"}
    }
    wanted = made.pop((kappa, recipe.clip)).clamp(-1, 1).float()
    torch.testing.assert_close(edit(model, x), wanted, rtol=0, atol=1e-5)
    for choice, other in made.items():
        found = edit(model, x, kappa=choice[0], clip=choice[1])
        torch.testing.assert_close(found, other.clamp(-1, 1).float(), rtol=0, atol=1e-5)
        assert float((found - wanted).abs().max()) > 1e-3, choice


def test_levels_of_another_schedule_are_refused(image_model):
    x, own = _images(1), levels_step(image_model.schedule, 8)
    choices: list[dict[str, Any]] = [{"strength": 1.0}, {"strength": 0.1}, {"level": 0.5}]
    for choice in choices:
        with pytest.raises(
            InvalidArgumentError, match=tells("row 0", 0.00635282, 999, "tiny-image")
        ):
            edit(image_model, x, levels=levels_step(SCHEDULE, 8), **choice)
    noisiest = float(image_model.schedule.levels[-1])
    for level in (noisiest, noisiest * (1 - 1e-12), 0.5, 0.99 * own.level[-2], 1 - 1e-6):
        assert edit(image_model, x, levels=own, level=float(level)).shape == x.shape


def test_a_weaker_edit_stays_nearer_to_the_data(image_model):
    levels, x = levels_step(image_model.schedule, 20), _images()
    apart = [
        float((edit(image_model, x, strength=s, levels=levels) - x).abs().mean())
        for s in (0.05, 0.3, 1.0)
    ]
    assert apart[0] < 0.1 < apart[1] < apart[2]


def test_a_sample_depends_on_its_seed_and_index_not_on_its_batch(image_model):
    x = _images(5)
    whole = edit(image_model, x, mask=_half(), kappa=1.0, seed=3)
    split = edit(image_model, x, mask=_half(), kappa=1.0, seed=3, batch_size=2)
    torch.testing.assert_close(split, whole, rtol=0, atol=1e-5)
    other = edit(image_model, x, mask=_half(), kappa=1.0, seed=4)
    assert float((other - whole).abs().max()) > 0.01


def test_a_mask_of_each_sample_goes_with_it_into_its_batch(image_model):
    x, mask = _images(), torch.zeros(3, 1, 8, 8)
    for i in range(3):
        mask[i, :, i : i + 3] = 1
    whole = edit(image_model, x, mask=mask, kappa=1.0)
    split = edit(image_model, x, mask=mask, kappa=1.0, batch_size=1)
    torch.testing.assert_close(split, whole, rtol=0, atol=1e-5)
    assert torch.equal(split[mask == 0], x[mask == 0])
    for i in range(3):
        painted = (split[i] - x[i]).abs()[mask[i] == 1]
        assert float(painted.mean()) > 0.05


def test_a_level_of_its_own_becomes_the_first():
    levels = levels_step(SCHEDULE, 10)
    between = float(0.5 * (levels.level[3] + levels.level[4]))
    found = levels_from(levels, SCHEDULE, level=between)
    assert found.level.tolist() == [between, *levels.level[4:]]
    assert float(SCHEDULE.R(found.t[0] + 1)) == pytest.approx(between, rel=1e-12)
    assert found.t[1:].tolist() == levels.t[4:].tolist()
    last = float(0.5 * (levels.level[-2] + 1))
    assert levels_from(levels, SCHEDULE, level=last).num_steps == 1


@pytest.mark.parametrize(
    ("strength", "rows"), [(1.0, 10), (0.5, 5), (0.51, 6), (0.3, 3), (1e-9, 1)]
)
def test_a_strength_is_a_share_of_the_rows(strength, rows):
    levels = levels_step(SCHEDULE, 10)
    found = levels_from(levels, SCHEDULE, strength=strength)
    assert found.level.tolist() == levels.level[10 - rows :].tolist()


@pytest.mark.parametrize(
    ("choice", "values"),
    [
        ({"strength": 0.0}, ["strength", "(0, 1]", 0]),
        ({"strength": 1.01}, ["strength", "(0, 1]", 1.01]),
        ({"strength": float("nan")}, ["strength", "(0, 1]", "nan"]),
        ({"level": 1.0}, ["level", 1]),
        ({"level": 0.001}, ["level", "[0.00635282, 1]", 0.001]),
        ({"level": 0.5, "strength": 0.5}, ["level", "strength"]),
        ({}, ["level", "strength"]),
    ],
)
def test_where_to_go_back_to_is_checked(choice, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        levels_from(levels_step(SCHEDULE, 10), SCHEDULE, **choice)


@pytest.mark.parametrize(
    ("mask", "values"),
    [
        (torch.ones(8, 7), ["mask", "(8, 7)", "(8, 8)"]),
        (torch.ones(8), ["mask", "(8,)", "(8, 8)"]),
        (torch.ones(2, 1, 8, 8), ["mask", "(2, 1, 8, 8)", "(8, 8)"]),
        (torch.zeros(8, 8), ["mask", 1, 0]),
        (torch.ones(8, 8), ["mask", 1, 0]),
        (torch.full((8, 8), 0.5), ["mask", 0, 1, 0.5]),
        (torch.full((8, 8), float("nan")), ["mask", 0, 1, "nan"]),
        (np.ones((8, 8)), ["mask", "ndarray"]),
        (torch.ones(8, 8) + 0j, ["mask", "torch.complex64"]),
    ],
)
def test_what_is_no_mask_is_one_line(mask, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        check_mask(mask, _images())


def test_what_is_no_data_is_one_line(image_model):
    found: list[Any] = [_images().numpy(), _images() + 0j, _images().long()]
    for x in found:
        with pytest.raises(
            InvalidArgumentError, match=tells(x.dtype if isinstance(x, Tensor) else "ndarray")
        ):
            edit(image_model, x)
    for choice, values in (
        ({"mask": _half().numpy()}, ["mask", "ndarray"]),
        ({"clip": "zz"}, ["clip", "none", "x0", "dynamic", "zz"]),
    ):
        with pytest.raises(InvalidArgumentError, match=tells(*values)):
            edit(image_model, _images(), **choice)


def test_masks_of_one_sample_or_of_each_are_taken():
    x = _images(2)
    for shape in ((8, 8), (1, 8, 8), (1, 1, 8, 8), (2, 1, 8, 8)):
        mask = torch.zeros(shape)
        mask[..., 3] = 1
        assert torch.equal(
            check_mask(mask, x).expand(x.shape)[1, 0], mask.reshape(-1, 8, 8)[0] > 0
        )


def test_masks_are_read_from_images_and_arrays(tmp_path):
    mask = _half().bool().numpy()
    for name, mode in (("l.png", "L"), ("one.png", "1"), ("rgb.png", "RGB"), ("a.png", "RGBA")):
        Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(tmp_path / name)
        assert np.array_equal(read_mask(tmp_path / name).numpy(), mask), name
    np.save(tmp_path / "m.npy", mask)
    assert np.array_equal(read_mask(tmp_path / "m.npy").numpy(), mask)


def test_what_is_no_file_of_a_mask_is_one_line(tmp_path):
    pixels = np.full((8, 8), 127, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "red.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.npy").write_text("no array")
    for name, values in (
        ("grey.png", [127, 255, 0]),
        ("red.png", [255, 0]),
        ("text.png", []),
        ("text.npy", ["numbers"]),
        ("none.png", [".npy"]),
    ):
        with pytest.raises(InvalidArgumentError, match=tells(name, *values)):
            read_mask(tmp_path / name)


def test_a_span_of_seconds_is_painted_and_no_more(folders):
    mask = span_mask((0.01, 0.03), 512, 8000)
    assert mask.nonzero().flatten().tolist() == list(range(80, 240))
    nan, inf = math.nan, math.inf
    for span in (
        *((0.03, 0.01), (0.01, 0.01), (-0.1, 0.01), (-1e-5, 0.01), (0.0, 0.1), (0.0, 0.0641)),
        *((nan, 0.01), (0.0, nan), (0.0, inf), (-inf, inf), (0.0, 1e308), (-1e308, 0.01)),
    ):
        with pytest.raises(
            InvalidArgumentError, match=tells("0.064 seconds", f"{span[0]:g}:{span[1]:g}")
        ):
            span_mask(span, 512, 8000)


def test_a_vocoder_repairs_a_sound_by_its_own_mel(vocoder):
    x = (torch.rand(2, 1, 512, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.5
    mask = span_mask((0.01, 0.03), 512, 8000)
    found = edit(vocoder, x, mask=mask)
    assert torch.equal(found[..., ~mask], x[..., ~mask])
    with pytest.raises(InvalidArgumentError, match=tells(320, 512, "`condition`")):
        edit(vocoder, x, mask=mask, condition=torch.zeros(8, 20))


def test_each_sound_is_edited_for_its_own_condition(vocoder):
    x = (torch.rand(3, 1, 320, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.5
    mels = torch.rand(2, 8, 20, generator=torch.Generator().manual_seed(1))
    for mask in (None, span_mask((0.01, 0.03), 320, 8000)):
        whole = edit(vocoder, x, mask=mask, condition=mels)
        split = edit(vocoder, x, mask=mask, condition=mels, batch_size=1)
        torch.testing.assert_close(split, whole, rtol=0, atol=1e-5)
        first = edit(vocoder, x, mask=mask, condition=mels[[0, 0, 0]])
        apart = (first - whole).abs().amax(dim=(1, 2))
        assert apart[1] > 1e-3
        assert float(apart[::2].max()) < 1e-5


def test_the_plan_of_another_model_is_refused(image_model):
    other = Model.wrap(image_model.network, VarianceSchedule.linear(50, 1e-3, 0.1), (1, 8, 8))
    plan, x = plan_edit(image_model), _images()
    torch.testing.assert_close(edit(image_model, x, plan=plan), edit(image_model, x))
    with pytest.raises(InvalidArgumentError, match=tells("row 0", "custom")):
        edit(other, x, plan=plan)
