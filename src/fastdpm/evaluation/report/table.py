"""A comparison's results as tables: rows and columns as in the paper, best values, summary.

A cell is one method at one S. A method is a group (the reverse process or the sampler) and a
choice (approximation and variance schedule, or step spacing). S is the number of steps asked
for; the network evaluations really made may be more or fewer, and are counted apart.
Source: Kong & Ping 2021, arXiv:2106.00132, tables 1 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastdpm.core.errors import DataError

FORMAT, VERSION = "fastdpm-comparison", 1
BEST, TIED = "best", "tied"
_FAMILIES = ("paper", "multistep", "diffusers")
_STANDARD = "standard"
_MOST_DECIMALS = 6
_LARGE = 1e6


def written(value: float, error: float | None) -> str:
    """``value ± error``, to the second significant digit of the error."""
    if error is None or not math.isfinite(error):
        return _plain(value)
    if abs(value) >= _LARGE or not error:
        return f"{_plain(value)} ± {error:.2g}"
    decimals = min(max(0, 1 - math.floor(math.log10(error))), _MOST_DECIMALS)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


@dataclass(frozen=True)
class Metric:
    """A measure of samples: its key in the results, its printed name, and which way is better."""

    key: str
    name: str
    lower_is_better: bool

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return f"{'lower' if self.lower_is_better else 'higher'} is better"


@dataclass(frozen=True)
class Score:
    """A finite value of a metric, and its standard error where that is known."""

    value: float
    error: float | None = None

    @property
    def text(self) -> str:
        """See :func:`written`."""
        return written(self.value, self.error)

    def meets(self, other: Score) -> bool:
        """Whether two values differ by at most their combined standard error."""
        return abs(self.value - other.value) <= math.hypot(self.error or 0, other.error or 0)


@dataclass(frozen=True)
class Cell:
    """One method at one S.

    Attributes:
        num_steps: S, as asked for.
        evaluations: Network evaluations a sample really took; S where nothing was drawn.
        n: Number of samples measured.
        seconds: Of sampling and measuring; None where it was not recorded.
        failed: Why there is nothing to show, or None.
    """

    id: str
    family: str
    group: str
    choice: str
    num_steps: int
    evaluations: float
    n: int
    seconds: float | None
    scores: Mapping[str, Score]
    notes: tuple[str, ...]
    plan: str | None
    failed: str | None

    @property
    def name(self) -> str:
        """The method, in words."""
        return f"{self.group}, {self.choice}" if self.choice else self.group

    @property
    def cost(self) -> str:
        """The network evaluations, in words."""
        return f"{self.evaluations:,.10g} evaluations"

    @property
    def costs_more(self) -> bool:
        """Whether more than S evaluations were made, so that S does not say what it cost."""
        return self.evaluations > self.num_steps

    def missing(self, metric: Metric) -> str:
        """What stands where the metric has no value."""
        if self.failed is not None:
            return f"failed: {self.failed}"
        return "" if metric.key in self.scores else "not finite or not measured"


@dataclass
class Row:
    """A method and its cells by S."""

    family: str
    group: str
    choice: str
    cells: dict[int, Cell] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The method, in words."""
        return f"{self.group}, {self.choice}" if self.choice else self.group


@dataclass(frozen=True)
class Floor:
    """Real samples, scored like drawn ones: what a perfect sampler would reach."""

    label: str
    n: int
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Comparison:
    """A whole comparison.

    Attributes:
        results: What it was read from, every number finite or None.
        metrics: The first is the primary one.
        cells: Of few-step methods and of standard samplers, as they were recorded.
        rows: The few-step methods in the paper's order.
        references: Cells of the standard samplers, of all T steps.
        steps: The columns: every S of a few-step method, rising.
        n: Number of samples of a cell, unless the cell says otherwise.
    """

    results: Mapping[str, Any]
    metrics: tuple[Metric, ...]
    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]
    references: tuple[Cell, ...]
    floor: Floor | None
    steps: tuple[int, ...]
    n: int

    @property
    def drawn_floor(self) -> Floor | None:
        """The floor where it can stand in one figure with the cells.

        A distance falls as samples are added, so real data of fewer samples is no floor.
        """
        return self.floor if self.floor is not None and self.floor.n >= self.n else None

    @property
    def primary(self) -> Metric:
        """The metric that methods are chosen by."""
        return self.metrics[0]

    @property
    def model(self) -> str:
        """The model's name, as its author wrote it."""
        return str(self.results["model"]["name"])

    @property
    def families(self) -> tuple[str, ...]:
        """Families of the few-step methods, in order."""
        return tuple(dict.fromkeys(row.family for row in self.rows))

    @property
    def notes(self) -> tuple[str, ...]:
        """Every remark on a cell, once: first those on all cells, the others in order."""
        found = dict.fromkeys(note for cell in self.cells for note in cell.notes)
        return tuple(sorted(found, key=lambda note: not self._is_shared(note)))

    def note_numbers(self, cell: Cell) -> list[int]:
        """Where the remarks on a cell stand in the list, from 1; those on all cells aside."""
        own = (note for note in cell.notes if not self._is_shared(note))
        return sorted(self.notes.index(note) + 1 for note in own)

    def _is_shared(self, note: str) -> bool:
        return len(self.cells) > 1 and all(note in cell.notes for cell in self.cells)

    def marks(self, metric: Metric, num_steps: int) -> dict[str, str]:
        """Cell id -> BEST or TIED (within a combined standard error of it) in one column.

        Only cells that kept to S evaluations are compared.
        """
        column = {
            cell.id: cell.scores[metric.key]
            for row in self.rows
            if (cell := row.cells.get(num_steps)) is not None
            and metric.key in cell.scores
            and not cell.costs_more
        }
        if not column:
            return {}
        pick = min if metric.lower_is_better else max
        best = pick(column, key=lambda name: column[name].value)
        tied = {name: TIED for name, score in column.items() if score.meets(column[best])}
        return tied | {best: BEST}

    def best(self, metric: Metric, num_steps: int) -> Cell | None:
        """The best cell of one column, None where nothing was measured."""
        marks = self.marks(metric, num_steps)
        cells = (row.cells.get(num_steps) for row in self.rows)
        return next((c for c in cells if c is not None and marks.get(c.id) == BEST), None)

    def reference(self, metric: Metric) -> Cell | None:
        """The first standard sampler that the metric has a value for."""
        return next((cell for cell in self.references if metric.key in cell.scores), None)


def read_results(results: Mapping[str, Any]) -> Comparison:
    """Read the results of a comparison.

    Args:
        results: The mapping that ``results.json`` holds.

    Raises:
        DataError: If it is of another format or version, or not whole.
    """
    kind = (results.get("format"), results.get("version"))
    if kind != (FORMAT, VERSION):
        raise DataError(
            f"these are no results of a comparison in version {VERSION} (got format {kind[0]!r},"
            f" version {kind[1]!r}): run `fastdpm compare` with this version of fastdpm"
        )
    clean: dict[str, Any] = finite(results)
    try:
        return _read(clean)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"the results of the comparison are not whole ({type(error).__name__}: {error}):"
            " run `fastdpm compare` again"
        ) from None


def finite(value: Any) -> Any:
    """A copy that JSON can hold: NumPy's numbers are Python's, and what is not finite is None."""
    if isinstance(value, Mapping):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _read(results: Mapping[str, Any]) -> Comparison:
    metrics = tuple(
        Metric(m["key"], m["name"], {"lower": True, "higher": False}[m["better"]])
        for m in results["metrics"]
    )
    if not metrics:
        raise ValueError("no metrics")
    cells = tuple(_cell(cell) for cell in results["cells"])
    floor = results.get("floor")
    results["model"]["name"], int(results["model"]["T"])
    few = [cell for cell in cells if cell.family != _STANDARD]
    return Comparison(
        results=results,
        metrics=metrics,
        cells=cells,
        rows=_rows(few),
        references=tuple(cell for cell in cells if cell.family == _STANDARD),
        floor=floor and Floor(floor["label"], int(floor["n"]), _scores(floor["metrics"])),
        steps=tuple(sorted({cell.num_steps for cell in few})),
        n=int(results["n"]),
    )


def _cell(cell: Mapping[str, Any]) -> Cell:
    steps, failed = int(cell["num_steps"]), cell.get("failed")
    evaluations, seconds = cell.get("evaluations"), cell.get("seconds")
    return Cell(
        id=str(cell["id"]),
        family=cell["family"],
        group=cell["group"],
        choice=cell.get("choice") or "",
        num_steps=steps,
        evaluations=steps if evaluations is None else float(evaluations),
        n=int(cell.get("n") or 0),
        seconds=None if seconds is None else float(seconds),
        scores={} if failed is not None else _scores(cell.get("metrics") or {}),
        notes=tuple(map(str, cell.get("notes") or ())),
        plan=cell.get("plan"),
        failed=None if failed is None else " ".join(str(failed).split()),
    )


def _scores(metrics: Mapping[str, Any]) -> dict[str, Score]:
    return {
        key: Score(float(score["value"]), None if error is None else abs(float(error)))
        for key, score in metrics.items()
        if score is not None and score.get("value") is not None
        for error in [score.get("error")]
    }


def _rows(cells: Sequence[Cell]) -> tuple[Row, ...]:
    """Methods by family, then group, then choice, each in the order of its first cell."""
    families = list(dict.fromkeys((*_FAMILIES, *(cell.family for cell in cells))))
    groups = list(dict.fromkeys(cell.group for cell in cells))
    choices = list(dict.fromkeys(cell.choice for cell in cells))
    rows: list[Row] = []
    for cell in cells:
        # Two cells of one name and S must both be seen: the second opens a row of its own.
        row = next((r for r in rows if _takes(r, cell)), None)
        if row is None:
            rows.append(row := Row(cell.family, cell.group, cell.choice))
        row.cells[cell.num_steps] = cell
    return tuple(
        sorted(
            rows,
            key=lambda row: (
                families.index(row.family),
                groups.index(row.group),
                choices.index(row.choice),
            ),
        )
    )


def _takes(row: Row, cell: Cell) -> bool:
    same = (row.family, row.group, row.choice) == (cell.family, cell.group, cell.choice)
    return same and cell.num_steps not in row.cells


def _plain(value: float) -> str:
    return f"{value:.4g}"
