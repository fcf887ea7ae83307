"""Measure all samplers over all spacings, and those of diffusers, for docs/results.md.

For each S, our plans and the samplers of diffusers are screened separately with seed 0, and three
finalists of each are measured with seed 1. Writes docs/results/NAME-solvers.json after each S.
Everything is cached, so an interrupted run continues:

    python scripts/solvers.py digits -S 3,4,5 -n 4000 --screen-n 1000
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastdpm.evaluation import (
    Comparison,
    DrawOptions,
    MeasureOptions,
    Recommendation,
    prepare_recommendation,
)
from fastdpm.evaluation.diffusers_samplers import DIFFUSERS_METHODS
from fastdpm.evaluation.recommendation import choose
from fastdpm.models.find import find_model

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def main() -> None:
    """Measure one model."""
    options = _options()
    ours = None if options.methods is None else options.methods.split(",")
    sides = {"ours": ours, "diffusers": list(DIFFUSERS_METHODS)}
    parts: list[Comparison] = []
    screened: dict[str, dict[str, int]] = {}
    for num_steps in map(int, options.steps.split(",")):
        screened[str(num_steps)] = {}
        for side, methods in sides.items():
            found = _search(options, num_steps, methods)
            if found.screening is not None:
                screened[str(num_steps)][side] = found.screening.plans[num_steps]
            parts.append(found.comparison)
            print(f"S = {num_steps}, {side}: {found}", flush=True)
        _write(options, parts, screened)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("-S", dest="steps", required=True, help="values of S, separated by commas")
    parser.add_argument("-n", type=int, required=True, help="samples of each finalist")
    parser.add_argument("--screen-n", type=int, required=True, help="samples of the screening")
    parser.add_argument("--methods", help="ours to screen, separated by commas; by default all")
    parser.add_argument("--against", help="recordings, for a vocoder")
    parser.add_argument("--clip")
    parser.add_argument("--guidance", type=float, help="by default as in the model's recipe")
    parser.add_argument("--precision", default="float32")
    return parser.parse_args()


def _search(options: argparse.Namespace, num_steps: int, methods: Any) -> Recommendation:
    prepared = prepare_recommendation(
        replace(find_model(options.model), plan_files={}),  # without tuned plans
        steps=num_steps,
        methods=methods,
        measuring=MeasureOptions(options.against, options.n),
        screen_n=options.screen_n,
        options=DrawOptions(precision=options.precision),
        clip=options.clip,
        guidance_scale=options.guidance,
    )
    return prepared.run(log=lambda line: print(line, flush=True))


def _write(
    options: argparse.Namespace, parts: list[Comparison], screened: dict[str, dict[str, int]]
) -> None:
    """Write what is measured so far, and draw it."""
    cells = {cell.id: cell for part in parts for cell in part.cells}
    found = replace(parts[0], cells=tuple(cells.values()), pictures={})
    name = f"{options.model}-solvers"
    typed = [f"{option} {value}" for option, value in _stated(options).items()]
    record = {
        "command": f"python scripts/solvers.py {options.model} {' '.join(typed)}",
        "screened": screened,
        "screen_n": options.screen_n,
        "comparison": found.results,
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    choose(found).plot(RESULTS / f"{name}.png")


def _stated(options: argparse.Namespace) -> dict[str, Any]:
    """The options as they are typed, without those that are left at their defaults."""
    typed = {"-S": options.steps, "-n": options.n, "--screen-n": options.screen_n}
    typed |= {"--against": options.against and Path(options.against).name, "--clip": options.clip}
    typed |= {"--guidance": options.guidance, "--methods": options.methods}
    typed |= {"--precision": None if options.precision == "float32" else options.precision}
    return {name: value for name, value in typed.items() if value is not None}


if __name__ == "__main__":
    main()
