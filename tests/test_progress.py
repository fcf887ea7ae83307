"""A progress bar counts samples, on a terminal alone."""

import io

import pytest
import rich.console
import rich.progress

from fastdpm import progress


@pytest.mark.parametrize(("where", "shown"), [({"force_terminal": True}, True), ({}, False)])
def test_the_bar_is_drawn_on_a_terminal_alone(monkeypatch, image_model, where, shown):
    plain, start = rich.console.Console, rich.progress.Progress.start
    bars = []

    def noted(bar):
        bars.append(bar)
        start(bar)

    monkeypatch.setattr(rich.console, "Console", lambda **_: plain(file=io.StringIO(), **where))
    monkeypatch.setattr(rich.progress.Progress, "start", noted)
    with progress.sampling_bar() as bar:
        image_model.sample(3, num_steps=2, batch_size=2, callback=bar)
        (task,) = bars[0].tasks
        assert (task.completed, task.total, task.description) == (3, 3, "2 evaluations")
    assert bars[0].disable is not shown
