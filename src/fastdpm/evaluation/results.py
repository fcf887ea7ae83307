"""A comparison: many methods at many S on one network, in rows and columns as in the paper.

A cell is one method at one S. A method is a group (the reverse process or the sampler) and a
choice (approximation and variance schedule, or step spacing). S is the number of steps asked
for; the network evaluations really made may be more or fewer, and are counted apart. No torch.
Source: Kong & Ping 2021, arXiv:2106.00132, tables 1 to 4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from fastdpm.core import samplers
from fastdpm.core.errors import DataError
from fastdpm.evaluation.scores import Floor, Metric, Score, finite, number, plain, read_scores

FORMAT, VERSION = "fastdpm-comparison", 1
BEST, TIED = "best", "tied"
_DIFFUSERS, _STANDARD = "diffusers", "standard"


@dataclass(frozen=True)
class Cell:
    """One method at one S, measured.

    Attributes:
        num_steps: S, as asked for.
        evaluations: Network evaluations that a sample took; None where nothing was drawn.
        n: Samples measured.
        seconds: Spent drawing them; None where it was not recorded.
        metrics: Every score by the metric's key.
        plan: The plan's fingerprint; None where there is no plan.
        failed: Why there is nothing to show, or None.
    """

    id: str
    method: str
    family: str
    group: str
    choice: str
    num_steps: int
    evaluations: float | None = None
    n: int = 0
    seconds: float | None = None
    metrics: Mapping[str, Score] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    plan: str | None = None
    failed: str | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Cell:
        """From the values of :func:`plain`; a KeyError, TypeError or ValueError if not."""
        return cls(
            id=str(record["id"]),
            method=record.get("method") or "",
            family=record["family"],
            group=record["group"],
            choice=record.get("choice") or "",
            num_steps=int(record["num_steps"]),
            evaluations=number(record.get("evaluations")),
            n=int(record.get("n") or 0),
            seconds=number(record.get("seconds")),
            metrics=read_scores(record.get("metrics") or {}),
            notes=tuple(map(str, record.get("notes") or ())),
            plan=record.get("plan"),
            failed=None if record.get("failed") is None else str(record["failed"]),
        )

    @property
    def scores(self) -> dict[str, Score]:
        """The finite ones of ``metrics``; none of a cell that failed."""
        return {} if self.failed is not None else finite(self.metrics)

    @property
    def name(self) -> str:
        """The method, in words."""
        return f"{self.group}, {self.choice}" if self.choice else self.group

    @property
    def takes_all_steps(self) -> bool:
        """Whether the method is a standard sampler, for which S is not chosen."""
        row = samplers.SAMPLERS.get(self.method)
        return self.family == _STANDARD if row is None else row.all_steps

    @property
    def num_evaluations(self) -> float:
        """Network evaluations of a sample; S where nothing was drawn."""
        return self.num_steps if self.evaluations is None else self.evaluations

    @property
    def cost(self) -> str:
        """The network evaluations, in words."""
        return f"{self.num_evaluations:,.10g} evaluations"

    @property
    def costs_more(self) -> bool:
        """Whether more than S evaluations were made, so that S does not say what it cost."""
        return self.num_evaluations > self.num_steps

    @property
    def reason(self) -> str | None:
        """Why there is nothing to show, in one line, or None."""
        return None if self.failed is None else " ".join(self.failed.split())

    @property
    def missing(self) -> str:
        """What stands where a metric has no value."""
        return "not finite or not measured" if self.failed is None else f"failed: {self.reason}"


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
        return next(iter(self.cells.values())).name


@dataclass(frozen=True)
class ComparedModel:
    """The model: T is the number of its training steps; a sample rate is in Hz."""

    name: str
    weights_sha256: str | None
    T: int
    modality: str | None
    sample_rate: int | None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ComparedModel:
        """From the values of :func:`plain`; a KeyError, TypeError or ValueError if not."""
        weights, modality, rate = map(record.get, ("weights_sha256", "modality", "sample_rate"))
        return cls(str(record["name"]), weights, int(record["T"]), modality, rate)


@dataclass(frozen=True)
class Comparison:
    """Many methods at many S on one network; the fields are those of ``results.json``.

    Attributes:
        features: The feature network, or that pairs of sounds were compared.
        against: The reference, in words.
        n: Samples of a cell, unless the cell says otherwise.
        metrics: The first is the primary one.
        left_out: What a reader would look for in vain.
        cells: Of few-step methods and of standard samplers, as they were recorded.
        seconds: That it took, less what was cached.
        versions: Of packages, by name.
        command: How to do it again.
        pictures: The first samples of a cell, by its id, of the same seeds in every cell: uint8
            images of shape (k, H, W, C) or float32 sounds of shape (k, length) in [-1, 1]. Not in
            the file.
    """

    model: ComparedModel
    features: str | None
    against: str | None
    n: int
    seed: int | None
    clip: str | None
    precision: str | None
    metrics: tuple[Metric, ...]
    left_out: tuple[str, ...]
    floor: Floor | None
    cells: tuple[Cell, ...]
    seconds: float | None
    versions: Mapping[str, str]
    command: str | None
    pictures: Mapping[str, NDArray[Any]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_dict(cls, results: Mapping[str, Any]) -> Comparison:
        """Read what ``results.json`` holds.

        Raises:
            DataError: If it is of another format or version, or not whole.
        """
        kind = (results.get("format"), results.get("version"))
        if kind != (FORMAT, VERSION):
            raise DataError(
                f"these are no results of a comparison in version {VERSION} (got format"
                f" {kind[0]!r}, version {kind[1]!r}): run `fastdpm compare` with this version of"
                " fastdpm"
            )
        names = ("features", "against", "seed", "clip", "precision", "command")
        as_is: Any = {name: results.get(name) for name in names}
        try:
            metrics = tuple(Metric(m["key"], m["name"], m["better"]) for m in results["metrics"])
            if not metrics:
                raise ValueError("no metrics")
            return cls(
                model=ComparedModel.from_dict(results["model"]),
                n=int(results["n"]),
                metrics=metrics,
                left_out=tuple(results.get("left_out") or ()),
                floor=results.get("floor") and Floor.from_dict(results["floor"]),
                cells=tuple(Cell.from_dict(cell) for cell in results["cells"]),
                seconds=number(results.get("seconds")),
                versions=results.get("versions") or {},
                **as_is,
            )
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f"the results of the comparison are not whole ({type(error).__name__}: {error}):"
                " run `fastdpm compare` again"
            ) from None

    @property
    def results(self) -> dict[str, Any]:
        """Plain values for JSON: what ``results.json`` holds."""
        record = {item.name: getattr(self, item.name) for item in fields(self) if item.compare}
        return {"format": FORMAT, "version": VERSION, **plain(record)}

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The few-step methods by family, group and choice, in the order they were recorded."""
        cells = [cell for cell in self.cells if not cell.takes_all_steps]
        rows: dict[tuple[str, str, str, int], Row] = {}
        seen: Counter[tuple[str, str, str, int]] = Counter()
        for cell in cells:
            # Two cells of one name and S must both be seen: the second opens a row of its own.
            names, key = (cell.family, cell.group, cell.choice), cell.num_steps
            rows.setdefault((*names, seen[*names, key]), Row(*names)).cells[key] = cell
            seen[*names, key] += 1
        known = (row.family for row in samplers.SAMPLERS.values())
        orders = [
            list(dict.fromkeys((*known, _DIFFUSERS, *(cell.family for cell in cells)))),
            list(dict.fromkeys(cell.group for cell in cells)),
            list(dict.fromkeys(cell.choice for cell in cells)),
        ]

        def place(row: Row) -> list[int]:
            names = (row.family, row.group, row.choice)
            return [order.index(name) for order, name in zip(orders, names, strict=True)]

        return tuple(sorted(rows.values(), key=place))

    @property
    def references(self) -> tuple[Cell, ...]:
        """Cells of the standard samplers, of all T steps."""
        return tuple(cell for cell in self.cells if cell.takes_all_steps)

    @property
    def steps(self) -> tuple[int, ...]:
        """The columns: every S of a few-step method, rising."""
        return tuple(sorted({s for row in self.rows for s in row.cells}))

    def floor_score(self, metric: Metric) -> Score | None:
        """What real data scored, if that is known and finite."""
        return None if self.floor is None else self.floor.scores.get(metric.key)

    @property
    def drawn_floor(self) -> Score | None:
        """The floor of the primary metric where it can stand in one figure with the cells.

        A distance falls as samples are added, so real data of fewer samples is no floor.
        """
        comparable = self.floor is not None and self.floor.n >= self.n
        return self.floor_score(self.primary) if comparable else None

    @property
    def primary(self) -> Metric:
        """The metric that methods are chosen by."""
        return self.metrics[0]

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
        cells = [row.cells[num_steps] for row in self.rows if num_steps in row.cells]
        kept = [c for c in cells if metric.key in c.scores and not c.costs_more]
        column = {cell.id: cell.scores[metric.key] for cell in kept}
        if not column:
            return {}
        pick = min if metric.lower_is_better else max
        best = pick(column, key=lambda name: column[name].value)
        tied = {name: TIED for name, score in column.items() if score.meets(column[best])}
        return tied | {best: BEST}

    def best(self, metric: Metric, num_steps: int) -> Cell | None:
        """The best cell of one column, None where nothing was measured."""
        marks = self.marks(metric, num_steps)
        return next((cell for cell in self.cells if marks.get(cell.id) == BEST), None)

    @property
    def best_cells(self) -> list[Cell]:
        """The best cell of each column by the primary metric, where there is one."""
        return [c for s in self.steps if (c := self.best(self.primary, s)) is not None]

    def reference(self, metric: Metric) -> Cell | None:
        """The first standard sampler that the metric has a value for."""
        return next((cell for cell in self.references if metric.key in cell.scores), None)
