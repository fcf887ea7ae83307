"""Print one of the README's two commands, so that CI runs exactly what new users run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
MARKS = {"sample": "fastdpm sample", "test": "pytest"}


def main() -> int:
    """Find the code block that contains the command."""
    mark = MARKS[sys.argv[1]]
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    found = [block for block in blocks if mark in block]
    if not found:
        sys.stderr.write(f"README.md has no command with {mark!r}\n")
        return 1
    sys.stdout.write(found[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
