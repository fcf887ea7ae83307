"""Plans: samplers as tables of float64 coefficients.

A plan has one row per network evaluation,

    x <- sum_j a[s, j] (last states) + sum_j b[s, j] (last predictions) + c[s] z,

where column 0 belongs to the newest state or prediction of eps. The algebra uses ``level``; the
network receives ``t``.
Paper -> code: r -> ``level``, T(r) - 1 -> ``t``.
Source: Kong & Ping 2021, arXiv:2106.00132, section 3.3, for first-order rows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from fastdpm.core.arguments import checked, checked_class
from fastdpm.core.deprecation import renamed
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.levels import check_falling, check_inside
from fastdpm.core.limits import parse_json
from fastdpm.core.schedule import Array

_TABLES = ("level", "t", "a", "b", "c")
_OPTIONAL = ("log_variance", "past", "network_level")
# Keys of the tables in files and fingerprints.
_KEYS = MappingProxyType(
    {name: name for name in (*_TABLES, *_OPTIONAL)} | {"network_level": "told"}
)


_JSON_KEYS = ("format", "version", "fingerprint", "label", "notes", "rounding", *_KEYS.values())


@renamed("told", "network_level")
@renamed("asked", "network_level")
@checked_class
@dataclass(frozen=True, eq=False)
class Plan:
    """Coefficients of a sampler, one row per network evaluation.

    Attributes:
        level: Signal scales, shape (S + 1,), rising from noise to at most 1. A row that uses an
            earlier state may repeat a level, and one that draws noise, or that only uses earlier
            states, may go back to a lower one. Levels of a plan that encodes data fall towards
            noise, and may repeat.
        t: Zero-based real-valued steps for the network, shape (S,).
        a: Weights of the last states, shape (S, A), newest first.
        b: Weights of the last predictions of eps, shape (S, B), newest first.
        c: Standard deviation of each row's noise, shape (S,), at least 0; a row with 0 draws none.
        label: A description of the plan; not part of the fingerprint.
        notes: Remarks for the user; not part of the fingerprint.
        log_variance: For learned variances, the logarithms of the smallest and largest variance of
            each row's noise, shape (S, 2); the network interpolates between them, and ``c`` only
            says which rows draw noise. None for fixed variances.
        network_level: Levels of the steps ``t``, shape (S,); ``level[:-1]`` by default.
        past: Levels of the states before the first one that :func:`fastdpm.run` needs, newest
            first; None if it needs none.
        rounding: How far, in steps, ``t`` may be from the step of ``network_level``; above 0 for
            schedulers that round the steps of their levels.

    Raises:
        InvalidArgumentError: If shapes disagree, a value is not finite, a row needs a state or
            prediction that does not exist yet, or a row does not lead to the next level.
    """

    level: Array
    t: Array
    a: Array
    b: Array
    c: Array
    label: str = "plan"
    notes: tuple[str, ...] = ()
    log_variance: Array | None = None
    past: Array | None = None
    network_level: Array = field(default_factory=lambda: np.empty(0))
    rounding: float = 0.0

    def __post_init__(self) -> None:
        if not np.size(self.network_level):
            object.__setattr__(self, "network_level", np.atleast_1d(self.level)[:-1])
        for name in self._tables():
            table = np.array(getattr(self, name), dtype=np.float64)
            table.flags.writeable = False
            object.__setattr__(self, name, table)
        self._check_shapes()
        self._check_levels()
        if not 0 <= self.rounding <= 1:
            raise InvalidArgumentError(
                f"`rounding` of a plan must be in [0, 1] steps, got {self.rounding:g}"
            )
        outside = self.network_level[(self.network_level <= 0) | (self.network_level > 1)]
        if outside.size:
            raise InvalidArgumentError(
                f"`network_level` of a plan must be in (0, 1], got {outside[0]:g}"
            )
        self._check_history()
        self._check_signal()

    def _tables(self) -> list[str]:
        """Names of the tables that are not None."""
        return [name for name in (*_TABLES, *_OPTIONAL) if getattr(self, name) is not None]

    def _saved_tables(self) -> dict[str, Array]:
        """Tables that files and the fingerprint contain, by key."""
        tables: dict[str, Array] = {name: getattr(self, name) for name in self._tables()}
        network_level = tables.pop("network_level")
        if not np.array_equal(network_level, self.level[:-1]):
            tables[_KEYS["network_level"]] = network_level
        return tables

    def _check_shapes(self) -> None:
        rows = self.t.size
        for name in "ab":
            if getattr(self, name).ndim != 2:
                raise InvalidArgumentError(
                    f"a plan of {rows} rows needs `{name}` of shape ({rows}, columns),"
                    f" got {getattr(self, name).shape}"
                )
        expected: dict[str, tuple[int, ...]] = {"level": (rows + 1,), "t": (rows,), "c": (rows,)}
        expected |= {name: (rows, getattr(self, name).shape[1]) for name in "ab"}
        expected |= {"log_variance": (rows, 2), "past": (self.num_past,)}
        expected |= {"network_level": (rows,)}
        for name in self._tables():
            shape = expected[name]
            if getattr(self, name).shape != shape or 0 in shape:
                raise InvalidArgumentError(
                    f"a plan of {rows} rows needs `{name}` of shape {shape},"
                    f" got {getattr(self, name).shape}"
                )
            if not np.all(np.isfinite(getattr(self, name))):
                raise InvalidArgumentError(f"`{name}` of a plan must be finite")
        if np.any(self.c < 0):
            raise InvalidArgumentError(f"`c` of a plan must be at least 0, got {self.c.min():g}")

    def _check_levels(self) -> None:
        """Levels rise towards data or fall towards noise, but for rows that correct or go back."""
        if self.level[-1] <= self.level[0]:
            check_falling(self.level)
            return
        check_inside(self.level)
        for row in np.flatnonzero(np.diff(self.level) <= 0):
            here, following = self.level[row : row + 2]
            corrects = np.any(self.a[row, 1:]) and (here == following or not self.a[row, 0])
            if not (corrects or self.c[row] > 0):
                raise InvalidArgumentError(
                    f"level {row + 1} is {following:.6g} after {here:.6g}: levels must rise"
                    " strictly towards data, or fall towards noise, except in rows that use an"
                    " earlier state or draw noise"
                )

    def _check_history(self) -> None:
        for name in "ab":
            table: Array = getattr(self, name)
            earlier = 1 + (self.num_past if name == "a" else 0)
            rows, columns = np.nonzero(np.triu(table, earlier))
            if rows.size:
                raise InvalidArgumentError(
                    f"row {rows[0]} of {self.num_rows} uses {name}[{rows[0]}, {columns[0]}], but"
                    f" only {rows[0] + earlier} exist at that row: use fewer columns in early rows"
                )

    def _check_signal(self) -> None:
        """States are x = r x0 + sqrt(1 - r^2) eps, so ``a`` alone must map levels to levels."""
        for row in range(self.num_rows):
            past = self.level[row::-1]
            if self.past is not None:
                past = np.append(past, self.past)
            past = past[: self.a.shape[1]]
            reached = float(self.a[row, : past.size] @ past)
            if abs(reached - self.level[row + 1]) > 1e-9 * np.abs(self.a[row]).max():
                raise InvalidArgumentError(
                    f"row {row} of {self.num_rows} leads to level {reached:.4f}, but the"
                    f" next level is {self.level[row + 1]:.4f}: rebuild the plan from these levels"
                )

    @property
    def num_rows(self) -> int:
        """Number of rows, which is the number of network evaluations."""
        return self.t.size

    @property
    def num_past(self) -> int:
        """Number of states before the first one that a run needs."""
        return 0 if self.past is None else self.past.size

    @property
    def draws_noise(self) -> bool:
        """Whether any row adds fresh noise."""
        return bool(np.any(self.c > 0))

    @property
    def trimmed(self) -> Plan:
        """The plan without columns of earlier states and predictions that no row uses."""
        if self.past is not None:
            return self
        a, b = (table[:, : _used(table)] for table in (self.a, self.b))
        same = a.shape == self.a.shape and b.shape == self.b.shape
        return self if same else replace(self, a=a, b=b)

    @property
    def fingerprint(self) -> str:
        """Hash of the coefficients, rounded to 12 significant digits; 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, table in self._saved_tables().items():
            rounded = " ".join(f"{value + 0.0:.11e}" for value in table.ravel())
            digest.update(f"{name}{table.shape}{rounded}".encode())
        if self.rounding:
            digest.update(f"rounding{self.rounding:.11e}".encode())
        return digest.hexdigest()[:16]

    def to_json(self) -> str:
        """Write the plan as JSON, from which :meth:`from_json` restores every number exactly."""
        tables = {name: table.tolist() for name, table in self._saved_tables().items()}
        head = {"format": "fastdpm-plan", "version": 1, "fingerprint": self.fingerprint}
        head |= {"label": self.label, "notes": self.notes}
        head |= {"rounding": self.rounding} if self.rounding else {}
        return json.dumps(head | tables, indent=1)

    @classmethod
    @checked
    def from_json(cls, text: str) -> Plan:
        """Read a plan that :meth:`to_json` wrote.

        Raises:
            InvalidArgumentError: If the text is not a plan, or its fingerprint does not match.
        """
        data = _read_json(text)
        try:
            tables = {
                name: np.array(data[key], dtype=np.float64)
                for name, key in _KEYS.items()
                if key in data
            }
        except (TypeError, ValueError, OverflowError):
            raise InvalidArgumentError("not a plan: a table must contain numbers only") from None
        notes = data.get("notes", [])
        if not isinstance(notes, list):
            raise InvalidArgumentError(f"not a plan: notes must be a list, got {notes!r}")
        label = str(data.get("label", "plan"))
        rounding = data.get("rounding", 0.0)
        plan = cls(**tables, label=label, notes=tuple(map(str, notes)), rounding=rounding)
        if data.get("fingerprint", plan.fingerprint) != plan.fingerprint:
            raise InvalidArgumentError(
                f"the plan's numbers have fingerprint {plan.fingerprint}, but the file says"
                f" {data['fingerprint']}: it was edited; delete the fingerprint to accept it"
            )
        return plan

    def _scales(self, row: int) -> list[float]:
        """Standard deviation of a row's noise, or its smallest and largest value if learned."""
        if self.log_variance is None:
            return [self.c[row]]
        return list(np.exp(0.5 * self.log_variance[row])) if self.c[row] else [0.0, 0.0]

    def __str__(self) -> str:
        evaluations = f"{self.num_rows} network evaluation{'' if self.num_rows == 1 else 's'}"
        head = f"{self.label}: {evaluations}, fingerprint {self.fingerprint}"
        columns = [("row", 4), ("t", 10), ("level", 12), ("-> level", 12)]
        names = [f"{n}{j}" for n in "ab" for j in range(getattr(self, n).shape[1])]
        names += ["c"] if self.log_variance is None else ["c min", "c max"]
        columns += [(name, 12) for name in names]
        lines = [head, *(f"note: {note}" for note in self.notes)]
        lines.append("".join(f"{name:>{width}}" for name, width in columns))
        for s in range(self.num_rows):
            values = [self.level[s], self.level[s + 1], *self.a[s], *self.b[s], *self._scales(s)]
            lines.append(f"{s:4d}{self.t[s]:10.3f}" + "".join(f"{v:12.6g}" for v in values))
        return "\n".join(lines)


def _read_json(text: str) -> dict[str, Any]:
    """The contents of a plan's JSON, of which all keys are known and none is missing."""
    try:
        data: Any = parse_json(text)
    except ValueError as error:
        raise InvalidArgumentError(f"not a plan: {error}") from None
    if not isinstance(data, dict) or data.get("format") != "fastdpm-plan":
        raise InvalidArgumentError('not a plan: no "format": "fastdpm-plan" in it')
    if data.get("version") != 1:
        raise InvalidArgumentError(f"plan version must be 1, got {data.get('version')!r}")
    unknown = sorted(data.keys() - _JSON_KEYS)
    if unknown:
        raise InvalidArgumentError(
            f"not a plan: unknown key {', '.join(unknown)}, expected {', '.join(_JSON_KEYS)}"
        )
    missing = [name for name in _TABLES if name not in data]
    if missing:
        raise InvalidArgumentError(f"not a complete plan: {', '.join(missing)} missing")
    return data


def _used(table: Array) -> int:
    """The number of columns up to the last one that is not zero, at least 1."""
    return int(np.max(np.flatnonzero(table.any(axis=0)), initial=0)) + 1
