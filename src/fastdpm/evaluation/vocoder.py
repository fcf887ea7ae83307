"""Measuring a vocoder: recordings, their mel spectrograms, and what the model makes of them."""

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
from fastdpm.evaluation.measure import Measure
from fastdpm.evaluation.metrics import mean_score
from fastdpm.evaluation.scores import Evaluation, Metric
from fastdpm.evaluation.sources import Source, Values, bar_if, to_samples
from fastdpm.evaluation.speech import compare_sounds, least_length, usable_metrics
from fastdpm.sampling.state import Callback

Sound = NDArray[np.float32]
_VERSION = 1  # of the metrics; a change of any number must change it
_LEAST = 2


def read_recordings(path: str, data: DataSpec, n: int) -> list[Sound]:
    """The first ``n`` recordings, each padded with silence to whole mel frames.

    Args:
        path: A folder, zip archive or Parquet file of mono sounds.
        data: What the vocoder was trained on; recordings are scaled to its peak.
        n: At most so many.

    Returns:
        Sounds in [-1, 1], each of its own length.

    Raises:
        DataError: If there are none, or one is damaged, silent or of another sample rate.
        InvalidArgumentError: If the model is no vocoder.
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
        raise DataError(f"{path} holds one recording: a standard error needs at least {_LEAST}")
    return sounds


class SpokenRecording(ModelSource):
    """What a model makes of one recording, of which ``identity`` is a digest."""

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

    def draw(
        self, samples: Sequence[int], callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """The one sample, which has the recording's number."""
        mel = log_mel(torch.from_numpy(self.recording[None]), _mel(self.data))
        chosen = replace(self.options, condition=mel)
        return self.drawer.draw(self.handle.model, [self.number], chosen, callback)


class SpokenRecordings(Source):
    """What a model makes of recordings, each drawn by itself: ``parts``."""

    def __init__(self, parts: Sequence[SpokenRecording]) -> None:
        self.parts, self.size = parts, len(parts)
        self.label, self.data, self.rows = parts[0].label, parts[0].data, parts[0].rows
        self.key = digest([part.key for part in parts])

    @property
    def drawn(self) -> int:
        """How many are kept."""
        return sum(part.drawn for part in self.parts)

    def batches(self, first: int, stop: int, callback: Callback | None = None) -> Iterator[Values]:
        """The sounds from ``first`` to before ``stop``, one at a time."""
        for part in self.parts[first:stop]:
            yield from part.batches(0, 1, callback)


class VocoderMeasure(Measure[SpokenRecordings]):
    """Distances of a vocoder's sounds to the recordings that their mel spectrograms came from.

    Attributes:
        recordings: Each with a digest of its sound and its number.
        table: The metrics that are measured.

    Args:
        path: See :func:`read_recordings`, as for the next two.
        data: What the vocoder was trained on.
        n: Recordings at most.
        cache: Where sounds and scores are kept.
        progress: Show a bar while the model draws.
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
        """What a model makes of the recordings' mel spectrograms, to be measured."""
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
        return Evaluation(
            source.label,
            count,
            self.network,
            self.against,
            self.metrics,
            {m.key: mean_score(values) for m, values in found},
            tuple(f"{less} of {count} pairs have no {m.name}" for m, less in lost if less),
            sum(record["seconds"] for record in records),
            float(np.mean([record["evaluations"] for record in records])),
        )

    def _compare(self, part: SpokenRecording, callback: Callback | None) -> dict[str, float]:
        """Every metric of a pair, and what its sound cost."""
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


def _of_all(bar: Callback, index: int, count: int) -> Callback:
    """A callback of a recording that is drawn by itself, as one of all of them."""
    return lambda state: bar(replace(state, first=index, total=count))


def _mel(data: DataSpec) -> MelSpec:
    if data.mel is None:
        raise InvalidArgumentError("only a vocoder is measured against recordings")
    return data.mel
