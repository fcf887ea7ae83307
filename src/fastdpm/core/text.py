"""Text from files and names, made safe to show on a terminal, in Markdown and in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

# Control characters, surrogates, and format characters that are invisible or reorder text.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_MARKED = re.compile(r"[\\`*\[\]<>|#~&$]|(?<!\w)_|_(?!\w)")
_LONGEST = 60
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_PLAIN = MappingProxyType(  # what an encoding may lack: plus-minus, minus, times, arrow, kappa
    {"\u00b1": "+-", "\u2212": "-", "\u00d7": "x", "\u2192": "->", "\u03ba": "kappa"}
    | {"\u2020": "+", "\u2013": "-", "\u2014": "-", "\u2019": "'"}
)


def visible(text: str) -> str:
    r"""The text with characters that a terminal would obey, or not show, as escapes.

    These are control characters such as ``\x1b``, line breaks, and marks of direction.
    """
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: Any) -> str:
    """Visible text, with any white space as single spaces."""
    return visible(" ".join(str(text).split()))


def shortened(value: Any) -> str:
    """A value as text of at most 60 characters."""
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def markdown_text(text: Any) -> str:
    """One line that Markdown, and the HTML in it, shows as it is."""
    return _MARKED.sub(r"\\\g<0>", one_line(text))


def csv_table(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """A CSV table with a header.

    Text that a spreadsheet would take for a formula starts with an apostrophe; numbers stay as
    they are.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(line[name]) for name in columns] for line in lines)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def replace_unknown(error: UnicodeError) -> tuple[str, int]:
    """An error handler of streams: what an encoding lacks, in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_ascii, lacking)), error.end


def _ascii(character: str) -> str:
    nearest = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return _PLAIN.get(character) or nearest or "?"


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless the number is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
