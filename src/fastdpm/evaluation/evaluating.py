"""Measuring a model, or samples that exist already, in one call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.guidance import GuidanceLike
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.arrays import LabeledArray
from fastdpm.data.datasets import Dataset
from fastdpm.data.spec import DataSpec
from fastdpm.evaluation.by_class import ClassMeasure, check_has_classes, open_classes
from fastdpm.evaluation.cache import Cache, default_cache
from fastdpm.evaluation.checks import check_no_model, check_used
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle, PlanDrawer
from fastdpm.evaluation.estimate import CostEstimate, PlannedCell, estimate_cost
from fastdpm.evaluation.extract import Extractor, open_extractor, statistics_of
from fastdpm.evaluation.measure import FeatureMeasure, Measure
from fastdpm.evaluation.metrics import check_count
from fastdpm.evaluation.options import MeasureOptions as MeasureOptions
from fastdpm.evaluation.scores import Evaluation
from fastdpm.evaluation.sources import (
    ALL,
    DataSource,
    Source,
    check_scaled,
    holds_images,
    image_data,
    in_memory,
    open_data,
    open_samples,
    sample_rate_of,
)
from fastdpm.evaluation.statistics import (
    REFERENCE,
    Statistics,
    check_not_statistics,
    check_statistics_name,
    is_statistics,
    read_statistics,
)
from fastdpm.evaluation.vocoder import VocoderMeasure
from fastdpm.models.choosing import usable_plan
from fastdpm.models.config import builtin_models
from fastdpm.models.features import FEATURES, builtin_features, find_features
from fastdpm.models.find import FoundModel, is_model
from fastdpm.models.load import find_device
from fastdpm.models.model import Model
from fastdpm.models.tuned import TunedPlan, default_plan

_DEFAULT_IMAGES, _DEFAULT_SOUNDS, _DEFAULT_PAIRS = 10_000, 1_000, 100


@dataclass(frozen=True)
class PreparedEvaluation:
    """An evaluation whose arguments are checked; nothing is drawn or computed yet.

    Attributes:
        measure: What the samples are measured by.
        source: The samples.
        notes: What a reader must know.
        classes: What each class is measured by; None to measure all samples only.
    """

    measure: Measure[Any]
    source: Source
    notes: tuple[str, ...] = ()
    classes: ClassMeasure | None = None

    def estimate(self) -> CostEstimate:
        """Estimate what drawing the samples costs; see :func:`estimate_cost`."""
        source, n = self.source, self.measure.n
        return estimate_cost([PlannedCell(source.label, source.rows, n, source)])

    def run(self) -> Evaluation:
        """Measure the samples."""
        found = self.measure.measure(self.source)
        found = found if self.classes is None else self.classes.add_to(found)
        return replace(found, notes=(*found.notes, *self.measure.left_out, *self.notes))


@checked
def evaluate(
    samples: str | Path | FoundModel | Model | Tensor | NDArray[Any],
    against: str | Path | Tensor | NDArray[Any] | None = None,
    *,
    n: int | None = None,
    recipe: Recipe | None = None,
    plan: Plan | TunedPlan | None = None,
    guidance_scale: GuidanceLike | None = None,
    features: str | None = None,
    inception: str | None = None,
    options: DrawOptions | None = None,
    cache: Cache | str | Path | None = None,
    progress: bool = False,
    scale_to_peak: bool = False,
    per_class: bool = False,
) -> Evaluation:
    """Measure samples against a reference. Every stage is cached and never computed twice.

    Args:
        samples: A model (name, folder or object); or a folder, zip archive or Parquet file of
            images or sounds, a ``.npz`` or ``.npy`` file, a tensor or array, "sklearn:digits".
        against: The reference: data as above, or a file of statistics; by default the data that
            the built-in feature network was trained on. A vocoder needs recordings here.
        n: Number of samples to measure; of files, drawn at random. By default all samples of
            files, 10,000 images, 1,000 sounds, or 100 recordings of a vocoder.
        recipe: How the model samples; by default by its tuned plan for the S of its recommended
            recipe, or by that recipe if there is none.
        plan: How the model samples, in place of a recipe: a plan, or a tuned plan of the model.
        guidance_scale: Scale of classifier-free guidance of the model, one for each row of the
            plan, or a :class:`fastdpm.core.GuidanceScale`; by default the recipe's.
        features: Name or folder of a feature network to use in place of the built-in one.
        inception: Weights of Inception-v3, a file or "auto". Only with these is the distance
            called FID.
        options: Seed, precision, batch size, device and condition of the model. Of these, samples
            that exist already take the batch size and the device only.
        cache: A cache or its folder; by default :func:`fastdpm.evaluation.cache.default_cache`.
        progress: Show a progress bar while a model draws.
        scale_to_peak: Scale the measured sounds to the peak that the feature network was trained
            on, as references always are. For real recordings; samples of a model are measured at
            their own level.
        per_class: Also measure the samples of each class against the real ones of that class, and
            the share of them that the feature network recognizes: ``classes`` of the result. Needs
            20 samples of each class. For a model with classes, or labeled samples, and a labeled
            reference.

    Raises:
        InvalidArgumentError: If samples, reference and feature network do not fit together, there
            are too few samples, labels are missing, or an argument would have no effect.
        DataError: If files are damaged or hold no samples, or features are not finite.
        MissingExtraError: If a package that a metric needs is not installed.
    """
    options = options or DrawOptions()
    kept: Any = default_cache() if cache is None else cache
    device, size = options.device, options.batch_size
    measuring = MeasureOptions(
        against, n, features, inception, device, kept, progress, scale_to_peak, size
    )
    return prepare(
        samples,
        measuring,
        recipe=recipe,
        plan=plan,
        guidance_scale=guidance_scale,
        options=options,
        per_class=per_class,
    ).run()


def prepare(
    samples: str | Path | FoundModel | Model | Tensor | NDArray[Any],
    measuring: MeasureOptions,
    *,
    recipe: Recipe | None = None,
    plan: Plan | TunedPlan | None = None,
    guidance_scale: GuidanceLike | None = None,
    options: DrawOptions | None = None,
    per_class: bool = False,
) -> PreparedEvaluation:
    """Check everything that :func:`evaluate` needs, to estimate its cost before it runs.

    The arguments are those of :func:`evaluate`.
    """
    options = options or DrawOptions()
    find_device(options.device)
    if isinstance(samples, Tensor | np.ndarray):
        check_no_model("an array", recipe, plan, guidance_scale, options)
        return _prepare_data(in_memory("the array", samples), measuring, per_class)
    if isinstance(samples, str | Path):
        check_not_statistics(samples)
    elif not isinstance(samples, Model | FoundModel):
        raise InvalidArgumentError(
            f"`samples` must be a model, a path or an array of samples, got a"
            f" {type(samples).__name__}: wrap a network with Model.wrap, or a pipeline with"
            " fastdpm.integrations.diffusers.from_pipeline"
        )
    if not (isinstance(samples, Model | FoundModel) or is_model(samples)):
        check_no_model(str(samples), recipe, plan, guidance_scale, options)
        return _prepare_data(str(samples), measuring, per_class)
    handle = ModelHandle(samples, options.device)
    data = handle.config.data
    check_used(data, measuring, options)
    if per_class:
        check_has_classes(handle.config.name, data)
    draw = options.for_model(handle)
    drawer = choose_drawer(handle, recipe, plan, guidance_scale, draw)
    measure = open_measure(data, measuring)
    source = measure.source(handle, drawer, draw)
    classes = None
    if per_class and isinstance(measure, FeatureMeasure):  # a vocoder has no classes
        classes = open_classes(measure, source, data, measuring.against is None)
    return PreparedEvaluation(measure, source, too_few(measuring.n, measure), classes)


def _prepare_data(
    samples: str | LabeledArray, measuring: MeasureOptions, per_class: bool
) -> PreparedEvaluation:
    opened, data = _open(samples, measuring.features)
    samples = samples if isinstance(samples, str) else samples.label
    measure = _feature_measure(data, measuring, measuring.n or ALL)
    wanted = measure.extractor.data or data
    if measuring.scale_to_peak:
        check_scaled(samples, opened, wanted)
    source = open_data(
        opened,
        wanted,
        measuring.n,
        scale=measuring.scale_to_peak,
        batch_size=measuring.batch_size,
    )
    notes = _fewer(measuring.n, source.total, "samples")
    if source.size < source.total:
        notes = (f"{source.size:,} of the {source.total:,} samples, drawn at random",)
    classes = open_classes(measure, source, None, measuring.against is None) if per_class else None
    return PreparedEvaluation(measure, source, notes, classes)


def too_few(n: int | None, measure: Measure[Any]) -> tuple[str, ...]:
    """A note if fewer samples of a model are measured than were set, as of few recordings."""
    return _fewer(n, measure.n, "recordings" if isinstance(measure, VocoderMeasure) else "samples")


def _fewer(n: int | None, available: int, kind: str) -> tuple[str, ...]:
    if n is None or n <= available:
        return ()
    return (f"{available:,} {kind}, fewer than the {n:,} of `n`",)


def save_statistics(samples: str, path: Path, measuring: MeasureOptions) -> Statistics:
    """Write the statistics of a data set, to measure against it later without the data.

    Raises:
        InvalidArgumentError: If ``samples`` is a model, an option would have no effect, or the
            file's name does not end in ``.safetensors``.
    """
    check_not_statistics(samples)
    if is_model(samples):
        raise InvalidArgumentError(
            f"{samples} is a model, but statistics can only be computed from data: choose a folder"
            " or a file of samples"
        )
    idle = {"against": measuring.against is not None, "scale_to_peak": measuring.scale_to_peak}
    if any(idle.values()):
        names = " and ".join(f"`{name}`" for name, stated in idle.items() if stated)
        raise InvalidArgumentError(
            f"{names} would have no effect on saved statistics, for which recordings are always"
            " scaled and nothing is measured: drop it"
        )
    check_statistics_name(path)
    opened, data = _open(samples, measuring.features)
    extractor = open_extractor(data, measuring.features, measuring.inception, measuring.device)
    source = open_data(
        opened,
        extractor.data or data,
        measuring.n,
        scale=True,
        batch_size=measuring.batch_size,
    )
    statistics = statistics_of(source, extractor, measuring.cache)
    statistics.write(path)
    return statistics


def choose_drawer(
    handle: ModelHandle,
    recipe: Recipe | None,
    plan: Plan | TunedPlan | None,
    guidance_scale: GuidanceLike | None = None,
    options: DrawOptions | None = None,
) -> PlanDrawer:
    """Make the drawer of a plan, of a recipe, or of the model's recommended recipe.

    Raises:
        InvalidArgumentError: If recipe and plan contradict each other, or the model cannot be
            guided.
    """
    own = handle.config.recipe
    if plan is not None and recipe is not None and recipe.bare != own.bare:
        raise InvalidArgumentError(
            "`plan` decides how to sample, so `recipe` may change `clip` and guidance only: drop"
            " one of them"
        )
    chosen = plan.recipe(own) if isinstance(plan, TunedPlan) and recipe is None else recipe or own
    chosen = chosen.replace(guidance_scale=guidance_scale)
    if plan is None and recipe is None:
        plan, _ = default_plan(handle.plans, chosen)
    if plan is None:
        ready = chosen.compile(VarianceSchedule.from_config(handle.config.schedule))
    else:
        ready = usable_plan(plan, handle.model, chosen)
    condition = None if options is None else options.condition
    return PlanDrawer(ready, chosen.clip, handle.check_guidance(chosen.guidance, condition))


def open_measure(data: DataSpec, options: MeasureOptions) -> Measure[Any]:
    """Open what measures the samples of a model that was trained on ``data``."""
    if data.mel is None:
        default = _DEFAULT_IMAGES if data.modality == "image" else _DEFAULT_SOUNDS
        return _feature_measure(data, options, options.n or default)
    if not isinstance(options.against, str | Path):
        raise InvalidArgumentError(
            "a vocoder is measured against recordings: set `against` to a folder of them"
        )
    n = options.n or _DEFAULT_PAIRS
    check_count(n, VocoderMeasure.least)
    return VocoderMeasure(str(options.against), data, n, options.cache, options.progress)


def _open(
    samples: str | LabeledArray, features: str | None
) -> tuple[Dataset | LabeledArray, DataSpec]:
    """Open samples, and find out their modality, shape and sample rate.

    Those are what the chosen feature network takes. By default images have the shape of the first
    one, and sounds have what the built-in network of their sample rate takes.

    Raises:
        InvalidArgumentError: If there are no samples, or no built-in network takes sounds of that
            sample rate.
    """
    missing = isinstance(samples, str) and not Path(samples).exists()
    if missing and not str(samples).startswith("sklearn:"):
        raise InvalidArgumentError(
            f"no model and no samples at {samples!r}: choose a built-in model"
            f" ({', '.join(builtin_models())}), a model folder, or a folder, zip, Parquet or .npz"
            " file of samples"
        )
    if features is not None:
        data = find_features(features)[1].data
        return open_samples(samples, data.modality) if isinstance(samples, str) else samples, data
    opened = open_samples(samples) if isinstance(samples, str) else samples
    if holds_images(opened):
        return opened, image_data(opened)
    rate = sample_rate_of(opened)
    for name in builtin_features():
        data = find_features(name)[1].data
        if data.sample_rate == rate:
            return opened, data
    raise InvalidArgumentError(
        f"no built-in feature network takes sounds at {rate} Hz: resample them, or set `features`"
        " to a feature network that `fastdpm train` made"
    )


def _feature_measure(data: DataSpec, options: MeasureOptions, n: int) -> FeatureMeasure:
    check_count(n, FeatureMeasure.least)
    extractor = open_extractor(data, options.features, options.inception, options.device)
    reference = _open_reference(options, extractor, extractor.data or data)
    return FeatureMeasure(extractor, reference, n, options.cache, data.modality, options.progress)


def _open_reference(
    options: MeasureOptions, extractor: Extractor, data: DataSpec
) -> Statistics | DataSource:
    """What to measure against: data, statistics, or those that the feature network comes with."""
    against, own = options.against, FEATURES / extractor.name / REFERENCE
    if isinstance(against, Tensor | np.ndarray):
        real = in_memory("`against`", against)
        return open_data(real, data, scale=False, batch_size=options.batch_size)
    if against is None and not own.is_file():
        raise InvalidArgumentError(
            f"nothing to measure against: feature network {extractor.name} comes without"
            " statistics, so set `against` to data or to a file of statistics"
        )
    path = own if against is None else Path(against)
    if is_statistics(path):
        return read_statistics(path)
    return open_data(str(against), data, scale=True, batch_size=options.batch_size)
