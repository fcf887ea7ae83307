"""The published layouts that are recognized, by the name that ``layout`` takes.

A layout is one module of this folder, and a line here. Readers look the table up when they need
it, as ``table.FORMATS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fastdpm.models.formats import adm, ddpm, diffwave, lmnt
from fastdpm.models.formats.format import Format

FORMATS: Mapping[str, Format] = MappingProxyType(
    {"ddpm": ddpm.FORMAT, "diffwave": diffwave.FORMAT, "lmnt": lmnt.FORMAT, "adm": adm.FORMAT}
)
