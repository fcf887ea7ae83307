"""Fixtures of several tests of commands."""

from functools import partial

import pytest

from fastdpm.sampling import implicit


@pytest.fixture
def soon_given_up(monkeypatch):
    """Let a row that does not converge end after a few evaluations."""
    few = partial(implicit.ImplicitOptions, max_evaluations=20)
    monkeypatch.setattr(implicit, "ImplicitOptions", few)
