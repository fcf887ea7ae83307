"""Options that come in groups: a command takes a dataclass, its users the fields as options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from copy import copy
from functools import wraps
from typing import Annotated, Any, get_args

Command = Callable[..., None]


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
    told: Mapping[str, str] = getattr(command, "_helps", dict)() if shown else {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        kind = parameter.annotation
        if not (isinstance(kind, type) and issubclass(kind, Options)):
            annotation = _with_help(kind, told.get(name))
            parameters.append(parameter.replace(annotation=annotation))
            continue
        without, helps = getattr(command, "_changes", {}).get(kind, ((), {}))
        helps = {**(kind.helps() if shown else {}), **helps}
        fields = [
            field.replace(annotation=_with_help(field.annotation, helps.get(field.name)))
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

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _with_help(annotation: Any, text: str | None) -> Any:
    """An annotated option, with another help text if there is one."""
    if text is None:
        return annotation
    kind, option = get_args(annotation)
    option = copy(option)
    option.help = text
    return Annotated[kind, option]
