"""Commands choose as many threads as a network is worth."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

from fastdpm.cli.app import run
from fastdpm.models.config import BUILTIN
from fastdpm.models.cost import evaluation_flops, fitting_threads
from fastdpm.networks import build
from tests.conftest import IMAGE
from tests.messages import tells


class OneConvolution(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t):
        return self.layer(x)


@pytest.fixture
def threads(monkeypatch):
    """Four threads there are, for as long as the test lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_operations_are_counted_without_running_the_network(monkeypatch):
    monkeypatch.setitem(build.NETWORKS, "one", OneConvolution)
    config = replace(IMAGE, network={"type": "one"})
    assert evaluation_flops(config) == 2 * 9 * 64  # a product and a sum for each tap and pixel


@pytest.mark.parametrize(
    ("flops", "most", "threads"), [(0.0, 8, 1), (9e8, 8, 1), (3.2e9, 8, 3), (1e12, 2, 2)]
)
def test_a_thread_is_worth_a_billion_operations(flops, most, threads):
    assert fitting_threads(flops, most) == threads


def test_a_small_network_uses_one_thread(threads, tmp_path, capsys):
    assert (
        run(["sample", "digits", "-n", "1", "-S", "2", "--verbose", "--out", str(tmp_path)]) == 0
    )
    assert torch.get_num_threads() == 1
    assert "threads: 1 of 4, for 0.03" in capsys.readouterr().out


def test_threads_are_those_of_the_option(threads, tmp_path, capsys):
    options = ["--threads", "3", "--verbose"]
    assert run(["sample", "digits", "-n", "1", "-S", "2", *options, "--out", str(tmp_path)]) == 0
    assert torch.get_num_threads() == 3
    assert "threads: 3" in capsys.readouterr().out


def test_the_choice_is_printed_only_with_verbose(threads, tmp_path, capsys):
    assert run(["sample", "digits", "-n", "1", "-S", "2", "--out", str(tmp_path)]) == 0
    assert "threads" not in capsys.readouterr().out


def test_a_network_that_does_not_fit_its_data_is_one_line(threads, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(BUILTIN / "digits", folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["shape"] = [3, 8, 8]
    (folder / "config.json").write_text(json.dumps(config))
    assert run(["sample", str(folder), "-n", "1", "--out", str(tmp_path / "out")]) == 1
    assert re.search(tells("config.json", "(3, 8, 8)"), capsys.readouterr().err)


def test_a_training_uses_the_threads_of_the_option(threads, tmp_path, capsys):
    short = ["--steps", "1", "--batch-size", "2", "--out", str(tmp_path / "run")]
    options = ["--threads", "3", "--verbose"]
    assert run(["train", "digits", "--data", "sklearn:digits", *short, *options]) == 0
    assert torch.get_num_threads() == 3
    assert "threads: 3" in capsys.readouterr().out


def test_a_folder_of_samples_is_measured_with_the_threads_of_the_option(threads, tmp_path):
    assert run(["sample", "digits", "-n", "20", "-S", "2", "--out", str(tmp_path / "x")]) == 0
    against = ["--against", "sklearn:digits"]
    assert run(["evaluate", str(tmp_path / "x"), *against, "--threads", "3"]) == 0
    assert torch.get_num_threads() == 3
