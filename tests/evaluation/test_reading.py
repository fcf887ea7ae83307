"""Evaluating a folder opens each of its files once."""

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastdpm import evaluate
from fastdpm.cli.app import run as fastdpm
from fastdpm.data import datasets

_watched: list[tuple[Path, Counter[str]]] = []


def _notice(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _watched and isinstance(args[0], str):
        place, opened = _watched[0]
        path = Path(args[0])
        if (path == place or place in path.parents) and path.is_file():
            opened[path.name] += 1


sys.addaudithook(_notice)  # nothing takes it away again: it listens only while it is asked to


@pytest.fixture
def opened():
    """Evaluate, and count how often each file of a place was opened."""

    def opened(place: Path, **choices: Any) -> Counter[str]:
        found: Counter[str] = Counter()
        _watched.append((place, found))
        try:
            evaluate(place, **choices)
        finally:
            _watched.clear()
        return found

    return opened


def _once(*names: str) -> Counter[str]:
    return Counter(dict.fromkeys(names, 1))


def test_drawn_samples_are_opened_once_and_so_is_their_record(opened, folders, tmp_path):
    out = tmp_path / "drawn"
    assert fastdpm(["sample", str(folders["image"]), "-n", "40", "--out", str(out)]) == 0
    assert opened(out) == _once("samples.json", *(f"{i:06d}.png" for i in range(40)))


def test_images_are_opened_once(opened, image_folder):
    names = [path.name for path in image_folder.iterdir()]
    assert opened(image_folder) == _once(*names)
    assert opened(image_folder) == _once(*names)  # what they score is known, not who they are


def test_sounds_are_opened_once(opened, sound_folder):
    assert opened(sound_folder) == _once(*(path.name for path in sound_folder.iterdir()))


def test_no_more_is_opened_than_is_measured(opened, image_folder):
    assert opened(image_folder, n=20).total() <= 20 + 1  # the size is that of the first


def test_archives_and_arrays_are_opened_once(opened, image_folder, pixels, tmp_path):
    archive = Path(shutil.make_archive(str(tmp_path / "x"), "zip", image_folder))
    np.savez(tmp_path / "x.npz", pixels[..., None])
    for place in (archive, tmp_path / "x.npz"):
        assert opened(place) == _once(place.name)


def test_what_finds_no_room_in_memory_is_opened_again_and_scores_the_same(
    opened, image_folder, tmp_path, monkeypatch
):
    from fastdpm.evaluation.cache import Cache

    caches = [Cache(tmp_path / "all"), Cache(tmp_path / "few")]
    scores = [evaluate(image_folder, cache=caches[0]).scores]
    sizes = [path.stat().st_size for path in sorted(image_folder.iterdir())]
    monkeypatch.setattr(datasets, "MAX_CACHED_BYTES", sum(sizes[:10]))
    found = opened(image_folder, cache=caches[1])
    scores.append(evaluate(image_folder, cache=caches[1]).scores)
    assert scores[0] == scores[1]
    assert set(found.values()) == {1, 2}
    assert found["000.png"] == 1
    assert found["039.png"] == 2
