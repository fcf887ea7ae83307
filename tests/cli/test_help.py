"""Help groups options by what they are about, and fits a terminal of 80 columns."""

import re
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fastdpm.cli.app import COMMANDS, PANELS, make_app
from fastdpm.cli.app import run as fastdpm
from fastdpm.cli.panels import Panel
from fastdpm.models.presets import presets, read_preset

_PLAIN = ("cache", "models", "push")  # commands with few options and no panels


def _help(*arguments: str, columns: int = 80) -> str:
    result = CliRunner().invoke(
        make_app(), [*arguments, "--help"], env={"COLUMNS": str(columns)}, prog_name="fastdpm"
    )
    assert result.exit_code == 0
    return result.output


def _parameters(command: str) -> list[Any]:
    group: Any = get_command(make_app())
    return list(group.commands[command].params)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in _PLAIN])
def test_every_option_is_in_a_panel_and_says_what_it_does(command):
    titles = [panel.value for panel in Panel]
    options = [p for p in _parameters(command) if p.opts[0].startswith("-")]
    for option in options:
        assert option.rich_help_panel in titles, option.opts
        assert re.fullmatch(r"[A-Z.0-9].*\.", option.help), option.help
    order = [titles.index(option.rich_help_panel) for option in options]
    assert order == sorted(order)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_is_whole_at_usual_widths(command, columns):
    text = _help(command, columns=columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text
    assert not re.search(r"<(bool|int|float|str|path|list)|\[x>=", text)
    for option in _parameters(command):
        assert all(re.search(rf"{name}\b", text) for name in option.opts if "-" in name)


def test_the_top_level_groups_every_command():
    text = _help()
    places = [text.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    for command in COMMANDS:
        assert re.search(rf"│ {command} ", text)


@pytest.mark.parametrize("arguments", [[], ["--presets"]])
def test_lists_of_models_are_whole_at_80_columns(monkeypatch, capsys, arguments):
    monkeypatch.setenv("COLUMNS", "80")
    assert fastdpm(["models", *arguments]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    if arguments:
        joined = "".join(line[-25:].strip() for line in out.splitlines())
        for preset in map(read_preset, presets()):
            assert preset.name in out
            assert preset.source.checkpoint in joined
