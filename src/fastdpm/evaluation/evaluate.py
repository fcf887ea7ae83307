"""Measuring a model, a folder or an array of samples in one call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.datasets import Dataset
from fastdpm.data.sound import decode_sound
from fastdpm.data.spec import DataSpec
from fastdpm.evaluation.cache import Cache, default_cache
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle, PlanDrawer
from fastdpm.evaluation.extract import open_extractor, statistics_of
from fastdpm.evaluation.measure import FeatureMeasure, Measure
from fastdpm.evaluation.scores import Evaluation
from fastdpm.evaluation.sources import ALL, LabeledArray, image_data, open_data, open_samples
from fastdpm.evaluation.statistics import (
    REFERENCE,
    Statistics,
    is_statistics,
    read_statistics,
)
from fastdpm.evaluation.vocoder import VocoderMeasure
from fastdpm.models.config import builtin_models
from fastdpm.models.features import FEATURES, builtin_features, find_features
from fastdpm.models.find import FoundModel, is_model
from fastdpm.models.model import Model

_DEFAULT_IMAGES, _DEFAULT_SOUNDS, _DEFAULT_PAIRS = 10_000, 1_000, 100


@dataclass(frozen=True)
class MeasureOptions:
    """What to measure with; see :func:`evaluate`."""

    against: str | Path | None = None
    n: int | None = None
    features: str | None = None
    inception: str | None = None
    device: str = "auto"
    cache: Cache = field(default_factory=default_cache)
    progress: bool = False
    scale_to_peak: bool = False

    def __post_init__(self) -> None:
        if self.n is not None and self.n < 1:
            raise InvalidArgumentError(f"n must be at least 1, got {self.n}")


def evaluate(
    samples: str | Path | FoundModel | Model,
    against: str | Path | None = None,
    *,
    n: int | None = None,
    recipe: Recipe | None = None,
    plan: Plan | None = None,
    features: str | None = None,
    inception: str | None = None,
    options: DrawOptions | None = None,
    cache: Cache | None = None,
    progress: bool = False,
    scale_to_peak: bool = False,
) -> Evaluation:
    """Measure samples against a reference. No stage is computed twice: all are cached.

    Args:
        samples: A model (name, folder or object), which draws them; or a folder, a zip archive or
            a Parquet file of images or sounds, an ``.npz`` of images, "sklearn:digits".
        against: Data as above, or a file of statistics; by default the data that the built-in
            feature network was trained on. For a vocoder, the recordings, and needed.
        n: Samples to measure, of files drawn by chance; all there are at most. By default 10,000
            images, 1,000 sounds or 100 recordings of a vocoder.
        recipe: How the model samples; its recommended one by default.
        plan: In place of a recipe.
        features: A feature network, by name or folder, in place of the built-in one.
        inception: Weights of Inception-v3, a file or "auto"; only then is a distance called FID.
        options: Seed, precision, batch size and device of the model.
        cache: Where the stages are kept; :func:`fastdpm.evaluation.cache.default_cache`'s place
            by default.
        progress: Show a progress bar while a model draws.
        scale_to_peak: Scale sounds that are measured to the peak of the training, as the
            recordings that they are measured against always are. For real recordings: samples
            are measured at the level they have.

    Raises:
        InvalidArgumentError: If samples, reference and feature network do not fit together, or
            there are too few samples.
        DataError: If files are damaged or not samples, or features are not finite.
        MissingExtraError: If a package that a metric needs is not installed.
    """
    options, cache = options or DrawOptions(), cache or default_cache()
    measuring = MeasureOptions(
        against, n, features, inception, options.device, cache, progress, scale_to_peak
    )
    if isinstance(samples, Model | FoundModel) or is_model(samples):
        handle = ModelHandle(samples, options.device)
        drawer = choose_drawer(handle, recipe, plan)
        measure = open_measure(handle.config.data, measuring)
        found = measure.measure(measure.source(handle, drawer, options))
        return replace(found, notes=(*found.notes, *measure.left_out))
    if recipe is not None or plan is not None:
        raise InvalidArgumentError(f"{samples} is no model: a recipe or a plan changes nothing")
    return _evaluate_data(str(samples), measuring)


def _evaluate_data(samples: str, measuring: MeasureOptions) -> Evaluation:
    if not (Path(samples).exists() or samples.startswith("sklearn:")):
        raise InvalidArgumentError(
            f"no model and no samples at {samples!r}: give a built-in name"
            f" ({', '.join(builtin_models())}), a model folder, or a folder, zip, Parquet or .npz"
            " file of samples"
        )
    opened, data = _open(samples, measuring.features)
    measure = _feature_measure(data, measuring, measuring.n or ALL)
    wanted = measure.extractor.data or data
    source = open_data(opened, wanted, measuring.n, scale=measuring.scale_to_peak)
    found = measure.measure(source)
    notes = (*found.notes, *measure.left_out)
    if measuring.n is not None and found.n < measuring.n:
        notes += (f"{measuring.n:,} samples were asked for, {found.n:,} are there",)
    return replace(found, notes=notes)


def save_statistics(samples: str, path: Path, measuring: MeasureOptions) -> Statistics:
    """Write the statistics of a data set, to measure against later without the data.

    Raises:
        InvalidArgumentError: If ``samples`` is a model, a reference is given, or the file's name
            does not end in ``.safetensors``.
    """
    if is_model(samples):
        raise InvalidArgumentError(
            f"{samples} is a model: statistics are saved of data, a folder or a Parquet file"
        )
    if measuring.against is not None:
        raise InvalidArgumentError("statistics are measured against nothing: drop `against`")
    opened, data = _open(samples, measuring.features)
    extractor = open_extractor(data, measuring.features, measuring.inception, measuring.device)
    source = open_data(opened, extractor.data or data, measuring.n, scale=True)
    statistics = statistics_of(source, extractor, measuring.cache)
    statistics.write(path)
    return statistics


def choose_drawer(handle: ModelHandle, recipe: Recipe | None, plan: Plan | None) -> PlanDrawer:
    """What draws by a plan, a recipe, or the model's recommended recipe."""
    chosen = recipe or handle.config.recipe
    if plan is None:
        plan = chosen.compile(VarianceSchedule.from_config(handle.config.schedule))
    elif recipe is not None and recipe.replace(clip="none") != handle.config.recipe.replace(
        clip="none"
    ):
        raise InvalidArgumentError("a plan leaves nothing to choose: drop it or the recipe")
    else:
        handle.model.check_plan(plan)
    return PlanDrawer(plan, chosen.clip)


def open_measure(data: DataSpec, options: MeasureOptions) -> Measure[Any]:
    """What measures the samples of a model that was trained on ``data``."""
    if data.mel is None:
        default = _DEFAULT_IMAGES if data.modality == "image" else _DEFAULT_SOUNDS
        return _feature_measure(data, options, options.n or default)
    if options.features is not None or options.inception is not None:
        raise InvalidArgumentError(
            "a vocoder is measured against the recordings themselves: drop `features` and"
            " `inception`"
        )
    if options.against is None:
        raise InvalidArgumentError(
            "a vocoder is measured against the original recordings: give them to `against`"
        )
    wanted = options.n or _DEFAULT_PAIRS
    return VocoderMeasure(str(options.against), data, wanted, options.cache, options.progress)


def _open(path: str, features: str | None) -> tuple[Dataset | LabeledArray, DataSpec]:
    """The samples of a path, and what they are, where no model says it.

    A feature network that was asked for says it. Otherwise images have the size of the first one,
    and sounds are what the built-in network of their sample rate takes.

    Raises:
        InvalidArgumentError: If no built-in network takes sounds of that rate.
    """
    if features is not None:
        data = find_features(features)[1].data
        return open_samples(path, data.modality), data
    opened = open_samples(path)
    if isinstance(opened, LabeledArray) or opened.modality == "image":
        return opened, image_data(opened)
    file = next(iter(opened))
    _, rate = decode_sound(file.name, file.data)
    for name in builtin_features():
        data = find_features(name)[1].data
        if data.sample_rate == rate:
            return opened, data
    raise InvalidArgumentError(
        f"no built-in feature network takes sounds at {rate} Hz: resample them, or give one that"
        " `fastdpm train` made to `features`"
    )


def _feature_measure(data: DataSpec, options: MeasureOptions, n: int) -> FeatureMeasure:
    extractor = open_extractor(data, options.features, options.inception, options.device)
    own = FEATURES / extractor.name / REFERENCE
    path = own if options.against is None else Path(options.against)
    if options.against is None and not own.is_file():
        raise InvalidArgumentError(
            f"nothing to measure against: feature network {extractor.name} comes without"
            " statistics, so give data or a file of statistics to `against`"
        )
    if is_statistics(path):
        reference = read_statistics(path)
    else:
        source = open_data(str(options.against), extractor.data or data, scale=True)
        reference = statistics_of(source, extractor, options.cache)
    return FeatureMeasure(extractor, reference, n, options.cache, data.modality, options.progress)
