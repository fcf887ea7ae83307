"""Texts and names use the terms of the field, not words that the project made up."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "src").rglob("*.py"))
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *sorted((ROOT / "examples").glob("*.py")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
]
BRITISH = r"licence|recognise\w*|colours?|grey levels?|greys|centre|normalis(?:e|es|ing|ation)"
WORDS = re.compile(rf"\b(told|asked|given|Denoiser|{BRITISH})\b")
NAMES = {"told", "asked", "given", "most", "denoiser"}
# Keys of files, which stay as they are, and old names that are still read.
KEYS = {
    "core/plan.py": {'"told"', '"asked"'},
    "docs/formats.md": {"`told`", "`licence`"},
    "core/structure.py": {'"licence"'},
    "fastdpm/__init__.py": {'"Denoiser"', '"levels_given"'},
}


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    for place, keys in KEYS.items():
        if path.as_posix().endswith(place):
            for key in keys:
                text = text.replace(key, "")
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if WORDS.search(line)
    ]


@pytest.mark.parametrize("files", [MODULES, PAGES], ids=["code", "pages"])
def test_no_text_holds_a_word_that_the_project_made_up(files):
    assert [line for path in files for line in _lines(path)] == []


def test_no_name_in_the_code_is_one_that_the_project_made_up():
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {getattr(node, field, None) for field in ("id", "arg", "attr", "name")}
            if any(isinstance(name, str) and name in NAMES for name in names):
                found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    assert found == []
