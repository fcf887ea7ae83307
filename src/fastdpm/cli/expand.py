"""How commands declare options: in groups, and with values or help that tables hold.

A command takes a group as one dataclass; its users give the fields as options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass
from functools import wraps
from pkgutil import resolve_name
from typing import Annotated, Any, Literal, get_args

_WIDE = 21

Command = Callable[..., None]


@dataclass(frozen=True)
class OneOf:
    """In an option's annotation: what it takes are the names of a table.

    Attributes:
        table: Where it is, as "module:name", which may be a function that returns the names. It is
            looked up when the application is built, and not imported before.
        several: Whether the option takes some of them, separated by commas; the command checks.
    """

    table: str
    several: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What the table holds."""
        table = resolve_name(self.table)
        return tuple(table() if callable(table) else table)


class Options:
    """A group of options: a dataclass whose fields are annotated as Typer takes them."""

    @classmethod
    def helps(cls) -> Mapping[str, str]:
        """Help of options that depends on tables, by field."""
        return {}


def changes(
    kind: type[Options], *, without: Collection[str] = (), **helps: str
) -> Callable[[Command], Command]:
    """Say how a command's group of options differs from the whole group.

    Args:
        kind: The group.
        without: Fields that the command has no use for; they keep their defaults.
        helps: Help of options that mean something else here.
    """

    def decorate(command: Command) -> Command:
        known = getattr(command, "_changes", {})
        command._changes = known | {kind: (frozenset(without), helps)}  # type: ignore[attr-defined]
        return command

    return decorate


def described(by: Callable[[], Mapping[str, str]]) -> Callable[[Command], Command]:
    """Take the help of some of a command's own options from tables, by parameter."""

    def decorate(command: Command) -> Command:
        command._helps = by  # type: ignore[attr-defined]
        return command

    return decorate


def expanded(command: Command, *, shown: bool = True) -> Command:
    """A command for Typer, with the fields of its groups in place of each group.

    Args:
        command: Its parameters that are annotated with a subclass of :class:`Options` are groups.
        shown: Whether its help may be shown, so that tables must be looked up.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Options], list[str]]] = {}
    own: Mapping[str, str] = getattr(command, "_helps", dict)() if shown else {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        kind = parameter.annotation
        if not (isinstance(kind, type) and issubclass(kind, Options)):
            annotation = _complete(kind, own.get(name), shown=shown)
            parameters.append(parameter.replace(annotation=annotation))
            continue
        without, helps = getattr(command, "_changes", {}).get(kind, ((), {}))
        helps = {**(kind.helps() if shown else {}), **helps}
        fields = [
            field.replace(
                annotation=_complete(field.annotation, helps.get(field.name), shown=shown)
            )
            for field in inspect.signature(kind, eval_str=True).parameters.values()
            if field.name not in without
        ]
        groups[name] = (kind, [field.name for field in fields])
        parameters += fields
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

    @wraps(command)
    def run(**given: Any) -> None:
        for name, (kind, names) in groups.items():
            given[name] = kind(**{field: given.pop(field) for field in names})
        command(**given)

    # Paragraphs as they are; a terminal has its own ends of lines.
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    run.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _complete(annotation: Any, text: str | None, *, shown: bool) -> Any:
    """An annotated option with what tables say of it: another help text, and its values."""
    kind, option, *marks = get_args(annotation)
    option = copy(option)
    option.help = text or option.help
    for mark in marks if shown else ():
        listed = f"[{'|'.join(mark.names)}]{',...' if mark.several else ''}"
        # Lines break at spaces; without them, a long list would break within a name.
        option.metavar = listed if len(listed) <= _WIDE else listed.replace("|", " | ")
        if not mark.several:
            chosen: Any = Literal[mark.names]
            kind = chosen | None if type(None) in get_args(kind) else chosen
    return Annotated[kind, option]
