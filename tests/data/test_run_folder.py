"""A run's folder is claimed, resumed after a kill at any point, and replaced as a whole."""

import json
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.data.files import sha256, write_bytes
from fastdpm.data.run_folder import RunFolder, check_folder
from fastdpm.data.run_record import RunRecord
from tests.messages import tells

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")


def _make(folder: Path, seed: int = 0, count: int = 2, **how: Any) -> list[int]:
    """Write a file for each number, one by one; returns the numbers that were not listed yet."""
    with RunFolder.open(folder, "count", {"seed": seed}, **how) as run:
        last = run.folder / "list.json"
        todo = range(json.loads(last.read_text())[1] + 1 if last.exists() else 0, count)
        for i in todo:
            with run.batch() as part:
                (part / f"{i}.txt").write_text(f"{seed} {i}")
                (part / "list.json").write_text(json.dumps([seed, i]))
    return list(todo)


def _files(folder: Path) -> dict[str, str]:
    """The content of each file that a user sees."""
    paths = (p for p in folder.rglob("*") if p.is_file() and p.name != ".run.lock")
    return {str(p.relative_to(folder)): p.read_text() for p in paths}


def _results(folder: Path) -> dict[str, str]:
    return {name: text for name, text in _files(folder).items() if name != "run.jsonl"}


def _killed(work: Callable[[], object], at: int) -> bool:
    """Do the work in another process, killed before its operation number ``at``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other threads, which do not matter here
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        writes = event == "open" and int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            count += 1
            if count == at:
                os._exit(9)

    try:
        sys.addaudithook(hook)
        work()
    finally:
        os._exit(0)


def test_a_run_goes_on_after_a_kill_at_every_operation(tmp_path):
    whole = tmp_path / "whole"
    _make(whole)
    at, again = 0, 0
    while True:
        at += 1
        place = tmp_path / str(at)
        place.mkdir()
        if not _killed(partial(_make, place / "out"), at):
            break
        listed = place / "out" / "list.json"
        done = json.loads(listed.read_text())[1] + 1 if listed.exists() else 0
        claimed = RunRecord.read(place / "out") is not None
        if claimed:
            with pytest.raises(InvalidArgumentError, match=tells("`resume`")):
                _make(place / "out")
            again += 1
        assert len(_make(place / "out", resume=True)) in (2 - done, 1 - done)
        assert _results(place / "out") == _results(whole)
        assert [p.name for p in place.iterdir()] == ["out"]
    assert at > 25
    assert again > 20


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_kill_leaves_the_old_or_the_new_folder_as_a_whole(tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr("fastdpm.data.moves.sys.platform", "win32")
    start = tmp_path / "start" / "out"
    _make(start, seed=1, count=3)
    (start / "notes").mkdir()
    (start / "notes" / "mine.txt").write_text("mine")
    old = _files(start)
    at = 0
    while True:
        at += 2 if in_one_step else 1
        out = _copied(start, tmp_path / str(at))
        if not _killed(partial(_make, out, overwrite=True), at):
            new = _files(out)
            break
        beside = out.with_name(".out.old")
        seen = _files(out if out.exists() else beside)
        assert seen == old or set(seen) == {*_names(2), "run.jsonl", "notes/mine.txt"}
        assert seen["notes/mine.txt"] == "mine"
        if in_one_step:
            assert out.exists()
        _make(out, overwrite=True, resume=at % 4 < 2)
        assert _results(out) == {**_results_of(0), "notes/mine.txt": "mine"}
        assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert {n: t for n, t in new.items() if n != "run.jsonl"}["0.txt"] == "0 0"
    assert at > 30


def _names(count: int) -> list[str]:
    return [*(f"{i}.txt" for i in range(count)), "list.json"]


def _results_of(seed: int) -> dict[str, str]:
    files = {f"{i}.txt": f"{seed} {i}" for i in range(2)}
    return {**files, "list.json": json.dumps([seed, 1])}


def _copied(start: Path, place: Path) -> Path:
    import shutil

    return Path(shutil.copytree(start, place / "out"))


def test_the_second_of_two_runs_is_refused_or_takes_the_next_name(tmp_path, monkeypatch):
    out = tmp_path / "out"
    every: list[dict[str, Any]] = [{}, {"resume": True}, {"overwrite": True}]
    for how in every:
        with RunFolder.open(out, "count", {"seed": 0}) as run:
            with pytest.raises(InvalidArgumentError, match=tells(out, "another run", "`out`")):
                RunFolder.open(out, "count", {"seed": 0}, **how)
            assert run.files == []
        _remove(out)
    _make(out)
    with RunFolder.open(out, "count", {"seed": 1}, overwrite=True):
        for how in every[1:]:
            with pytest.raises(InvalidArgumentError, match=tells(out, "another run")):
                RunFolder.open(out, "count", {"seed": 0}, **how)
    monkeypatch.chdir(tmp_path)
    with (
        RunFolder.open_free(Path("samples"), "a", "count", {}) as first,
        RunFolder.open_free(Path("samples"), "a", "count", {}) as second,
    ):
        assert [str(first.path), str(second.path)] == ["samples/a", "samples/a-2"]


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_settings_that_differ_are_named(tmp_path):
    _make(tmp_path / "out", seed=3)
    with pytest.raises(InvalidArgumentError, match=tells("`seed` 3", "has 4", "`overwrite`")):
        _make(tmp_path / "out", seed=4, resume=True)
    with pytest.raises(InvalidArgumentError, match=tells("fastdpm count")):
        RunFolder.open(tmp_path / "out", "other", {"seed": 3}, resume=True)
    record = RunRecord("count", {"plan": {"label": "a", "steps": 5}})
    (tmp_path / "part").mkdir()
    record.create(tmp_path / "part")
    with pytest.raises(
        InvalidArgumentError, match=tells("plan.steps 5", "has 6", "resume")
    ) as one:
        RunFolder.open(tmp_path / "part", "count", {"plan": {"label": "a", "steps": 6}})
    assert "overwrite" not in str(one.value)  # it is unfinished


def test_files_of_users_are_never_replaced(tmp_path):
    out = tmp_path / "out"
    _make(out, count=2)
    (out / "2.txt").write_text("mine")
    for how in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(InvalidArgumentError, match=tells("2.txt")):
            _make(out, count=3, **how)
    _make(out, count=2, seed=1, overwrite=True)
    assert (out / "2.txt").read_text() == "mine"
    (out / "0.txt").write_text("changed")
    for how in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(InvalidArgumentError, match=tells(out / "0.txt", "changed")):
            _make(out, count=2, seed=1, **how)
    (out / "0.txt").unlink()
    (out / "2.txt").unlink()
    assert _make(out, count=3, seed=1, resume=True) == [2]


@pytest.mark.parametrize("name", ["../mine.txt", "{absolute}", "link.txt", "inner/mine.txt"])
def test_what_a_forged_record_names_is_left_alone(tmp_path, name):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "link.txt").symlink_to(mine)
    (out / "inner").symlink_to(tmp_path)
    record = RunRecord("count", {"seed": 0})
    record.create(out)
    record.append(out, {name.format(absolute=mine): sha256(mine)})
    with suppress(InvalidArgumentError):
        _make(out, seed=1, overwrite=True)
    assert mine.read_text() == "mine"
    assert (out / "link.txt").is_symlink()
    assert (out / "inner").is_symlink()


def test_folders_without_a_record_are_refused_and_kept(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("mine")
    for how in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(InvalidArgumentError, match=tells("out", "README.md", "`out`")):
            _make(tmp_path / "out", **how)
    assert _files(tmp_path / "out") == {"README.md": "mine"}
    (tmp_path / "out" / ".run.lock").touch()  # of a run that was killed at once
    _make(tmp_path / "out", resume=True)
    assert _results(tmp_path / "out") == {"README.md": "mine", **_results_of(0)}


@pytest.mark.parametrize("kind", ["emptied", "edited", "link", "dangling"])
@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_a_damaged_record_is_refused_with_a_way_on_that_works(tmp_path, kind, how):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    _make(out)
    if kind in ("link", "dangling"):
        target = (out / "run.jsonl").rename(elsewhere)
        (out / "run.jsonl").symlink_to(target if kind == "link" else "nothing")
    else:
        (out / "run.jsonl").write_text("" if kind == "emptied" else "[]")
    way = "put the file itself in its place" if "link" in kind else f"move {out} elsewhere"
    named = tells(out / "run.jsonl", *([] if kind == "dangling" else [way]), "`out`")
    with pytest.raises(DataError, match=named):
        _make(out, **how)
    assert _results(out) == _results_of(0)
    if kind == "link":
        elsewhere.replace(out / "run.jsonl")
        assert _make(out, resume=True) == []
    else:
        out.rename(tmp_path / "moved")
        assert _make(out, **how) == [0, 1]


def test_a_file_that_cannot_be_written_is_named_where_it_would_be(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "out"

    def write() -> None:
        with RunFolder.open(out, "a", {}) as run, run.batch() as part:
            write_bytes(part / "big.bin", bytes(2000))

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(out / "big.bin")
    assert not out.exists()


def test_an_output_is_not_an_input_and_not_the_current_folder(tmp_path, monkeypatch):
    _make(tmp_path / "out")
    for place in (tmp_path / "out", tmp_path / "out" / "1.txt"):
        with pytest.raises(InvalidArgumentError, match=tells(place, "input")):
            check_folder(tmp_path / "out", overwrite=True, inputs=[place])
    monkeypatch.chdir(tmp_path / "out")
    with pytest.raises(InvalidArgumentError, match=tells("current folder")):
        check_folder(tmp_path / "out", overwrite=True)


def test_a_run_that_fails_before_its_first_file_leaves_nothing(tmp_path):
    def fail(**how: Any) -> None:
        with RunFolder.open(tmp_path / "a", "count", {}, **how) as run, run.batch() as part:
            (part / "half.txt").write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not any(tmp_path.iterdir())
    _make(tmp_path / "a")
    with pytest.raises(OSError, match="full"):
        fail(overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert _results(tmp_path / "a") == _results_of(0)


def test_an_unfinished_replacement_of_the_same_settings_continues(tmp_path):
    out = tmp_path / "out"
    _make(out, count=2)
    with (
        suppress(KeyboardInterrupt),
        RunFolder.open(out, "count", {"seed": 0}, overwrite=True) as r,
    ):
        with r.batch() as part:
            (part / "0.txt").write_text("0 0")
            (part / "list.json").write_text("[0, 0]")
        raise KeyboardInterrupt
    with RunFolder.open(out, "count", {"seed": 0}, overwrite=True, resume=True) as run:
        assert run.replaces
        assert (run.folder / "0.txt").read_text() == "0 0"
    assert _results(out) == {"0.txt": "0 0", "list.json": "[0, 0]"}


@pytest.mark.parametrize("name", [".out.old/mine", ".out.lock", "out/.run.part/mine"])
def test_files_of_users_with_our_names_stay(tmp_path, name):
    mine = tmp_path / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    with suppress(InvalidArgumentError):
        _make(tmp_path / "out")
    with suppress(InvalidArgumentError):
        _make(tmp_path / "out", overwrite=True)
    assert mine.read_text() == "mine"


def test_an_output_inside_an_input_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(InvalidArgumentError, match=tells(tmp_path / "in" / "out")):
        check_folder(tmp_path / "in" / "out", inputs=[tmp_path / "in"])
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InvalidArgumentError, match=tells("link")):
        check_folder(tmp_path / "loop")


def test_a_replaced_folder_keeps_its_permissions(tmp_path):
    out = tmp_path / "out"
    _make(out)
    out.chmod(0o700)
    _make(out, seed=1, overwrite=True)
    assert out.stat().st_mode & 0o777 == 0o700
