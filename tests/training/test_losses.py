"""A run that is stopped and resumed records the losses of an uninterrupted one."""

import math
from itertools import pairwise

import pytest
import torch

from fastdpm import DataError
from fastdpm.training.losses import LossRecord
from tests.messages import tells

LOSSES = torch.rand(1230, generator=torch.Generator().manual_seed(0))


def _add(record: LossRecord, first: int, stop: int) -> None:
    for step in range(first, stop):
        record.add(step + 1, LOSSES[step])


def test_a_stop_leaves_no_trace():
    whole, part = LossRecord(), LossRecord()
    _add(whole, 0, 1230)
    stops = [0, 37, 50, 438, 1230]
    for first, stop in pairwise(stops):
        _add(part, first, stop)
        shown = part.rows_at(stop)
        assert shown[-1][0] == stop
        resumed = LossRecord()
        resumed.load(part.state)
        assert resumed.rows_at(stop) == shown
        part = resumed
    assert part.rows == whole.rows
    assert part.rows_at(1230) == whole.rows_at(1230)
    assert [step for step, _ in whole.rows] == list(range(50, 1201, 50))
    for i, (step, loss) in enumerate(whole.rows):
        assert loss == pytest.approx(float(LOSSES[50 * i : step].mean()))


def test_the_last_loss_is_the_mean_of_a_thousand_steps():
    record = LossRecord()
    assert math.isnan(record.last(0))
    _add(record, 0, 30)
    assert record.last(30) == pytest.approx(float(LOSSES[:30].mean()))
    _add(record, 30, 1200)
    assert record.last(1200) == pytest.approx(float(LOSSES[200:1200].mean()))


def test_a_loss_that_is_not_finite_is_an_error():
    record = LossRecord()
    record.add(1, torch.tensor(math.nan))
    for call in (record.check, record.rows_at, record.last):
        with pytest.raises(DataError, match=tells("nan", "step 1")):
            call(1)
