"""Reading published weights files without executing code.

A file is in the safetensors format or was written by ``torch.save``. It holds the weights by
themselves or in a container, as in {"model_state_dict": state, ...} (DiffWave authors) or [state,
optimizer, epoch, step, averaged state] (DDIM); see :mod:`fastdpm.models.formats.states`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastdpm.core.errors import ModelError
from fastdpm.data.pickled import PICKLES, ZIP, read_pickled
from fastdpm.data.tensors import read_tensors


def read_checkpoint(path: Path) -> Any:
    """Read the content of a weights file: tensors, and what its container holds beside them.

    Raises:
        ModelError: If the file is missing or damaged, or would execute code when read.
    """
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}: pass the path of a file")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise ModelError(f"{path} is empty: download it again")
    if head[8:9] == b"{":
        return read_tensors(path)
    if not head.startswith((ZIP, *PICKLES)):
        raise ModelError(
            f"{path} is not a checkpoint: it starts with {head!r}, so it may be a web page or a"
            " Git LFS pointer; download the file itself"
        )
    return read_pickled(path)
