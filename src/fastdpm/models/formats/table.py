"""The supported checkpoint formats, by the name that ``layout`` takes.

Each format is a module of this folder and an entry here. Refer to the table as ``table.FORMATS``,
so that tests can replace it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fastdpm.models.formats import adm, ddpm, diffwave, lmnt
from fastdpm.models.formats.format import Format

FORMATS: Mapping[str, Format] = MappingProxyType(
    {"ddpm": ddpm.FORMAT, "diffwave": diffwave.FORMAT, "lmnt": lmnt.FORMAT, "adm": adm.FORMAT}
)
