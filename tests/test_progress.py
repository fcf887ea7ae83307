"""Progress is a bar on a terminal and in a notebook, and lines elsewhere."""

import importlib.util
import io

import pytest
import rich.console
import rich.progress
import torch

from fastdpm import progress
from fastdpm.sampling.state import SamplingState

PLACES = {
    "terminal": ({"force_terminal": True}, False, True),
    "notebook": ({"force_jupyter": True}, True, True),
    "notebook without ipywidgets": ({"force_jupyter": True}, False, False),
    "file": ({}, False, False),
}


@pytest.fixture
def bars(monkeypatch):
    started, start = [], rich.progress.Progress.start

    def noted(bar):
        started.append(bar)
        if not bar.console.is_jupyter:
            start(bar)

    monkeypatch.setattr(rich.progress.Progress, "start", noted)
    return started


@pytest.mark.parametrize(("where", "widgets", "shown"), PLACES.values(), ids=PLACES)
def test_the_bar_is_drawn_where_it_can_be(monkeypatch, image_model, bars, where, widgets, shown):
    plain, find = rich.console.Console, importlib.util.find_spec
    monkeypatch.setattr(rich.console, "Console", lambda **_: plain(file=io.StringIO(), **where))
    found = {"ipywidgets": find("json") if widgets else None}
    monkeypatch.setattr(
        "fastdpm.progress.importlib.util.find_spec",
        lambda name: found[name] if name in found else find(name),
    )
    with progress.sampling_bar() as bar:
        image_model.sample(3, num_steps=2, batch_size=2, callback=bar)
    assert [b.disable for b in bars] == ([False] if shown else [])
    for task in (b.tasks[0] for b in bars):
        assert (task.completed, task.total, task.description) == (3, 3, "2 evaluations")


def test_without_a_terminal_there_is_a_line_every_10_seconds(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("fastdpm.progress.time.monotonic", lambda: now[0])
    with progress.sampling_bar() as advance:
        for row in range(40):
            now[0] += 4
            advance(SamplingState(row // 20 * 8, 8, 16, row % 20, 20, 20, torch.empty(8)))
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == ""
    assert lines[0] == "1/16 samples, 20 evaluations each, about 0:02:28 left"
    assert lines[-1] == "16/16 samples, 20 evaluations each, about 0:00:04 left"
    assert len(lines) == 13


def test_a_short_run_prints_nothing(image_model, capsys):
    image_model.sample(2, num_steps=2, progress=True)
    assert capsys.readouterr() == ("", "")
