"""Tune plans for a model, and measure them beside the best untrained ones, for docs/results.md.

Peers of S are the finalists of scripts/solvers.py at S and at 2 S, ours and diffusers'. All are
measured with seed 1, on which no plan was learned or chosen. Plans are kept in
docs/results/tuned/NAME, samples in the cache, and docs/results/NAME-tuned.json is written after
each S, so an interrupted run continues:

    python scripts/tuned.py digits -S 3,4,5 -n 4000 --tunings 3
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from fastdpm import TunedPlan, TuneOptions, load_model
from fastdpm.evaluation import Comparison, DrawOptions, MeasureOptions
from fastdpm.evaluation.comparing import prepare
from fastdpm.evaluation.methods import Method, TunedMethod
from fastdpm.tuning import Tuning

RESULTS = Path(__file__).parent.parent / "docs" / "results"
_SEED = 1  # of the samples that are measured


def main() -> None:
    """Tune and measure one model."""
    options = _options()
    model = load_model(options.model)
    tunings = [
        Tuning(
            model,
            TuneOptions(
                n=options.noises,
                seed=seed,
                evaluations=options.evaluations,
                precision=options.precision,
            ),
            clip=options.clip,
            guidance_scale=options.guidance,
            log=lambda line: print(line, flush=True),
        )
        for seed in range(options.tunings)
    ]
    peers = _Peers(options.model)
    parts: list[Comparison] = []
    plans: dict[str, dict[int, TunedPlan]] = {}
    for num_steps in map(int, options.steps.split(",")):
        for number, tuning in enumerate(tunings):
            key = "tuned" if number == 0 else f"tuned-{number + 1}"
            plan = _tuned(options, tuning, number, num_steps)
            plans.setdefault(key, {})[num_steps] = plan
        tuned = [TunedMethod(held, key) for key, held in plans.items()]
        for count in (num_steps, 2 * num_steps):
            methods: list[str | Method] = [*peers.at(count)]
            methods += tuned if count == num_steps else []
            prepared = prepare(
                model,
                count,
                methods,
                measuring=MeasureOptions(options.against, options.n),
                options=DrawOptions(_SEED, options.precision),
                clip=tunings[0].clip,
                guidance_scale=tunings[0].guidance,
            )
            parts.append(prepared.run(log=lambda line: print(line, flush=True)))
        _write(options, parts, plans)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("-S", dest="steps", required=True, help="values of S, separated by commas")
    parser.add_argument("-n", type=int, required=True, help="samples of each cell")
    parser.add_argument("--tunings", type=int, default=1, help="tunings of each S")
    parser.add_argument("--noises", type=int, default=512, help="noises to learn from")
    parser.add_argument("--evaluations", type=int, default=400_000, help="of each plan, at most")
    parser.add_argument("--against", help="recordings, for a vocoder")
    parser.add_argument("--clip")
    parser.add_argument("--guidance", type=float, help="by default as in the model's recipe")
    parser.add_argument("--precision", default="float32")
    return parser.parse_args()


def _name(options: argparse.Namespace) -> str:
    guided = "" if options.guidance in (None, 1) else f"-guidance-{options.guidance:g}"
    return f"{options.model}{guided}"


def _tuned(options: argparse.Namespace, tuning: Tuning, number: int, num_steps: int) -> TunedPlan:
    """The plan of a tuning: from its file if it is there."""
    path = RESULTS / "tuned" / _name(options) / str(number) / f"S{num_steps}.json"
    if path.is_file():
        return TunedPlan.from_json(path.read_text(encoding="utf-8"))
    plan = tuning.run(num_steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plan.to_json() + "\n", encoding="utf-8")
    return plan


class _Peers:
    """The finalists of scripts/solvers.py."""

    def __init__(self, model: str) -> None:
        record = json.loads((RESULTS / f"{model}-solvers.json").read_text(encoding="utf-8"))
        self.cells = Comparison.from_dict(record["comparison"]).cells

    def at(self, num_steps: int) -> list[str]:
        """Those at S, or at the nearest S that was searched."""
        nearest = min({c.num_steps for c in self.cells}, key=lambda s: abs(s - num_steps))
        found = (cell.method for cell in self.cells if cell.num_steps == nearest)
        return list(dict.fromkeys(found))


def _write(
    options: argparse.Namespace, parts: list[Comparison], plans: dict[str, dict[int, TunedPlan]]
) -> None:
    """Write what is measured so far, and draw it."""
    cells = {cell.id: cell for part in parts for cell in part.cells}
    pictures = {name: picture for part in parts for name, picture in part.pictures.items()}
    found = replace(parts[0], cells=tuple(cells.values()), pictures=pictures)
    typed = {"-S": options.steps, "-n": options.n, "--tunings": options.tunings}
    typed |= {"--noises": options.noises, "--evaluations": options.evaluations}
    typed |= {"--clip": options.clip, "--guidance": options.guidance}
    typed |= {"--against": options.against and Path(options.against).name}
    typed |= {"--precision": options.precision}
    stated = " ".join(f"{name} {value}" for name, value in typed.items() if value is not None)
    records = {
        key: {str(s): dict(plan.record) for s, plan in held.items()} for key, held in plans.items()
    }
    record = {
        "command": f"python scripts/tuned.py {options.model} {stated}",
        "records": records,
        "comparison": found.results,
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (RESULTS / f"{_name(options)}-tuned.json").write_text(text + "\n", encoding="utf-8")
    shown = [s for s in (3, 4, 5, 8) if s in found.steps]
    if pictures and shown:
        found.plot_samples(RESULTS / f"{_name(options)}-tuned.png", num_steps=shown)


if __name__ == "__main__":
    main()
