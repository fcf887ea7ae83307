"""The Python of the pages runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def ran() -> dict[str, Any]:
    """What the blocks of docs/inverse.md leave behind, run one after the other."""
    page = (DOCS / "inverse.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)  # noqa: S102
    return names


def test_the_blocks_of_the_inverse_direction_do_what_their_page_says(ran):
    images, again, way = ran["images"], ran["again"], ran["way"]
    relative = (again - images).flatten(1).norm(dim=1) / images.flatten(1).norm(dim=1)
    assert relative.max() < 1e-4
    assert way.shape == (9, 1, 8, 8)
    torch.testing.assert_close(way[[0, -1]], images[:2], rtol=0, atol=1e-3)
    level = float(ran["model"].schedule.R(120.5))
    spread = (ran["noisy"] - level * images).std()
    assert float(spread) == pytest.approx((1 - level**2) ** 0.5, rel=0.1)
    assert ran["noisiest"].shape == images.shape


def test_the_pictures_and_links_of_the_pages_exist():
    for page in DOCS.glob("*.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
