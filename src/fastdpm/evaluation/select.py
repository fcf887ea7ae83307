"""Choosing methods, metrics and values of S from a comparison by their names. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastdpm.core.arguments import fitted
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.evaluation.cells import STANDARD, Cell
from fastdpm.evaluation.scores import Metric


def find_cells(cells: Sequence[Cell], methods: Iterable[str] | str) -> tuple[Cell, ...]:
    """The cells of some methods, and always those of the standard samplers.

    Args:
        cells: All cells of a comparison.
        methods: Keys ("var-linear-k0"), families ("paper"), groups ("DDIM-rev") or names
            ("DDIM-rev, VAR linear"), in any case.

    Raises:
        InvalidArgumentError: If no cell has one of the names.
    """
    wanted = _names("methods", methods)
    known = {name for cell in cells for name in _names_of(cell)}
    for name in wanted:
        if name.lower() not in known:
            raise InvalidArgumentError(
                f"`methods` must be among those of this comparison ({_choices(cells)}), got"
                f" {name!r}"
            )
    chosen = {name.lower() for name in wanted}
    return tuple(c for c in cells if c.takes_all_steps or chosen & _names_of(c))


def find_metric(metrics: Sequence[Metric], name: str, argument: str = "metrics") -> Metric:
    """The metric with a key ("frechet_distance"), a name, or a name without its unit ("FD").

    ``argument`` is what an error calls the name.

    Raises:
        InvalidArgumentError: If there is none.
    """
    for metric in metrics:
        short = metric.name.partition(" (")[0]
        if str(name).lower() in (metric.key.lower(), metric.name.lower(), short.lower()):
            return metric
    known = ", ".join(f"{m.key} ({m.name.partition(' (')[0]})" for m in metrics)
    raise InvalidArgumentError(f"`{argument}` must be among {known}, got {name!r}")


def find_metrics(metrics: Sequence[Metric], names: Iterable[str] | str) -> tuple[Metric, ...]:
    """The metrics of some names, in the order of the names.

    Raises:
        InvalidArgumentError: If a name is unknown, or there are no names.
    """
    return tuple(dict.fromkeys(find_metric(metrics, name) for name in _names("metrics", names)))


def find_steps(steps: Sequence[int], num_steps: Iterable[int] | int) -> tuple[int, ...]:
    """Some of the values of S, rising.

    Raises:
        InvalidArgumentError: If a value was not measured, or there are no values.
    """
    num_steps = fitted("num_steps", num_steps, Iterable[int] | int)
    wanted = list(num_steps) if isinstance(num_steps, Iterable) else [num_steps]
    if not steps:
        raise InvalidArgumentError(
            "this comparison has standard samplers only, which take all T steps, so `num_steps`"
            " would have no effect: drop it"
        )
    if not wanted or not set(wanted) <= set(steps):
        known = ", ".join(map(str, steps))
        raise InvalidArgumentError(f"`num_steps` must be among {known}, got {num_steps!r}")
    return tuple(sorted(set(wanted)))


def _names(argument: str, names: Iterable[str] | str) -> list[str]:
    names = fitted(argument, names, Iterable[str] | str)
    found = [names] if isinstance(names, str) else list(names)
    if not found:
        raise InvalidArgumentError(f"`{argument}` must name at least one, got none")
    return found


def _names_of(cell: Cell) -> set[str]:
    names = (cell.method, cell.family, cell.group, cell.name)
    return {name.lower() for name in names if name}


def _choices(cells: Sequence[Cell]) -> str:
    """Families and an example of a key: the full list of methods would not fit in a line."""
    families = dict.fromkeys(c.family for c in cells if not c.takes_all_steps)
    groups = dict.fromkeys(c.group for c in cells if not c.takes_all_steps)
    key = next((c.method for c in cells if c.method and not c.takes_all_steps), STANDARD)
    return f"families {', '.join(families)}; groups {', '.join(groups)}; or keys such as {key}"
