"""MkDocs hooks that convert equations and the cross-references of docstrings.

Equations become MathML, which browsers render without scripts or fonts.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_ROLE = re.compile(r":(?:class|func|meth|data|attr|mod):<code>~?([\w.]+)</code>")


def on_page_content(content: str, **_: Any) -> str:
    """Convert the equations and the cross-references of a page."""
    return _ROLE.sub(_reference, _MATH.sub(_equation, content))


def _equation(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    return str(convert(html.unescape(found[2]).strip(), display=display))


def _reference(found: re.Match[str]) -> str:
    name = found[1]
    return f'<autoref identifier="{name}" optional><code>{name}</code></autoref>'
