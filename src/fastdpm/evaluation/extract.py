"""From samples to features: the stage between drawing and measuring."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.spec import DataSpec
from fastdpm.evaluation.cache import Cache, digest, versions
from fastdpm.evaluation.inception import InceptionExtractor
from fastdpm.evaluation.metrics import Features, check_features
from fastdpm.evaluation.sources import Source, Values, bar_if, describe, to_samples
from fastdpm.evaluation.statistics import Statistics, read_statistics
from fastdpm.models.features import builtin_features, features_for, load_features

_DECIDING = ("fastdpm", "torch", "numpy", "pillow", "soundfile")
_VERSION = 1  # of what lies between files and features; a change of any value must change it


class FeatureExtractor:
    """A feature network of this package, or one trained by `fastdpm train`.

    The latter carries the first digits of its weights' checksum in its name.

    Attributes:
        name: Of the network, as it is printed.
        fingerprint: Of its weights.
        settings: What else decides its features.
        splits: Runs that the Inception score is averaged over.
        data: The samples it takes; None for images of any size.
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

    def __call__(self, values: Values) -> tuple[Features, Features]:
        """Features (n, d) and logits (n, classes) of what the network was trained on."""
        features, logits = self.network(to_samples(values).to(self.network.device))
        return features.cpu().numpy(), logits.cpu().numpy()


Extractor = FeatureExtractor | InceptionExtractor


def open_extractor(
    data: DataSpec, features: str | None, inception: str | None, device: str = "auto"
) -> Extractor:
    """The feature network that was asked for, or the built-in one for such data.

    Raises:
        InvalidArgumentError: If two are asked for, or there is none.
    """
    if features is not None and inception is not None:
        raise InvalidArgumentError("give `features` or `inception`, not both")
    if inception is not None:
        return InceptionExtractor(inception, device)
    name = features if features is not None else features_for(data)
    if name is None:
        raise InvalidArgumentError(
            f"no built-in feature network takes {describe(data)} (there are"
            f" {', '.join(builtin_features())}): give a folder that `fastdpm train` made to"
            " `features`, or for images the weights of Inception-v3 to `inception`"
        )
    return FeatureExtractor(name, device)


def extract(
    source: Source, extractor: Extractor, count: int, cache: Cache, *, progress: bool = False
) -> tuple[Features, Features]:
    """Features, shape (n, d), and logits, shape (n, classes), of a source's first ``count``.

    What is in the cache is not computed again. Samples pass through some at a time.

    Raises:
        InvalidArgumentError: If the network takes other samples, or there are too few.
        DataError: If a feature is not finite.
    """
    found, wanted = describe(source.data), describe(extractor.data or source.data)
    if found != wanted:
        raise InvalidArgumentError(
            f"{source.label} has {found}, feature network {extractor.name} takes {wanted}: choose"
            " another with `features` or `inception`"
        )
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
    """Digest of what decides the features of a source."""
    network = (extractor.name, extractor.fingerprint, extractor.settings)
    decide = versions(*_DECIDING)
    return digest(_VERSION, decide, source.key, source.data.deciding(), network)


def statistics_of(source: Source, extractor: Extractor, cache: Cache) -> Statistics:
    """Statistics of all samples of a data set, kept in the cache."""
    key = digest(features_key(source, extractor), source.size)
    path = cache.file("statistics", key, ".safetensors")
    if path.is_file():
        return replace(read_statistics(path), label=source.label)
    features, logits = extract(source, extractor, source.size, cache)
    statistics = Statistics.of(
        extractor.name, extractor.fingerprint, source.label, features, logits
    )
    statistics.write(path)
    return statistics
