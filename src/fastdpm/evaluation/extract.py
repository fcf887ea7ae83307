"""Computing the features of samples: the stage between drawing and measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.spec import DataSpec
from fastdpm.data.tensors import bytes_digest
from fastdpm.evaluation.cache import Cache, digest, versions
from fastdpm.evaluation.inception import InceptionExtractor
from fastdpm.evaluation.metrics import Features, check_features
from fastdpm.evaluation.sources import Source, Values, bar_if, describe, to_samples
from fastdpm.evaluation.statistics import Statistics, read_statistics
from fastdpm.models.features import (
    builtin_features,
    features_for,
    find_features,
    load_features,
)

_DECIDING = ("fastdpm", "torch", "numpy", "pillow", "soundfile")
_VERSION = 1  # increase it if features of the same samples change


class FeatureExtractor:
    """A built-in feature network, or one trained by `fastdpm train`.

    The name of the latter ends in the first digits of its weights' checksum.

    Attributes:
        name: Printed name of the network.
        fingerprint: Digest of its weights.
        settings: Everything else that decides its features.
        splits: Runs that the Inception score is averaged over.
        data: The samples it takes; None for images of any size.
        classes: Names of the classes of its logits; empty if samples have none of them.
    """

    splits = 1

    def __init__(self, name_or_path: str | Path, device: str = "auto") -> None:
        self.network = load_features(name_or_path, device)
        self.fingerprint = self.network.fingerprint
        self.settings = self.network.config.network
        self.name = self.network.name
        if str(name_or_path) not in builtin_features():
            self.name += f" {self.fingerprint[:8]}"
        self.data: DataSpec | None = self.network.config.data
        self.classes: Sequence[str] = self.network.config.classes

    def __call__(self, values: Values) -> tuple[Features, Features]:
        """Features (n, d), and logits (n, classes) of the classes it was trained on."""
        features, logits = self.network(to_samples(values).to(self.network.device))
        return features.cpu().numpy(), logits.cpu().numpy()


Extractor = FeatureExtractor | InceptionExtractor


def open_extractor(
    data: DataSpec, features: str | None, inception: str | None, device: str = "auto"
) -> Extractor:
    """Open the chosen feature network, by default the built-in one for ``data``.

    Raises:
        InvalidArgumentError: If two are chosen, there is none, or it takes other samples.
    """
    if features is not None and inception is not None:
        raise InvalidArgumentError("set `features` or `inception`, not both")
    if inception is not None:
        if data.modality != "image":
            raise InvalidArgumentError(
                f"Inception-v3 takes images, but the samples are {describe(data)}: drop"
                " `inception`"
            )
        return InceptionExtractor(inception, device)
    name = features if features is not None else features_for(data)
    if name is None:
        raise InvalidArgumentError(
            f"no built-in feature network takes {describe(data)}; there are"
            f" {', '.join(builtin_features())}: set `features` to a folder that `fastdpm train`"
            " made, or for images `inception` to the weights of Inception-v3"
        )
    wanted = find_features(name)[1].data
    if describe(wanted) != describe(data):
        raise InvalidArgumentError(
            f"the samples are {describe(data)}, but feature network {name} takes"
            f" {describe(wanted)}: choose another with `features` or `inception`"
        )
    return FeatureExtractor(name, device)


def extract(
    source: Source, extractor: Extractor, count: int, cache: Cache, *, progress: bool = False
) -> tuple[Features, Features]:
    """Features (n, d) and logits (n, classes) of the first ``count`` samples of a source.

    Features in the cache are not computed again.

    Raises:
        InvalidArgumentError: If there are too few samples.
        DataError: If a feature is not finite.
    """
    shards = cache.shards("features", features_key(source, extractor))
    if shards.count < count:
        at = shards.count
        with bar_if(progress and source.drawn < count) as callback:
            for values in source.batches(at, count, callback):
                features, logits = extractor(values)
                check_features(source.label, features, least=1, first=at)
                shards.append(at, {"features": features, "logits": logits})
                at += len(values)
    kept = shards.gather(count)
    check_features(source.label, kept["features"])
    return kept["features"], kept["logits"]


def features_key(source: Source, extractor: Extractor) -> str:
    """Digest of everything that decides the features of a source."""
    network = (extractor.name, extractor.fingerprint, extractor.settings)
    return digest(_VERSION, versions(*_DECIDING), source.key, source.data.deciding(), network)


def statistics_of(source: Source, extractor: Extractor, cache: Cache) -> Statistics:
    """Statistics of all samples of a source, kept in the cache."""
    labels = source.labels(source.size)
    stated = [] if labels is None else [bytes_digest(labels.tobytes())]
    key = digest(features_key(source, extractor), source.size, *stated)
    path = cache.file("statistics", key, ".safetensors")
    if path.is_file():
        return replace(read_statistics(path), label=source.counted)
    features, logits = extract(source, extractor, source.size, cache)
    statistics = Statistics.of(
        extractor.name, extractor.fingerprint, source.counted, features, logits, labels
    )
    statistics.write(path)
    return statistics
