"""Measuring a vocoder: recordings, their mel spectrograms, and the sounds made from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.data.datasets import open_dataset
from fastdpm.data.mel import log_mel, whole_frames
from fastdpm.data.sound import read_sound
from fastdpm.data.spec import DataSpec, MelSpec
from fastdpm.evaluation.cache import Cache, digest
from fastdpm.evaluation.drawn import Drawer, DrawOptions, ModelHandle, ModelSource
from fastdpm.evaluation.halves import mean_score
from fastdpm.evaluation.measure import Measure
from fastdpm.evaluation.scores import Evaluation, Metric
from fastdpm.evaluation.sources import Source, Values, bar_if, to_samples
from fastdpm.evaluation.speech import compare_sounds, least_length, usable_metrics
from fastdpm.sampling.state import Callback

Sound = NDArray[np.float32]
_VERSION = 1  # increase it if a metric of the same sounds changes
_LEAST = 2
_FRAME = 128  # samples; at most half of a frame of the log-mel distance
_SILENCE_LIMIT = 0.05


def read_recordings(path: str, data: DataSpec, n: int) -> list[Sound]:
    """Read the first ``n`` recordings, each padded with silence to whole mel frames.

    Args:
        path: A folder, zip archive or Parquet file of mono sounds.
        data: The data that the vocoder was trained on; recordings are scaled to its peak.
        n: Read at most this many recordings.

    Returns:
        Sounds in [-1, 1], each of its own length.

    Raises:
        DataError: If there are none, or one is damaged, silent or has another sample rate.
        InvalidArgumentError: If the model is not a vocoder.
    """
    least = least_length(data.sample_rate or 0)
    sounds = []
    for file in islice(open_dataset(path, "audio", alone=True), n):
        sound = whole_frames(read_sound(file.name, file.data, data), _mel(data))
        if len(sound) < least:
            raise DataError(
                f"{file.name} has {len(sound)} samples, the metrics need at least {least} at"
                f" {data.sample_rate} Hz: leave it out"
            )
        sounds.append(sound)
    if len(sounds) < _LEAST:
        raise DataError(
            f"{path} holds one recording, but a standard error needs at least {_LEAST}"
        )
    return sounds


class SpokenRecording(ModelSource):
    """The sound that a model makes from one recording; ``identity`` is a digest of it."""

    size = 1

    def __init__(
        self,
        number: int,
        recording: Sound,
        identity: str,
        handle: ModelHandle,
        drawer: Drawer,
        options: DrawOptions,
        cache: Cache,
    ) -> None:
        super().__init__(handle, drawer, options, cache, identity)
        self.number, self.recording = number, recording

    @property
    def drawing(self) -> DrawOptions:
        """See :class:`ModelSource`; the condition is the recording's mel spectrogram."""
        mel = log_mel(torch.from_numpy(self.recording[None]), _mel(self.data))
        return replace(self.options, condition=mel)

    def draw(
        self, samples: Sequence[int], callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """Draw the one sample; its index is the recording's number."""
        return self.drawer.draw(self.handle.model, [self.number], self.drawing, callback)


class SpokenRecordings(Source):
    """The sounds that a model makes from recordings, each drawn separately: ``parts``."""

    def __init__(self, parts: Sequence[SpokenRecording]) -> None:
        self.parts, self.size = parts, len(parts)
        first = parts[0]
        self.label, self.data = first.label, first.data
        self.rows, self.noise_rows = first.rows, first.noise_rows
        self.key = digest([part.key for part in parts])

    @property
    def drawn(self) -> int:
        """How many are in the cache."""
        return sum(part.drawn for part in self.parts)

    @property
    def probe(self) -> ModelSource:
        """The recording whose length is nearest the mean."""
        lengths = np.array([len(part.recording) for part in self.parts])
        return self.parts[int(np.abs(lengths - lengths.mean()).argmin())]

    def batches(self, first: int, stop: int, callback: Callback | None = None) -> Iterator[Values]:
        """The sounds from ``first`` to before ``stop``, one at a time."""
        for part in self.parts[first:stop]:
            yield from part.batches(0, 1, callback)


class VocoderMeasure(Measure[SpokenRecordings]):
    """Measures a vocoder by the distances of its sounds to the original recordings.

    Attributes:
        recordings: Each with a digest of its sound and its number.
        table: The metrics that are measured.

    Args:
        path: A folder, zip archive or Parquet file of recordings.
        data: The data that the vocoder was trained on.
        n: Read at most this many recordings.
        cache: Where sounds and scores are kept.
        progress: Show a progress bar while the model draws.
    """

    least = _LEAST
    network = "pairs of sounds"

    def __init__(
        self, path: str, data: DataSpec, n: int, cache: Cache, progress: bool = False
    ) -> None:
        sounds = read_recordings(path, data, n)
        self.recordings = [(x, digest(x.tobytes().hex(), i)) for i, x in enumerate(sounds)]
        self.n, self.cache, self.progress = len(self.recordings), cache, progress
        self.against = f"{self.n} recordings of {Path(path).name}"
        self.table, self.left_out = usable_metrics(data.sample_rate or 0)
        self.metrics = tuple(Metric(m.key, m.name, m.better) for m in self.table)

    def source(
        self, handle: ModelHandle, drawer: Drawer, options: DrawOptions
    ) -> SpokenRecordings:
        """The sounds that a model makes from the recordings' mel spectrograms."""
        parts = [
            SpokenRecording(i, sound, identity, handle, drawer, options, self.cache)
            for i, (sound, identity) in enumerate(self.recordings)
        ]
        return SpokenRecordings(parts)

    def measure(self, source: SpokenRecordings, n: int | None = None) -> Evaluation:
        """Compare the first ``n`` sounds with their recordings."""
        count = min(self.n if n is None else n, self.n)
        parts, records = source.parts[:count], []
        with bar_if(self.progress and not all(part.drawn for part in parts)) as bar:
            for index, part in enumerate(parts):
                callback = None if bar is None else _of_all(bar, index, count)
                records.append(self._compare(part, callback))
        found = [(m, np.array([record[m.key] for record in records])) for m in self.metrics]
        lost = [(m, int((~np.isfinite(values)).sum())) for m, values in found]
        notes = [f"{less} of {count} pairs have no {m.name}" for m, less in lost if less]
        notes += _silence_note([sound for sound, _ in self.recordings[:count]])
        return Evaluation(
            source.label,
            count,
            self.network,
            self.against,
            self.metrics,
            {m.key: mean_score(values) for m, values in found},
            tuple(notes),
            sum(record["seconds"] for record in records),
            float(np.mean([record["evaluations"] for record in records])),
        )

    def _compare(self, part: SpokenRecording, callback: Callback | None) -> dict[str, float]:
        """Compute every metric of a pair, and the cost of drawing its sound."""
        keys = [metric.key for metric in self.table]
        libraries = {m.key: version(m.library) for m in self.table if m.library is not None}
        key = digest(_VERSION, libraries, part.key, keys)
        record = self.cache.record("pairs", key)
        if record is None:
            (values,) = part.batches(0, 1, callback)
            pair = (part.recording[None], to_samples(values)[:, 0].numpy())
            scores = compare_sounds(*pair, part.data.sample_rate or 0, metrics=keys)
            record = {name: float(value) for name, (value,) in scores.items()}
            record |= dict(zip(("seconds", "evaluations"), part.cost(1), strict=True))
            self.cache.write_record("pairs", key, record)
        return record


def silent_part(sound: Sound) -> float:
    """The part of a recording's frames, of ``_FRAME`` samples, that hold exact zeros only."""
    frames = sound[: len(sound) // _FRAME * _FRAME].reshape(-1, _FRAME)
    return float(np.mean(~frames.any(axis=1))) if len(frames) else 0.0


def _silence_note(recordings: Sequence[Sound]) -> list[str]:
    silent = sum(silent_part(sound) > _SILENCE_LIMIT for sound in recordings)
    if not silent:
        return []
    return [
        f"{silent} of {len(recordings)} recordings are digital silence (exact zeros) for more than"
        f" {_SILENCE_LIMIT:.0%} of their length, which dominates log-mel distances: add quiet"
        " noise to them, or trim them"
    ]


def _of_all(bar: Callback, index: int, count: int) -> Callback:
    """A callback for one recording that reports its position among all of them."""
    return lambda state: bar(replace(state, first=index, total=count))


def _mel(data: DataSpec) -> MelSpec:
    if data.mel is None:
        raise InvalidArgumentError(
            "only a vocoder is measured against recordings, and this model is not one"
        )
    return data.mel
