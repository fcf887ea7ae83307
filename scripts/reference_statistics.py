"""Write the statistics that a built-in feature network measures against.

    python scripts/reference_statistics.py NAME [DATA_FOLDER]

NAME is digits-features, cifar10-features or spoken-digits-features. DATA_FOLDER contains
cifar10-train.parquet and so on; the digits need none. The statistics are those of the training
data. The metrics of held-out real data are stored with them, as the best values to expect; those
of each class as well.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from fastdpm.evaluation.cache import default_cache
from fastdpm.evaluation.evaluating import MeasureOptions, evaluate, save_statistics
from fastdpm.evaluation.scores import Floor
from fastdpm.evaluation.statistics import REFERENCE, read_statistics
from fastdpm.models.features import FEATURES, find_features

DATA = {
    "digits-features": ("sklearn:digits", "sklearn:digits-test"),
    "cifar10-features": ("cifar10-train.parquet", "cifar10-test.parquet"),
    "spoken-digits-features": ("spoken-digits-train.parquet", "spoken-digits-test.parquet"),
}
WORDS = {
    "digits-features": "handwritten digits",
    "cifar10-features": "images of CIFAR-10 (JPEG q75)",
    "spoken-digits-features": "spoken digits",
}


def main() -> int:
    """Compute statistics of the training data, then measure the held-out data against them."""
    name, *folder = sys.argv[1:]
    base = Path(folder[0]) if folder else Path()
    train, test = (part if ":" in part else str(base / part) for part in DATA[name])
    path = FEATURES / name / REFERENCE
    save_statistics(train, path, MeasureOptions(features=name, cache=default_cache()))
    scaled = find_features(name)[1].data.peak is not None
    measured = evaluate(test, path, features=name, scale_to_peak=scaled, per_class=True)
    held_out = Floor(f"{measured.n:,} held-out {WORDS[name]}", measured.n, measured.scores)
    statistics = read_statistics(path)
    label = f"{statistics.moments.count:,} {WORDS[name]} of the training set"
    if statistics.classes is None:
        raise SystemExit(f"{train} has no labels")
    by_class = {each.label: each.scores for each in measured.classes}
    classes = replace(statistics.classes, held_out=by_class)
    replace(statistics, label=label, held_out=held_out, classes=classes).write(path)
    for metric in measured.metrics:
        score = measured.scores[metric.key]
        print(f"{held_out.label}: {metric.name} {score.value:.5g} +- {score.error:.2g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
