"""A local hub to download models from and publish them to."""

import pytest


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from tests.models.hub_server import serving

    with serving(monkeypatch, tmp_path / "home") as hub:
        yield hub


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
