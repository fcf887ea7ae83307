"""Parquet files of encoded images or sounds, in one file or in several parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from fastdpm.core.errors import DataError, check_installed
from fastdpm.core.limits import MAX_SAMPLES, check_limit, check_regular, check_unpacked
from fastdpm.data.listing import MODALITIES, EncodedFile, single_modality

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_COLUMNS = MappingProxyType({"image": ("image", "img"), "audio": ("audio",)})
_LABEL = "label"
_ROWS = 64  # a file of a few bytes can hold many rows of one large value


class Table(NamedTuple):
    """The samples of Parquet files: their modality, their number, and how to read them."""

    modality: str
    size: int
    read: Callable[[Sequence[int]], Iterator[EncodedFile]]


def open_tables(files: Sequence[Path], modality: str | None) -> Table:
    """Open the parts of one data set, which all have the same columns.

    Raises:
        DataError: If a file is damaged, or has no column of the modality.
        MissingExtraError: If pyarrow is not installed.
    """
    check_installed("pyarrow", "pyarrow", "train")
    opened = [_open(file) for file in files]
    first, names = files[0], opened[0].schema_arrow.names
    if modality is None:
        present = [kind for kind in MODALITIES if _column(names, kind)]
        modality = single_modality(first, present)
    kind = modality
    for file, table in zip(files, opened, strict=True):
        if _column(table.schema_arrow.names, kind) is None:
            raise DataError(
                f"{file} has no column {' or '.join(map(repr, _COLUMNS[kind]))}, only"
                f" {', '.join(table.schema_arrow.names)}"
            )
    counts = [table.metadata.num_rows for table in opened]
    check_limit(f"the number of rows of {first}", sum(counts), MAX_SAMPLES)

    def read(indices: Sequence[int]) -> Iterator[EncodedFile]:
        start = 0
        for file, table, count in zip(files, opened, counts, strict=True):
            rows = [i - start for i in indices if start <= i < start + count]
            yield from _read(file, table, rows, kind)
            start += count

    return Table(kind, sum(counts), read)


def _open(file: Path) -> ParquetFile:
    import pyarrow.parquet

    size = check_regular(file)
    with _complete(file):
        table = pyarrow.parquet.ParquetFile(file)
        meta = table.metadata
        unpacked = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    check_unpacked(file, size, unpacked)
    return table


def _read(
    file: Path, table: ParquetFile, rows: Sequence[int], modality: str
) -> Iterator[EncodedFile]:
    names = table.schema_arrow.names
    column = _column(names, modality)
    columns = [column, _LABEL] if _LABEL in names else [column]
    left, start = iter(rows), 0
    row = next(left, None)
    with _complete(file):
        for batch in table.iter_batches(batch_size=_ROWS, columns=columns):
            while row is not None and row < start + len(batch):
                values = batch.slice(row - start, 1).to_pylist()[0]
                yield _encoded(f"{file} row {row}", values, column, modality)
                row = next(left, None)
            start += len(batch)
    if row is not None:
        raise DataError(f"{file} is not a complete Parquet file: it has no row {row}")


def _encoded(name: str, values: Any, column: str | None, modality: str) -> EncodedFile:
    value = values[column]
    encoded = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(encoded, bytes):
        raise DataError(f"{name} holds no encoded {modality} file")
    return EncodedFile(name, encoded, values.get(_LABEL))


def _column(names: Sequence[str], modality: str) -> str | None:
    return next((name for name in _COLUMNS[modality] if name in names), None)


@contextmanager
def _complete(file: Path) -> Iterator[None]:
    """Raise DataError in place of the errors of the reader."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{file} is not a complete Parquet file: {reason}") from None
