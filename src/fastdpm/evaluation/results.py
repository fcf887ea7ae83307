"""A comparison: many methods at many S on one network, in rows and columns as in the paper.

A cell is one method at one S. A method is a group (the reverse process or the sampler) and a
choice (approximation and variance schedule, or step spacing). S is the number of steps that the
method was set to; the network evaluations that it made are counted separately. No torch.
Source: Kong & Ping 2021, arXiv:2106.00132, tables 1 to 4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fastdpm.core import samplers
from fastdpm.core.arguments import checked
from fastdpm.core.errors import DataError
from fastdpm.core.limits import read_json
from fastdpm.evaluation.cells import Cell as Cell
from fastdpm.evaluation.cells import ComparedModel, Row
from fastdpm.evaluation.scores import Floor, Metric, Score, number, plain
from fastdpm.evaluation.select import find_cells, find_metrics, find_steps

if TYPE_CHECKING:
    import pandas

    from fastdpm.evaluation.recommendation import Recommendation

FORMAT, VERSION = "fastdpm-comparison", 1
BEST, TIED = "best", "tied"
_DIFFUSERS = "diffusers"


@dataclass(frozen=True)
class Comparison:
    """Many methods at many S on one network; the fields are those of ``results.json``.

    :meth:`plot` and :meth:`plot_samples` draw it, :meth:`table` and :meth:`to_pandas` return its
    numbers, and :meth:`write` writes a whole report.

    Attributes:
        features: The feature network, or a note that pairs of sounds were compared.
        against: The reference data, in words.
        n: Samples per cell, unless a cell has another number.
        metrics: The first is the primary one.
        left_out: What is missing from the comparison, and why.
        cells: Those of few-step methods and of standard samplers, in the order of measurement.
        seconds: Run time, without cached parts.
        versions: Versions of packages, by name.
        command: The command that made it, if a command did.
        pictures: The first samples of each cell by its id, with the same seeds in every cell:
            uint8 images of shape (k, H, W, C) or float32 sounds of shape (k, length) in [-1, 1].
            They are not part of ``results.json``.
        whole: Names of all methods of the comparison that this one was selected from.
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
    whole: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def read(cls, path: str | Path) -> Comparison:
        """Read what :meth:`write` or ``fastdpm compare`` wrote, to draw it again.

        Args:
            path: The folder of the report, or its ``results.json``.

        Raises:
            DataError: If there is no such file, or it is not a comparison of this version.
        """
        file = Path(path)
        file = file / "results.json" if file.is_dir() else file
        try:
            results = read_json(file)
        except (OSError, ValueError) as error:
            raise DataError(
                f"no comparison at {str(file)!r} ({type(error).__name__}): pass the folder that"
                " `fastdpm compare` wrote"
            ) from None
        return cls.from_dict(results if isinstance(results, dict) else {})

    @classmethod
    def from_dict(cls, results: Mapping[str, Any]) -> Comparison:
        """Read the content of ``results.json``.

        Raises:
            DataError: If the format or version is another one, or something is missing.
        """
        kind = (results.get("format"), results.get("version"))
        if kind != (FORMAT, VERSION):
            raise DataError(
                f"expected the results of a comparison, version {VERSION}, got format"
                f" {kind[0]!r}, version {kind[1]!r}: run `fastdpm compare` with this version of"
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
                f"the results of the comparison are incomplete ({type(error).__name__}: {error}):"
                " run `fastdpm compare` again"
            ) from None

    @property
    def results(self) -> dict[str, Any]:
        """Plain values for JSON: the content of ``results.json``."""
        record = {item.name: getattr(self, item.name) for item in fields(self) if item.compare}
        return {"format": FORMAT, "version": VERSION, **plain(record)}

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The few-step methods by family, group and choice, in the order of measurement."""
        cells = [cell for cell in self.cells if not cell.takes_all_steps]
        rows: dict[tuple[str, str, str, int], Row] = {}
        seen: Counter[tuple[str, str, str, int]] = Counter()
        for cell in cells:
            # Two cells with the same name and S must both be seen: the second gets its own row.
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
    def listed(self) -> tuple[str, ...]:
        """Names of all few-step methods, also of those that :meth:`select` left out."""
        return self.whole or tuple(row.name for row in self.rows)

    @property
    def references(self) -> tuple[Cell, ...]:
        """Cells of the standard samplers, which take all T steps."""
        return tuple(cell for cell in self.cells if cell.takes_all_steps)

    @property
    def steps(self) -> tuple[int, ...]:
        """The columns: every S of a few-step method, rising."""
        return tuple(sorted({s for row in self.rows for s in row.cells}))

    def floor_score(self, metric: Metric) -> Score | None:
        """The score of real data, if it is known and finite."""
        return None if self.floor is None else self.floor.scores.get(metric.key)

    def comparable_floor(self, metric: Metric) -> Score | None:
        """The score of real data, if a figure can show it next to the cells.

        A distance falls as samples are added, so fewer real samples give no lower bound.
        """
        comparable = self.floor is not None and self.floor.n >= self.n
        return self.floor_score(metric) if comparable else None

    @property
    def primary(self) -> Metric:
        """The metric that ranks the methods."""
        return self.metrics[0]

    @property
    def families(self) -> tuple[str, ...]:
        """Families of the few-step methods, in order."""
        return tuple(dict.fromkeys(row.family for row in self.rows))

    @property
    def notes(self) -> tuple[str, ...]:
        """Every note on a cell, once: first those on all cells, then the others in order."""
        found = dict.fromkeys(note for cell in self.cells for note in cell.notes)
        return tuple(sorted(found, key=lambda note: not self._is_shared(note)))

    @property
    def shared_notes(self) -> tuple[str, ...]:
        """The notes on all cells, which come first in :attr:`notes`."""
        return tuple(note for note in self.notes if self._is_shared(note))

    def note_numbers(self, cell: Cell) -> list[int]:
        """Numbers, from 1, of the notes on this cell, without those on all cells."""
        own = (note for note in cell.notes if not self._is_shared(note))
        return sorted(self.notes.index(note) + 1 for note in own)

    def _is_shared(self, note: str) -> bool:
        return len(self.cells) > 1 and all(note in cell.notes for cell in self.cells)

    def marks(self, metric: Metric, num_steps: int) -> dict[str, str]:
        """Cell id -> BEST or TIED (within a standard error of the best) in one column.

        Cells that took more than S evaluations are not compared.
        """
        cells = [row.cells[num_steps] for row in self.rows if num_steps in row.cells]
        kept = [c for c in cells if metric.key in c.scores and not c.costs_more]
        if not kept:
            return {}
        pick = min if metric.lower_is_better else max
        best = pick(kept, key=lambda cell: cell.scores[metric.key].value)
        apart = {cell.id: self.difference(cell, best, metric) for cell in kept}
        tied = {name: TIED for name, d in apart.items() if d is None or abs(d.value) <= d.spread}
        return tied | {best.id: BEST}

    @property
    def paired(self) -> bool:
        """Whether scores keep what the errors of their differences need; old files do not."""
        return any(score.halves for cell in self.cells for score in cell.scores.values())

    def difference(self, cell: Cell, other: Cell, metric: Metric) -> Score | None:
        """The score of one cell minus that of another, with its standard error.

        All methods use the same seeds, so that much of their errors cancels. None if one has no
        score, or if they have different numbers of samples, on which many metrics depend.
        """
        key = metric.key
        if key not in cell.scores or key not in other.scores or cell.n != other.n:
            return None
        return cell.scores[key].minus(other.scores[key])

    def best(self, metric: Metric, num_steps: int) -> Cell | None:
        """The best cell of one column, or None if nothing was measured."""
        marks = self.marks(metric, num_steps)
        return next((cell for cell in self.cells if marks.get(cell.id) == BEST), None)

    @property
    def best_cells(self) -> list[Cell]:
        """The best cell of each column by the primary metric, where there is one."""
        return self.best_by(self.primary)

    def best_by(self, metric: Metric) -> list[Cell]:
        """The best cell of each column by a metric, where there is one."""
        return [c for s in self.steps if (c := self.best(metric, s)) is not None]

    def reference(self, metric: Metric) -> Cell | None:
        """The first standard sampler that the metric has a value for."""
        return next((cell for cell in self.references if metric.key in cell.scores), None)

    def select(
        self,
        methods: Iterable[str] | str | None = None,
        metrics: Iterable[str] | str | None = None,
        num_steps: Iterable[int] | int | None = None,
    ) -> Comparison:
        """A part of the comparison, with "best" taken among what is left.

        Args:
            methods: Keys ("var-linear-k0"), families ("paper"), groups ("DDIM-rev") or names
                ("DDIM-rev, VAR linear"). The standard samplers are always kept.
            metrics: Keys ("frechet_distance") or short names ("FD"). The first becomes the
                primary one.
            num_steps: Values of S.

        Raises:
            InvalidArgumentError: If the comparison has no such method, metric or S.
        """
        cells = self.cells if methods is None else find_cells(self.cells, methods)
        found = replace(self, cells=cells, whole=self.listed)
        if num_steps is not None:
            kept = find_steps(found.steps, num_steps)
            few = (c for c in cells if c.takes_all_steps or c.num_steps in kept)
            found = replace(found, cells=tuple(few))
        if metrics is not None:
            found = replace(found, metrics=find_metrics(self.metrics, metrics))
        return found

    @checked
    def recommend(
        self, budget: float | None = None, quality: float | None = None
    ) -> Recommendation:
        """Choose what to use among the cells that can be sampled by name, by the primary metric.

        Args:
            budget: The most network evaluations per sample; by default any number.
            quality: The value to reach with as few evaluations as possible. Set one of both.

        Raises:
            InvalidArgumentError: If the budget is below all cells, or no cell qualifies.
        """
        from fastdpm.evaluation.recommendation import choose

        return choose(self, budget, quality)

    def plot(
        self,
        path: str | Path,
        *,
        methods: Iterable[str] | str | None = None,
        metrics: Iterable[str] | str | None = None,
        num_steps: Iterable[int] | int | None = None,
    ) -> None:
        """Draw metrics against network evaluations, one below the other.

        Up to six methods share a panel with a label at each curve. More get one panel per group.

        Args:
            path: A .png, .pdf or .svg file, replaced if it exists.
            methods: See :meth:`select`; all by default.
            metrics: See :meth:`select`; the primary one by default.
            num_steps: Values of S; all by default.

        Raises:
            InvalidArgumentError: If a name is unknown, or the file has another suffix.
        """
        from fastdpm.evaluation.report.figures import write_distance

        shown = [self.primary.key] if metrics is None else metrics
        write_distance(Path(path), self.select(methods, shown, num_steps))

    def plot_samples(
        self,
        path: str | Path,
        *,
        num_steps: Iterable[int] | int | None = None,
        methods: Iterable[str] | str | None = None,
    ) -> None:
        """Draw samples with the same seeds in each column, one row per method.

        Args:
            path: A .png, .pdf or .svg file, replaced if it exists.
            num_steps: Values of S; the smallest and a middle one by default.
            methods: See :meth:`select`. By default as many as fit, the best ones first.

        Raises:
            InvalidArgumentError: If a name is unknown, the file has another suffix, or there are
                no samples because the comparison was read from a file.
        """
        from fastdpm.evaluation.report.samples import draw_samples

        draw_samples(Path(path), self, num_steps=num_steps, methods=methods)

    def table(
        self, metric: str | None = None, *, methods: Iterable[str] | str | None = None
    ) -> str:
        """A Markdown table: one row per method, one column per S, then the references.

        Args:
            metric: A key or a short name, or "seconds_per_sample"; the primary one by default.
            methods: See :meth:`select`; all by default.

        Raises:
            InvalidArgumentError: If a name is unknown.
        """
        from fastdpm.evaluation.report.markdown import table_text

        return table_text(self.select(methods), metric)

    def to_pandas(self) -> pandas.DataFrame:
        """One row per cell, with the columns of ``results.csv``. Needs pandas."""
        from fastdpm.evaluation.report.frame import data_frame

        return data_frame(self)

    def write(self, folder: str | Path, *, formats: Sequence[str] = ("png",)) -> list[Path]:
        """Write tables, figures and an HTML page; see :func:`report.write.write_report`.

        Args:
            folder: Created if it does not exist; an earlier report in it is replaced.
            formats: Formats of the figures: "png", "pdf" and "svg".

        Returns:
            The files.
        """
        from fastdpm.evaluation.report.write import write_report

        return write_report(Path(folder), self, formats=formats)
