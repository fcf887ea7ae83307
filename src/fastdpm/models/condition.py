"""Reading what a vocoder is conditioned on: a sound file or a mel spectrogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.models.config import DataSpec
from fastdpm.models.folder import read_mel
from fastdpm.models.mel import log_mel, whole_frames
from fastdpm.models.sound import read_sound


def read_condition(path: Path, data: DataSpec) -> Tensor:
    """Read a condition.

    Args:
        path: A mel spectrogram, .npy or .safetensors (tensor "mel"), shape (bands, frames) or
            (m, bands, frames), on the scale of :func:`fastdpm.models.mel.log_mel`; or a mono
            sound file at the model's sample rate, padded with silence to whole frames.
        data: What the model was trained on.

    Returns:
        Shape (m, bands, frames).

    Raises:
        InvalidArgumentError: If the file does not exist, or holds another shape or sample rate.
        DataError: If it cannot be read.
    """
    if data.mel is None:
        raise InvalidArgumentError("this model takes no condition: drop it")
    if not path.is_file():
        raise InvalidArgumentError(f"no condition at {str(path)!r}: give a sound or mel file")
    if path.suffix == ".npy":
        try:
            mel = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        except (ValueError, EOFError, TypeError) as error:
            raise InvalidArgumentError(f"{path} is not an array of numbers: {error}") from None
    elif path.suffix == ".safetensors":
        mel = read_mel(path).float()
    else:
        sound = read_sound(str(path), path.read_bytes(), data)
        mel = log_mel(torch.from_numpy(whole_frames(sound, data.mel))[None], data.mel)
    return mel[None] if mel.ndim == 2 else mel
