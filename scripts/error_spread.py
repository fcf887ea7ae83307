"""Compare stated standard errors with the spread over seeds: scripts/error_spread.py [--seeds 20].

Draws each model once per seed with two recipes and measures every metric. For each metric, the
table has the spread of its values over the seeds, the standard error that one run states, and
their ratio; and the same for the difference of the two recipes, whose samples share their seeds.
Three models are measured: `digits`, a network with class labels that is trained here (class of
sample i: i mod 10), and `spoken-digits`. Writes docs/results/errors.json, which
`scripts/generate_docs.py` turns into a part of the page of results. Every run is cached, so an
interrupted script continues. Needs the extras `train` and `eval`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastdpm import Model, Recipe, VarianceSchedule, evaluate, load_model
from fastdpm.data.files import write_text
from fastdpm.evaluation import DrawOptions
from fastdpm.evaluation.scores import Evaluation

ROOT = Path(__file__).parent.parent
OUT = ROOT / "docs" / "results" / "errors.json"
TRAINING_STEPS = 800
MODELS = (  # name, samples in a run, S, precision
    ("digits", 500, 10, "float32"),
    ("labelled-digits", 500, 10, "float32"),
    ("spoken-digits", 60, 5, "bf16"),
)

Row = dict[str, Any]


def labelled_network() -> Model:
    """A network with class labels, trained on digits; the same in every run."""
    sys.path.insert(0, str(ROOT / "examples"))
    from class_guidance import Network, train

    torch.manual_seed(0)
    schedule = VarianceSchedule.linear(num_train_steps=1000, beta_start=1e-4, beta_end=0.02)
    network = Network()
    train(network, schedule, TRAINING_STEPS)
    settings = {"training_steps": TRAINING_STEPS}
    shape = (1, 8, 8)
    return Model.wrap(
        network.eval(), schedule, shape, name="labelled-digits", classes=10, settings=settings
    )


def evaluations(
    model: Model, n: int, num_steps: int, precision: str, seeds: int
) -> Iterator[list[Evaluation]]:
    """DDIM-rev and DDPM-rev at each seed."""
    labels = [i % 10 for i in range(n)] if model.config.data.classes else None
    features = "digits-features" if model.config.data.modality == "image" else None
    for seed in range(seeds):
        options = DrawOptions(seed=seed, precision=precision, class_labels=labels)
        recipes = (Recipe(num_steps=num_steps, kappa=kappa) for kappa in (0.0, 1.0))
        yield [
            evaluate(model, n=n, recipe=recipe, features=features, options=options)
            for recipe in recipes
        ]


def spreads(name: str, n: int, num_steps: int, runs: list[list[Evaluation]]) -> list[Row]:
    """For each metric, the spread over seeds and the stated error, of a value and a difference."""
    rows = []
    for metric in runs[0][0].metrics:
        first, second = ([run[i].scores[metric.key] for run in runs] for i in range(2))
        difference = [a.minus(b) for a, b in zip(first, second, strict=True)]
        for what, scores in (("value", first), ("difference", difference)):
            spread = float(np.std([score.value for score in scores], ddof=1))
            stated = math.sqrt(np.mean([score.error**2 for score in scores]))
            rows.append(
                {
                    "model": name,
                    "n": n,
                    "num_steps": num_steps,
                    "seeds": len(runs),
                    "metric": metric.name,
                    "of": what,
                }
                | {"spread": spread, "stated": stated, "ratio": stated / spread}
            )
    return rows


def main() -> None:
    """Measure all three models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="runs per model")
    args = parser.parse_args()
    rows: list[Row] = []
    for name, n, num_steps, precision in MODELS:
        model = labelled_network() if name == "labelled-digits" else load_model(name)
        runs = []
        for run in evaluations(model, n, num_steps, precision, args.seeds):
            runs.append(run)
            print(f"{name}: {len(runs)} of {args.seeds} seeds", flush=True)
        for row in spreads(name, n, num_steps, runs):
            rows.append(row)
            print(
                f"{row['metric']}, {row['of']}: spread {row['spread']:.4g}, stated"
                f" {row['stated']:.4g}, ratio {row['ratio']:.2f}",
                flush=True,
            )
        write_text(OUT, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
