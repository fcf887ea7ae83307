"""Guidance in comparisons and evaluations: an axis, counted evaluations, and keys of the cache."""

import json

import pytest
import torch

from fastdpm import InvalidArgumentError, compare, evaluate
from fastdpm.cli.app import run as fastdpm
from fastdpm.core import GuidanceScale
from fastdpm.evaluation.cache import default_cache
from fastdpm.evaluation.comparing import prepare
from fastdpm.evaluation.diffusers_samplers import DIFFUSERS_METHODS, sample_diffusers
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle, ModelSource
from fastdpm.evaluation.evaluating import MeasureOptions, choose_drawer
from fastdpm.evaluation.methods import open_drawer
from fastdpm.evaluation.results import Comparison
from tests.messages import tells


@pytest.fixture
def measuring(features, image_folder) -> MeasureOptions:
    return MeasureOptions(str(image_folder), 20, features["image"])


def test_guidance_is_an_axis_of_a_comparison(folders, measuring):
    methods = ["step-linear-k0"]
    choices = {"guidance_scale": [1, 2, 0], "measuring": measuring}
    prepared = prepare(folders["classes"], 4, methods, **choices)
    planned = [cost.evaluations for cost in prepared.estimate().cells]
    found = prepared.run()
    cells = {(cell.method, cell.guidance): cell for cell in found.cells}
    assert len({cell.id for cell in found.cells}) == len(cells) == 3
    texts = ("", "guidance 2", "guidance 0")
    assert [cells["step-linear-k0", text].evaluations for text in texts] == [4, 8, 4]
    assert planned == [cell.evaluations for cell in found.cells]
    assert len({cell.metrics["frechet_distance"].value for cell in found.cells}) == 3
    names = [row.name for row in found.rows]
    assert len(set(names)) == 3
    assert "DDIM-rev, STEP linear, guidance 2" in names
    assert "8 evaluations" in found.table()
    assert not cells["step-linear-k0", "guidance 2"].costs_more
    results = json.loads(json.dumps(found.results))
    again = Comparison.from_dict(results)
    assert [cell.guidance for cell in again.cells] == [cell.guidance for cell in found.cells]
    assert ["guidance" in record for record in results["cells"]] == [False, True, True]
    assert prepare(folders["classes"], 4, methods, **choices).estimate().evaluations == 0


@pytest.mark.parametrize(
    ("scale", "evaluations"),
    [(1, 5), (2, 10), (0, 5), (GuidanceScale(2, (0.05, 0.6)), 8)],
)
def test_samplers_of_diffusers_are_guided_and_counted(class_model, scale, evaluations):
    pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")
    method = DIFFUSERS_METHODS["diffusers-plms-leading"]
    ((_, samples, found),) = sample_diffusers(class_model, method, 4, [0, 1], guidance_scale=scale)
    drawer = open_drawer(method, class_model.schedule, 4, "none", GuidanceScale.of(scale))
    ((_, plain, _),) = sample_diffusers(class_model, method, 4, [0, 1])
    assert found == drawer.rows == evaluations
    assert torch.equal(samples, plain) == (scale == 1)


def test_unguided_cells_keep_their_key_and_guided_ones_have_their_own(folders):
    handle = ModelHandle(folders["classes"])

    def key(scale) -> str:
        drawer = choose_drawer(handle, None, None, scale)
        return ModelSource(handle, drawer, DrawOptions(), default_cache()).key

    plain = ModelSource(handle, choose_drawer(handle, None, None), DrawOptions(), default_cache())
    assert key(1) == key(GuidanceScale((1, 1, 1, 1))) == plain.key
    scales = [2, 2.5, 0, [2, 2, 2, 1], GuidanceScale(2, (0.1, 0.9)), GuidanceScale(2, rescale=0.5)]
    assert len({plain.key, *map(key, scales)}) == 1 + len(scales)


def test_an_evaluation_counts_both_halves(folders, measuring):
    def found(**choices):
        return evaluate(
            folders["classes"], measuring.against, n=20, features=measuring.features, **choices
        )

    guided, plain = found(guidance_scale=[1, 2, 2, 0]), found()
    assert (guided.evaluations, plain.evaluations) == (6, 4)
    assert "guidance 1 2 2 0" in guided.samples
    assert "guidance" not in plain.samples
    chosen = found(options=DrawOptions(class_labels=["horse", "none"]))
    assert chosen.scores != plain.scores


@pytest.mark.parametrize(
    ("model", "scale", "expected"),
    [
        ("image", 2, ["tiny-image", "guidance_scale"]),
        ("classes", float("nan"), ["guidance_scale", "nan"]),
        ("classes", [], ["guidance_scale", "none"]),
    ],
)
def test_a_comparison_that_cannot_be_guided_is_refused_at_once(
    folders, measuring, model, scale, expected
):
    with pytest.raises(InvalidArgumentError, match=tells(*expected)):
        compare(folders[model], 4, "step-linear-k0", guidance_scale=scale, measuring=measuring)


def test_the_command_line_has_the_axis_and_the_option(
    folders, features, image_folder, capsys, tmp_path
):
    against = ["--against", str(image_folder), "--features", features["image"], "-n", "20"]
    model = str(folders["classes"])
    grid = ["-S", "4", "--methods", "step-linear-k0", "--guidance", "1,1.5,2", "--dry-run"]
    assert fastdpm(["compare", model, *against, *grid]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in (f"{20 * (4 + 8 + 8)} network evaluations", "guidance 1.5", "guidance 2"):
        assert text in out
    assert fastdpm(["compare", model, *against, *grid, "--guidance-interval", "0.5:1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "guidance 1.5 at levels 0.5 to 1" in out
    assert f"{20 * (4 + 8 + 8)} network evaluations" not in out
    idle = [*grid[:4], "--guidance", "1", "--guidance-interval", "0.5:1", "--dry-run"]
    assert fastdpm(["compare", model, *against, *idle]) == 2
    assert "--guidance-interval" in capsys.readouterr().err
    save = tmp_path / "e.json"
    arguments = ["--guidance", "2", "--guidance-rescale", "0.5", "--save", str(save)]
    assert fastdpm(["evaluate", model, *against, *arguments]) == 0
    assert json.loads(save.read_text())["evaluations"] == 8
    assert fastdpm(["evaluate", str(image_folder), "--guidance", "2"]) == 2
    assert "--guidance" in capsys.readouterr().err
    assert fastdpm(["evaluate", str(folders["image"]), *against, "--guidance", "2"]) == 2
    assert "tiny-image" in capsys.readouterr().err
