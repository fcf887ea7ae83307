"""The cost of a measurement is counted before anything is drawn; cached samples are free."""

import re
import sys
from dataclasses import replace

import pytest
import torch

from fastdpm import Model, VarianceSchedule
from fastdpm.cli.app import run as fastdpm
from fastdpm.core.methods import NamedRecipe
from fastdpm.evaluation import comparing, evaluating
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle, ModelSource
from fastdpm.evaluation.estimate import CellCost, CostEstimate, Timing, time_network
from fastdpm.evaluation.evaluating import MeasureOptions, choose_drawer
from fastdpm.evaluation.methods import choose_methods
from fastdpm.evaluation.scores import duration
from tests.messages import tells


@pytest.fixture
def measuring(image_folder, features) -> MeasureOptions:
    return MeasureOptions(str(image_folder), 20, features["image"])


@pytest.fixture
def command(folders, image_folder, features) -> list[str]:
    names = "step-linear-k0,standard,diffusers-pndm-leading,diffusers-ddim-trailing"
    model = ["compare", str(folders["image"]), "-S", "3,5", "-n", "20", "--methods", names]
    return [*model, "--against", str(image_folder), "--features", features["image"]]


def test_an_estimate_counts_what_is_not_in_the_cache(folders, measuring, own_cache):
    names = ["step-linear-k0"]
    prepared = comparing.prepare(folders["image"], (5, 4), names, measuring=measuring)
    first = prepared.estimate()
    assert [(cell.num_steps, cell.left, cell.evaluations) for cell in first.cells] == [
        (4, 20, 4),
        (5, 20, 5),
    ]
    assert first.evaluations == 20 * (4 + 5)
    assert first.seconds > 0
    assert not own_cache.exists()
    comparing.compare(folders["image"], (4,), names, measuring=measuring)
    assert prepared.estimate().evaluations == 20 * 5
    prepared.run()
    assert (prepared.estimate().evaluations, prepared.estimate().timing) == (0, None)


def test_cells_that_share_their_samples_count_them_once(folders, measuring):
    (method,) = choose_methods(["step-linear-k0"])
    assert isinstance(method, NamedRecipe)
    both = [method, replace(method, key="again")]
    cells = comparing.prepare(folders["image"], (5,), both, measuring=measuring).estimate().cells
    assert [cell.left for cell in cells] == [20, 0]


def test_an_evaluation_that_needs_more_samples_counts_those(folders, measuring, measure):
    measure(folders["image"], n=25)
    more = MeasureOptions(measuring.against, 32, measuring.features)
    assert evaluating.prepare(folders["image"], more).estimate().evaluations == 7 * 4


def test_samples_that_exist_cost_no_evaluations(image_folder, measuring):
    assert evaluating.prepare(image_folder, measuring).estimate().evaluations == 0


def test_the_recordings_of_a_vocoder_are_counted_one_by_one(folders, sound_folder):
    measuring = MeasureOptions(str(sound_folder), 3)
    prepared = evaluating.prepare(folders["vocoder"], measuring)
    found = prepared.estimate()
    assert found.evaluations == 3 * 3
    assert found.timing is not None
    assert found.timing.batch_size == 1
    evaluating.evaluate(folders["vocoder"], str(sound_folder), n=2)
    assert prepared.estimate().evaluations == 3


def test_methods_that_cannot_take_s_cost_nothing(folders, measuring):
    names = ["diffusers-pndm-leading"]
    cells = (
        comparing.prepare(folders["image"], (3, 5), names, measuring=measuring).estimate().cells
    )
    assert [(cell.total, cell.failed is None) for cell in cells] == [(0, False), (20 * 14, True)]


@pytest.mark.parametrize("name", ["diffusers-pndm-leading", "diffusers-plms-leading"])
def test_the_estimated_evaluations_are_those_that_are_made(folders, measuring, name):
    prepared = comparing.prepare(folders["image"], (5,), [name], measuring=measuring)
    (cost,), (cell,) = prepared.estimate().cells, prepared.run().cells
    assert cost.evaluations == cell.evaluations


def test_a_dry_run_prints_the_estimate_and_writes_nothing(command, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert fastdpm([*command, "--dry-run"]) == 0
    assert fastdpm([*command, "--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    out = capsys.readouterr().out
    total = 20 * (3 + 5 + 100 + 14 + 3 + 5)
    assert re.search(tells(f"{total:,}", 7, "cpu"), out.splitlines()[1])
    rows = {re.split("  +", line)[1]: line for line in out.splitlines() if line.startswith("  ")}
    assert rows["DDIM-rev, STEP linear"].split()[-2:] == ["3", "5"]
    assert rows["PNDM (diffusers), leading"].split()[-2:] == ["none", "14"]
    assert rows["standard sampler"].split()[-1] == "100"


def test_a_dry_run_says_what_is_cached(command, tmp_path, monkeypatch, capsys):
    command[command.index("--methods") + 1] = "step-linear-k0"
    command[command.index("-S") + 1] = "3"
    command += ["--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["fastdpm", *command])
    assert fastdpm(command) == 0
    monkeypatch.setattr(sys, "argv", ["fastdpm", *command, "--dry-run"])
    assert fastdpm([*command, "--dry-run"]) == 0
    del command[command.index("--out") :]
    command[command.index("-S") + 1] = "3,4"
    capsys.readouterr()
    assert fastdpm([*command, "--dry-run"]) == 0
    assert re.search(r"linear +cached +4", capsys.readouterr().out)
    command[command.index("-n") + 1] = "25"
    assert fastdpm([*command, "--dry-run"]) == 0
    assert re.search(r"linear +3\* +4", capsys.readouterr().out)


def test_the_estimate_comes_first(command, folders, image_folder, features, tmp_path, capsys):
    names = command.index("--methods") + 1
    command[names] = "step-linear-k0"
    assert fastdpm([*command, "--out", str(tmp_path / "out")]) == 0
    against, first, *rest = capsys.readouterr().out.splitlines()
    assert re.search(tells("40 samples of images"), against)
    assert re.search(tells(20 * (3 + 5), "cpu"), first)
    assert "1 of 2" in rest[0]
    command = ["evaluate", str(folders["image"]), "-n", "20", "--against", str(image_folder)]
    command += ["--features", features["image"]]
    assert fastdpm([*command, "--dry-run"]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert re.search(tells(20 * 4, "cpu", 20), line)
    assert fastdpm(command) == 0
    out = capsys.readouterr().out
    assert re.search(tells(20 * 4, "cpu", 20), out.splitlines()[1])
    assert "earlier" not in out
    assert fastdpm(command) == 0
    assert "drawn earlier in" in capsys.readouterr().out


class Slow(torch.nn.Module):
    """A network on a clock of its own, which notes the sizes of its batches."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seconds, self.now, self.sizes = seconds, 0.0, list[int]()

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.now += self.seconds * len(x)
        self.sizes.append(len(x))
        return x * self.scale


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [(0.001, [1, 1, 50, 50, 50, 50, 50]), (0.3, [1, 1, 3, 3]), (3.0, [1])],
)
def test_the_timing_is_short(seconds, sizes, monkeypatch, own_cache):
    network = Slow(seconds).eval()
    monkeypatch.setattr("fastdpm.evaluation.estimate.time.perf_counter", lambda: network.now)
    model = Model.wrap(network, VarianceSchedule.linear(100), (1, 8, 8))
    handle = ModelHandle(model)
    source = ModelSource(
        handle, choose_drawer(handle, None, None), DrawOptions(), MeasureOptions().cache
    )
    timing = time_network(source, 50)
    assert network.sizes == sizes
    assert timing.evaluation == pytest.approx(seconds)
    assert timing.batch_size == sizes[-1]


def test_seconds_add_up_over_samples_and_steps():
    timing = Timing(0.002, 0.001, 0.01, 8, "cpu")
    cells = (CellCost("a", 10, 100, 50, 12, 10), CellCost("b", 5, 100, 0, 5))
    estimate = CostEstimate(cells, timing)
    assert estimate.evaluations == 600
    assert estimate.seconds == pytest.approx(50 * (12 * 0.002 + 10 * 0.001 + 0.01))
    assert re.search(tells(600, 2, "cpu", "2 ms", 8), str(estimate))


def test_an_estimated_time_has_two_digits():
    times = [duration(s, digits=2) for s in (0, 0.00131, 4.44, 119, 4002, 3.3 * 3600)]
    assert times == ["0 s", "1.3 ms", "4.4 s", "120 s", "67 min", "3.3 h"]
