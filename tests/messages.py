"""Messages are tested by the values that they carry, and not by their words."""

import re


def tells(*values: object) -> str:
    """A pattern of a message that carries all `values`, in any order.

    Each is found as a whole: 1 is not in "10", "1.5" or "0.1", nor is "out" in "layout". An
    argument is found in `out` and in --out alike.
    """
    return "(?s)" + "".join(f"(?=.*{_whole(str(value))})" for value in values)


def _whole(value: str) -> str:
    if re.fullmatch(r"[\d.,]*\d", value):  # beside a hyphen or a slash it is part of a name
        return rf"(?<![\w./-]){re.escape(value)}(?![\w/-])(?!\.\d)"
    before = r"(?<!\w)" if re.match(r"\w", value) else ""
    after = r"(?!\w)" if re.search(r"\w$", value) else ""
    return before + re.escape(value) + after
