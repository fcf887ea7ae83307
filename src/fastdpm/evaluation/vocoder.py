"""Measuring a vocoder: recordings, their mel spectrograms, and what the model makes of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.data.datasets import open_dataset
from fastdpm.data.mel import log_mel, whole_frames
from fastdpm.data.sound import read_sound
from fastdpm.data.spec import DataSpec, MelSpec
from fastdpm.evaluation.cache import Cache, Shards, digest
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle, Sampler, sampling_key
from fastdpm.evaluation.measure import Measured
from fastdpm.evaluation.scores import Floor, Metric, Score
from fastdpm.evaluation.sources import Values, to_samples, to_values
from fastdpm.evaluation.speech import PairScores, compare_sounds, least_length, usable_metrics
from fastdpm.progress import sampling_bar
from fastdpm.sampling.state import Callback

Sound = NDArray[np.float32]
_VERSION = 1  # of the metrics; a change of any number must change it
_LEAST = 2
_LIBRARIES = (("pesq", "pesq"), ("stoi", "pystoi"))


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


@dataclass
class VocoderMeasure:
    """Distances of a vocoder's sounds to the recordings that their mel spectrograms came from.

    Attributes:
        recordings: As :func:`read_recordings` gives them.
        against: Which they are, in words.
        data: What the vocoder was trained on.
        cache: Where sounds and scores are kept.
        progress: Show a bar while the model draws.
    """

    recordings: Sequence[Sound]
    against: str
    data: DataSpec
    cache: Cache
    progress: bool = False
    network: str = "pairs of sounds"
    metrics: tuple[Metric, ...] = field(init=False)
    left_out: tuple[str, ...] = field(init=False)
    floor: Floor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        usable, self.left_out = usable_metrics(self._rate)
        self.metrics = tuple(Metric(m.key, m.name, m.better) for m in usable)

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.recordings)

    @property
    def _rate(self) -> int:
        return self.data.sample_rate or 0

    def measure_model(
        self, handle: ModelHandle, sampler: Sampler, options: DrawOptions, n: int | None = None
    ) -> Measured:
        """Let the model speak the first ``n`` mel spectrograms, and compare."""
        count = min(self.n if n is None else n, self.n)
        records = []
        with sampling_bar() if self.progress else nullcontext() as bar:
            for index in range(count):
                each = None if bar is None else _of_all(bar, index, count)
                spoken = self._speak(index, handle, sampler, options, each)
                records.append(self._compare(index, spoken))
        found = [(m, PairScores(np.array([r[m.key] for r in records]))) for m in self.metrics]
        left_out = [(m, pairs.left_out) for m, pairs in found if pairs.left_out]
        return Measured(
            count,
            {m.key: Score(pairs.mean, pairs.error) for m, pairs in found},
            tuple(f"{lost} of {count} pairs have no {m.name}" for m, lost in left_out),
            sum(record["seconds"] for record in records),
            float(np.mean([record["evaluations"] for record in records])),
        )

    def check_count(self, n: int) -> None:
        """Raise InvalidArgumentError if so few pairs have no standard error."""
        if n < _LEAST:
            raise InvalidArgumentError(f"{n} pair is too few: a mean needs at least {_LEAST}")

    def count_drawn(self, handle: ModelHandle, sampler: Sampler, options: DrawOptions) -> int:
        """Recordings that are spoken already."""
        return sum(self._shards(index, handle, sampler, options).count for index in range(self.n))

    def pictures(
        self, handle: ModelHandle, sampler: Sampler, options: DrawOptions, count: int
    ) -> Values:
        """The first sounds, float32 (k, length), the shorter ones padded with silence."""
        sounds = []
        for index in range(min(count, self.n)):
            spoken = self._speak(index, handle, sampler, options)
            (arrays,) = spoken.read(0, 1)
            sounds.append(to_samples(arrays["samples"])[0, 0])
        return torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True).numpy()

    def _speak(
        self,
        index: int,
        handle: ModelHandle,
        sampler: Sampler,
        options: DrawOptions,
        callback: Callback | None = None,
    ) -> Shards:
        """What the model makes of a recording, drawn if it is not kept yet."""
        spoken = self._shards(index, handle, sampler, options)
        if spoken.count:
            return spoken
        recording = self.recordings[index]
        mel = log_mel(torch.from_numpy(recording[None]), _mel(self.data))
        chosen = replace(options, condition=mel)
        began = time.perf_counter()
        batches = sampler.draw(handle.model, [index], chosen, callback)
        for sound, evaluations in batches:
            spoken.append(
                0,
                {
                    "samples": to_values(sound),
                    "seconds": np.array([time.perf_counter() - began]),
                    "evaluations": np.array([evaluations]),
                },
            )
        return spoken

    def _shards(
        self, index: int, handle: ModelHandle, sampler: Sampler, options: DrawOptions
    ) -> Shards:
        """Where the sound of a recording is kept."""
        identity = digest(self.recordings[index].tobytes().hex(), index)
        key = digest(sampling_key(handle, sampler, options), identity)
        return self.cache.shards("samples", key)

    def _compare(self, index: int, spoken: Shards) -> dict[str, float]:
        """Every metric of a pair, and what its sound cost."""
        keys = [metric.key for metric in self.metrics]
        libraries = {name: version(package) for name, package in _LIBRARIES if name in keys}
        key = digest(_VERSION, libraries, spoken.folder.name, keys)
        record = self.cache.record("pairs", key)
        if record is None:
            (arrays,) = spoken.read(0, 1)
            generated = to_samples(arrays["samples"])[:, 0].numpy()
            scores = compare_sounds(
                self.recordings[index][None], generated, self._rate, metrics=keys
            )
            record = {name: float(score.values[0]) for name, score in scores.items()}
            record |= {name: float(arrays[name][0]) for name in ("seconds", "evaluations")}
            self.cache.write_record("pairs", key, record)
        return record


def _of_all(bar: Callback, index: int, count: int) -> Callback:
    """A callback of a recording that is drawn by itself, as one of all of them."""
    return lambda state: bar(replace(state, first=index, total=count))


def _mel(data: DataSpec) -> MelSpec:
    if data.mel is None:
        raise InvalidArgumentError("only a vocoder is measured against recordings")
    return data.mel
