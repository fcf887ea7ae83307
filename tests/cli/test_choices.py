"""Options whose values are names of a table show and take what the table holds, and no more."""

import re
from types import MappingProxyType

import pytest
from typer.testing import CliRunner

from fastdpm.cli.app import make_app
from fastdpm.cli.app import run as fastdpm
from fastdpm.core import choices, inverse, likelihood, recipe, samplers
from fastdpm.core.levels import levels_step
from fastdpm.models.formats import table
from tests.messages import tells


def _help(command: str) -> str:
    result = CliRunner().invoke(make_app(command), [command, "--help"], env={"COLUMNS": "250"})
    assert result.exit_code == 0
    return result.output


def _shown(command: str, option: str) -> list[str]:
    """The values of an option as its help lists them."""
    listed = re.search(rf"{option} +(?:-\S+ +)?\[([^]]+)\]", _help(command))
    if listed is not None:
        return listed[1].split("|")
    # A long list is in the help text, as "One of a, b." or with a description of each.
    text = re.search(rf"{option} +NAME(.*?)(?=--|\Z)", _help(command), re.DOTALL)
    assert text is not None, option
    plain = re.sub(r"[│\s]+", " ", text[1])
    names = re.search(r"One of ([^.]+)\.", plain)
    return names[1].split(", ") if names else re.findall(r"(?<!\[)\b([a-z-]+): ", plain)


@pytest.mark.parametrize(
    ("commands", "option", "module", "name"),
    [
        (("sample", "plan", "evaluate"), "--method", samplers, "SAMPLERS"),
        (("sample", "likelihood", "edit"), "--clip", recipe, "CLIPS"),
        (("sample", "compare", "evaluate"), "--precision", recipe, "PRECISIONS"),
        (("encode", "interpolate", "reconstruct"), "--by", inverse, "ENCODINGS"),
        (("likelihood",), "--variance", likelihood, "VARIANCES"),
        (("convert",), "--format", table, "FORMATS"),
    ],
)
def test_a_new_row_of_a_table_is_a_value_of_the_option(
    monkeypatch, commands, option, module, name
):
    before = getattr(module, name)
    also = [samplers.TUNED] if option == "--method" else []  # it is in no table
    for command in commands:
        assert _shown(command, option) == [*before, *also]
    row = dict(before)[next(iter(before))] if hasattr(before, "keys") else None
    more = (*before, "toy") if row is None else MappingProxyType({**before, "toy": row})
    monkeypatch.setattr(module, name, more)
    for command in commands:
        assert _shown(command, option) == [*before, "toy", *also]


def test_a_new_choice_of_levels_is_a_value_of_its_two_options(monkeypatch):
    row = choices.LevelChoice("halves", "plain", levels_step, "a toy")
    more = MappingProxyType({**choices.CHOICES, row.name: row})
    monkeypatch.setattr(choices, "CHOICES", more)
    for command in ("sample", "encode", "reconstruct"):
        assert _shown(command, "--levels") == [*choices.level_names()]
        assert _shown(command, "--spacing") == [*choices.spacing_names()]
    assert choices.level_names()[-1] == "halves"
    assert choices.spacing_names()[-1] == "plain"


@pytest.mark.parametrize(
    ("arguments", "option", "known"),
    [
        (["sample", "digits"], "--levels", ["var", "step"]),
        (["plan", "digits"], "--spacing", ["linear", "quadratic"]),
        (["sample", "digits"], "--method", list(samplers.SAMPLERS)),
        (["sample", "digits"], "--clip", list(recipe.CLIPS)),
        (["sample", "digits"], "--precision", list(recipe.PRECISIONS)),
        (["encode", "digits", "a.png", "--out", "a"], "--by", list(inverse.ENCODINGS)),
        (["likelihood", "digits", "a.png"], "--variance", list(likelihood.VARIANCES)),
        (["convert", "a.pt", "--out", "a"], "--format", list(table.FORMATS)),
        (["reconstruct", "digits", "a.png", "--out", "a"], "--by", list(inverse.ENCODINGS)),
        (["reconstruct", "digits", "a.png", "--out", "a"], "--levels", ["var", "step"]),
        (["reconstruct", "digits", "a.png", "--out", "a"], "--spacing", ["linear", "quadratic"]),
    ],
)
def test_a_value_that_no_table_holds_is_one_line(
    tmp_path, monkeypatch, capsys, arguments, option, known
):
    monkeypatch.chdir(tmp_path)
    assert fastdpm([*arguments, option, "other"]) == 2
    err = capsys.readouterr().err
    assert re.search(tells(option, "other", *known), err)
    assert err.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fastdpm sample --levels ", ["var", "step", "sigma"]),
        ("fastdpm encode --by i", ["implicit", "invertible"]),
        ("fastdpm rec", ["recommend", "reconstruct"]),
        ("fastdpm plan --at", ["--at-steps", "--at-levels"]),
    ],
)
def test_a_shell_completes_commands_options_and_their_values(monkeypatch, capsys, line, found):
    monkeypatch.setenv("_FASTDPM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    with pytest.raises(SystemExit) as caught:
        fastdpm([])
    assert caught.value.code == 0
    assert capsys.readouterr().out.split() == found


def test_the_script_that_a_shell_needs_is_printed(monkeypatch, capsys):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    with pytest.raises(SystemExit) as caught:
        fastdpm(["--show-completion", "bash"])
    assert caught.value.code == 0
    assert "_FASTDPM_COMPLETE=complete_bash" in capsys.readouterr().out
