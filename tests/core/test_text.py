"""Text of others is safe to show, and sizes have limits."""

import csv
import io
import unicodedata
from pathlib import Path

import pytest

from fastdpm import DataError, InvalidArgumentError
from fastdpm.core import limits
from fastdpm.core.text import csv_table, markdown_text, replace_unknown, visible
from tests.messages import tells


def test_every_character_that_controls_or_hides_text_becomes_an_escape():
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or (
            unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF")
            or unicodedata.bidirectional(character) in ("LRI", "RLI", "FSI", "PDI")
        ):
            assert visible(character).isascii(), hex(code)
            assert visible(character).isprintable(), hex(code)
    assert visible("\x1b[31m\x07a\nb\u202e\udc80") == r"\x1b[31m\x07a\nb\u202e\udc80"
    assert visible("± Fréchet 日本 🎉 κ") == "± Fréchet 日本 🎉 κ"


def test_markdown_shows_text_as_it_is():
    text = markdown_text("<b>*a*</b> | [x](y) _z_ base_channels\n# `c`")
    assert text == r"\<b\>\*a\*\</b\> \| \[x\](y) \_z\_ base_channels \# \`c\`"


def test_a_table_holds_no_formulas_and_its_numbers_stay():
    rows: list[dict[str, object]] = [
        {"=a": "=1+1", "b": -1.5},
        {"=a": "@SUM(A1)", "b": "-1.5"},
        {"=a": "-cmd|' /C calc'!A0", "b": "+1e3"},
        {"=a": "\t=1", "b": None},
        {"=a": "a,b\n", "b": "plain - text"},
    ]
    found = list(csv.reader(io.StringIO(csv_table(["=a", "b"], rows))))
    assert found == [
        ["'=a", "b"],
        ["'=1+1", "-1.5"],
        ["'@SUM(A1)", "-1.5"],
        ["'-cmd|' /C calc'!A0", "+1e3"],
        ["'\t=1", ""],
        ["a,b\n", "plain - text"],
    ]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_what_an_encoding_lacks_is_shown_in_plain_characters(encoding):
    import codecs

    codecs.register_error("test.replace", replace_unknown)
    shown = "é ± … → κ 日 ▲".encode(encoding, "test.replace").decode(encoding)
    assert shown.replace("é", "e").replace("±", "+-") in ("e +- ... -> kappa ? ?",)


def test_nesting_is_limited_for_every_depth(tmp_path):
    for parse, text in ((limits.parse_json, "{}"), (limits.parse_toml, "a = {}")):
        for depth in (1, 63, 65, 500, 100_000):
            if depth < limits.MAX_DEPTH:
                parse(text.format("[" * depth + "]" * depth))
                continue
            with pytest.raises(ValueError, match=tells(limits.MAX_DEPTH)):
                parse(text.format("[" * depth + "]" * depth))
    with pytest.raises(ValueError, match=tells(limits.MAX_DEPTH)):
        limits.parse_toml("[" + ".".join(["a"] * 100) + "]")
    assert limits.parse_toml("a.b.c = 1.5\nx = [" + "1.5, " * 1000 + "]")["a"] == {"b": {"c": 1.5}}


def test_what_unpacks_to_too_much_is_refused():
    free, ratio = limits.FREE_BYTES, limits.MAX_RATIO
    for packed, unpacked in ((1, free), (free, free * ratio // 8), (2**30, 2**34)):
        limits.check_unpacked("x", packed, unpacked)
    for packed, unpacked in ((1, free + 1), (2**24, 2**24 * ratio + 1), (2**34, 2**34 + 1)):
        with pytest.raises(DataError, match=tells("x", f"{unpacked:,}")):
            limits.check_unpacked("x", packed, unpacked)
    with pytest.raises(InvalidArgumentError, match=tells("n", "1,000", "1,001")):
        limits.check_limit("n", 1001, 1000)


def test_large_files_and_devices_are_not_read(tmp_path):
    with (tmp_path / "big.json").open("wb") as file:
        file.truncate(limits.MAX_TEXT_BYTES + 1)  # takes no room on the disk
    with pytest.raises(DataError, match=tells("big.json", "67,108,864")):
        limits.read_json(tmp_path / "big.json")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path, kind in ((tmp_path / "zero", "device"), (tmp_path, "folder")):
        with pytest.raises(DataError, match=tells(path, kind)):
            limits.read_bytes(path)


def test_the_page_lists_every_limit():
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    table = page.partition("## Limits")[2].partition("## ")[0]
    for name, value in vars(limits).items():
        if not name.isupper() or name.startswith("_"):
            continue
        size = f"{value >> 30} GiB" if value >= 2**30 else f"{value >> 20} MiB"
        assert (size if "BYTES" in name else f"{value:,}") in table, name
