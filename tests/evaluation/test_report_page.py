"""The page of a report shows its samples, loads nothing and runs nothing of what it shows."""

import re

import numpy as np
import pytest
from PIL import Image

from fastdpm import InvalidArgumentError
from tests.evaluation.reports import (
    CHOICES,
    HOSTILE,
    Page,
    make_cell,
    make_images,
    make_results,
    make_sounds,
    report,
    write,
)
from tests.messages import tells


def test_a_hostile_name_is_shown_and_never_run(tmp_path, grid):
    results = make_results(grid)
    for place, key in ((results["model"], "name"), (results, "against"), (results, "command")):
        place[key] = HOSTILE
    grid[0]["notes"] = [HOSTILE]
    grid[1]["failed"] = HOSTILE
    found = write(tmp_path, results, make_images(grid))
    text = found[-1].read_text()
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "<script>alert" not in text
    assert (
        page.text.count(HOSTILE) == 9
    )  # as it stands: 3 of the model, data, 3 of a cell, note, command
    lines = found[2].read_text().splitlines()
    assert "\\<script\\>" in lines[0]
    assert "<script>" not in "\n".join(x for x in lines if not x.startswith("    "))
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")}
    assert widths == {5}  # of both kinds of tables


def test_the_page_loads_nothing(tmp_path, grid):
    sounds = report(tmp_path, grid, make_sounds(grid), audio=True)["report.html"]
    images = report(tmp_path, grid, make_images(grid))["report.html"]
    for text in (sounds, images):
        page = Page(text)
        assert page.loaded
        assert all(address.startswith("data:") for address in page.loaded)
        assert "default-src 'none'" in text
        assert not re.search(r"https?:|url\(|@import|\bimport\b", text)
        assert "link" not in page.tags
    assert Page(sounds).tags.count("audio") == 18
    assert "audio" not in Page(images).tags


def test_every_image_of_the_page_is_described_and_every_table_has_a_caption(tmp_path, grid):
    text = report(tmp_path, grid, make_images(grid))["report.html"]
    images = re.findall(r"<img[^>]*>", text)
    assert len(images) == 2
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)
    assert text.count("<table") == text.count("<caption>") == 7


def test_samples_are_shown_pixel_for_pixel_and_missing_ones_are_grey(tmp_path):
    cells = [make_cell("DDIM-rev", choice, 5, 1.0) for choice in CHOICES[:2]]
    pixels = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    write(tmp_path, make_results(cells), {cells[0]["id"]: pixels})
    with Image.open(tmp_path / "samples.png") as image:
        sheet = np.asarray(image.convert("RGB"))
    large = pixels.repeat(7, axis=1).repeat(7, axis=2)
    top, left = 57, 245
    np.testing.assert_array_equal(sheet[top : top + 56, left : left + 56], large[0])
    np.testing.assert_array_equal(sheet[top : top + 56, left + 60 : left + 116], large[1])
    below = top + 56 + 4 + 19
    assert (sheet[below : below + 56, left : left + 56] == 238).all()


def test_methods_for_which_there_is_no_room_are_counted(tmp_path):
    cells = [make_cell("DDIM-rev", f"choice {i}", 5, 1.0 + i) for i in range(60)]
    text = report(tmp_path, cells, make_images(cells, count=1))["report.html"]
    shown = re.search(r"\b(\d+) of 60\b", text)
    assert shown
    assert 20 <= int(shown[1]) < 60


@pytest.mark.parametrize(
    ("pictures", "values"),
    [
        ([np.zeros((2, 8, 8, 1))], ["uint8", "float64", "(2, 8, 8, 1)"]),
        ([np.zeros((2, 8, 8), dtype=np.uint8)], ["uint8", "(2, 8, 8)"]),
        ([np.zeros((2, 8, 8, s), dtype=np.uint8) for s in (1, 3)], ["(8, 8, 1)", "(8, 8, 3)"]),
    ],
)
def test_pictures_of_another_kind_are_refused(tmp_path, grid, pictures, values):
    named = {cell["id"]: picture for cell, picture in zip(grid, pictures, strict=False)}
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        write(tmp_path, make_results(grid), named)


def test_sounds_that_are_silent_short_or_not_finite_are_drawn(tmp_path, grid):
    sounds = {
        cell["id"]: np.full((2, 100), value, dtype=np.float32)
        for cell, value in zip(grid, (0.0, np.nan, np.inf), strict=False)
    }
    assert "audio" in Page(report(tmp_path, grid, sounds, audio=True)["report.html"]).tags
