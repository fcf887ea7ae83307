"""How commands declare options: in groups, and with values or help from tables.

A command takes a group as one dataclass; its users set the fields as options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal, get_args, get_origin

from typer.models import OptionInfo

from fastdpm.cli.panels import Panel
from fastdpm.core.errors import InvalidArgumentError

_WIDE = 22
_PLACEHOLDERS: Mapping[Any, str] = {int: "N", float: "X", str: "TEXT", Path: "PATH", bool: ""}
_PLACES = {panel.value: place for place, panel in enumerate(Panel)}

Command = Callable[..., None]


@dataclass(frozen=True)
class OneOf:
    """In an option's annotation: its values are the names in a table.

    Attributes:
        table: Where it is, as "module:name"; may be a function that returns the names. It is
            looked up when the application is built, and not imported before.
        several: Whether the option takes several names, separated by commas; the command checks
            them.
    """

    table: str
    several: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the table."""
        table = resolve_name(self.table)
        return tuple(table() if callable(table) else table)


class Options:
    """A group of options: a dataclass whose fields are annotated as Typer takes them."""


@dataclass(frozen=True)
class _Change:
    """How a command's group differs from the whole group."""

    without: frozenset[str] = frozenset()
    panel: Panel | None = None
    helps: Mapping[str, str] | None = None


def changes(
    kind: type[Options], *, without: Collection[str] = (), panel: Panel | None = None, **helps: str
) -> Callable[[Command], Command]:
    """Say how a command's group of options differs from the whole group.

    Args:
        kind: The group.
        without: Fields that the command has no use for; they keep their defaults.
        panel: The panel to show the group in, in place of the options' own.
        helps: Help of options that mean something else here.
    """

    def decorate(command: Command) -> Command:
        known = getattr(command, "_changes", {})
        change = _Change(frozenset(without), panel, helps)
        command._changes = known | {kind: change}  # type: ignore[attr-defined]
        return command

    return decorate


def expanded(command: Command, *, shown: bool = True) -> Command:
    """A command for Typer, with the fields of its groups in place of each group.

    Options are in the order of their panels, and lower limits are checked here, so that help
    need not show them.

    Args:
        command: Its parameters that are annotated with a subclass of :class:`Options` are groups.
        shown: Whether its help may be shown, so that tables must be looked up.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Options], list[str]]] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        kind = parameter.annotation
        if not (isinstance(kind, type) and issubclass(kind, Options)):
            parameters.append(_complete(parameter, None, shown=shown))
            continue
        change = getattr(command, "_changes", {}).get(kind, _Change())
        fields = [
            _complete(field, change, shown=shown)
            for field in inspect.signature(kind, eval_str=True).parameters.values()
            if field.name not in change.without
        ]
        groups[name] = (kind, [field.name for field in fields])
        parameters += fields
    limits = {p.name: limit for p in parameters if (limit := _take_limit(p)) is not None}
    parameters.sort(key=lambda p: _PLACES.get(_info(p).rich_help_panel, -1))
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

    @wraps(command)
    def run(**values: Any) -> None:
        for name, limit in limits.items():
            if values[name] is not None and not values[name] >= limit:
                raise InvalidArgumentError(
                    f"`{name}` must be at least {limit:g}, got {values[name]:g}"
                )
        for name, (kind, names) in groups.items():
            values[name] = kind(**{field: values.pop(field) for field in names})
        command(**values)

    # Paragraphs as they are; a terminal has its own ends of lines.
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    run.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _info(parameter: inspect.Parameter) -> Any:
    """What Typer knows of a parameter: its option or argument."""
    return get_args(parameter.annotation)[1]


def _take_limit(parameter: inspect.Parameter) -> float | None:
    """The lower limit of a number, removed from what Typer checks and shows."""
    info = _info(parameter)
    limit: float | None = info.min
    info.min = None
    return limit


def _complete(
    parameter: inspect.Parameter, change: _Change | None, *, shown: bool
) -> inspect.Parameter:
    """A parameter with its placeholder, and with the help and values that come from tables."""
    kind, info, *marks = get_args(parameter.annotation)
    info = copy(info)
    if change is not None:
        info.help = (change.helps or {}).get(parameter.name) or info.help
        info.rich_help_panel = change.panel.value if change.panel else info.rich_help_panel
    if callable(info.help):
        info.help = info.help() if shown else None
    if info.metavar is None and isinstance(info, OptionInfo):
        info.metavar = _placeholder(kind)
    for mark in marks if shown else ():
        more = ",..." if mark.several else ""
        info.metavar = f"[{'|'.join(mark.names)}]{more}"
        if len(info.metavar) > _WIDE:  # a long list leaves no room for the help beside it
            info.metavar = f"NAME{more}"
            if not all(name in info.help for name in mark.names):
                info.help += f" One of {', '.join(mark.names)}."
        if not mark.several:
            chosen: Any = Literal[mark.names]
            kind = chosen | None if type(None) in get_args(kind) else chosen
    return parameter.replace(annotation=Annotated[kind, info])


def _placeholder(kind: Any) -> str | None:
    """What help shows for the value of an option of this type."""
    kinds = [kind] if get_origin(kind) is None and not get_args(kind) else get_args(kind)
    return _PLACEHOLDERS.get(next(k for k in kinds if k is not type(None)))
