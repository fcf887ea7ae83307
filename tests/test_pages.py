"""The Python of the pages runs as it stands there, and what they list is what there is."""

import contextlib
import dataclasses
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from fastdpm import Recipe
from fastdpm.core.plan import _KEYS
from fastdpm.data.spec import DataSpec, MelSpec
from fastdpm.evaluation.cache import STAGES
from fastdpm.evaluation.cells import ComparedModel
from fastdpm.evaluation.results import Cell, Comparison
from fastdpm.evaluation.scores import Evaluation
from fastdpm.inverse import latents_file
from fastdpm.models.config import FeaturesConfig, ModelConfig
from fastdpm.models.presets import CompareSettings, Preset, PresetSource, Published
from fastdpm.training.config import ClassifierConfig, ClassifierOptions, TrainConfig
from fastdpm.training.loop import _CHECKPOINT_KEYS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def names_of(page: str) -> dict[str, Any]:
    """What the blocks of a page leave behind, run one after the other."""
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(block, names)  # noqa: S102
    return names


@pytest.fixture
def ran() -> dict[str, Any]:
    """What the blocks of docs/inverse.md leave behind, run one after the other."""
    return names_of("inverse.md")


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
    assert ran["horse"].shape == (1, 3, 32, 32)
    assert (ran["horse"] - ran["dog"]).abs().mean() > 0.02  # another class changes the image


def test_the_blocks_of_the_tutorial_do_what_it_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = names_of("tutorial.md")
    assert names["images"].shape == (16, 1, 8, 8)
    torch.testing.assert_close(names["same"], names["fast"], rtol=0, atol=0)
    assert names["evaluation"].n == 200
    assert names["comparison"].steps == (5, 10)
    assert len(names["comparison"].cells) == 4
    assert Path("comparison.png").stat().st_size > 1000


def test_the_blocks_of_the_audio_guide_give_the_shapes_it_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    wave = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    soundfile.write("speech.wav", np.stack([wave, 0 * wave], axis=1), 22050)
    names = names_of("audio.md")
    resampled, rate = soundfile.read("speech-8k.wav")
    assert (rate, resampled.shape) == (8000, (8000,))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    np.testing.assert_allclose(resampled[100:-100], expected[100:-100], atol=0.005)
    assert names["copies"].shape == (2, 1, 6144)
    assert names["mel"].shape == (2, 40, 96)
    assert names["sounds"].shape == (2, 1, 16000)
    assert names["mine"].sample(1, num_steps=2).shape == names["real"][:1, :, :6144].shape
    assert Path("comparison.png").stat().st_size > 1000


def test_the_concepts_show_the_plan_that_their_code_prints():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        names = names_of("concepts.md")
    assert names["step"] == pytest.approx(412.7, abs=1e-9)
    assert printed.getvalue() in blocks("concepts.md", "text")


def test_the_home_page_runs():
    assert names_of("index.md")["images"].shape == (4, 3, 32, 32)


def test_the_pictures_and_links_of_the_pages_exist():
    for page in DOCS.rglob("*.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def fields(*kinds: Any) -> set[str]:
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


WRITTEN = {
    "config.json": fields(ModelConfig, FeaturesConfig),
    "Data": fields(DataSpec, MelSpec),
    "Recipe": fields(Recipe),
    "Preset": fields(Preset, CompareSettings, PresetSource, Published),
    "Training configuration": fields(TrainConfig, ClassifierConfig, ClassifierOptions),
    "Training run": _CHECKPOINT_KEYS,
    "Plan": {*_KEYS.values(), "label", "notes", "rounding", "fingerprint"},
    "Latents": {*latents_file._TENSORS, *latents_file._OPTIONAL, *latents_file._HEAD, "gain"},
    "Results of measurements": fields(Evaluation, Comparison, ComparedModel, Cell)
    - {"pictures", "whole"},
    "Caches": set(STAGES),
}


@pytest.mark.parametrize("section", WRITTEN)
def test_the_page_of_formats_names_every_key(section):
    page = (DOCS / "formats.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^##+ {re.escape(section)}\n(.*?)(?=^##|\Z)", page, re.M | re.S)
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", text))))
    assert WRITTEN[section] <= named, WRITTEN[section] - named


@pytest.fixture
def faults(tmp_path):
    """The faults of a site of two pages, whose first one holds what a test gives."""
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "scripts/check_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "other.html").write_text('<h1 id="here">Other</h1>', encoding="utf-8")

    def check(body: str) -> list[str]:
        (tmp_path / "page.html").write_text(body, encoding="utf-8")
        found: list[str] = module.faults_of_site(tmp_path)
        return found

    return check


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('<a href="missing.html">x</a>', "missing.html"),
        ('<a href="other.html#nowhere">x</a>', "#nowhere"),
        ('<a href="#nowhere">x</a>', "#nowhere"),
        ('<img src="missing.png">', "missing.png"),
        ('<script src="https://example.org/a.js"></script>', "https://example.org/a.js"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "//example.org/a.css"),
    ],
)
def test_a_link_that_leads_nowhere_and_a_file_from_elsewhere_are_found(faults, body, named):
    (fault,) = faults(body)
    assert "page.html" in fault
    assert named in fault


def test_links_that_lead_somewhere_are_no_faults(faults):
    assert (
        faults(
            '<a id="a" href="other.html#here">x</a><a href="#a">y</a><a href="http://e.org">z</a>'
        )
        == []
    )
