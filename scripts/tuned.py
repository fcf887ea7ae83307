"""Tune plans for a model, and measure them beside the best untrained ones, for docs/results.md.

Peers of S are the finalists of scripts/solvers.py at S and at 2 S, ours and diffusers'. All are
measured with seed 1, on which no plan was learned or chosen. Beside the metrics stand the distance
to the samples that the teacher draws from the same noises, and the variance of the samples.
Plans are kept in docs/results/tuned/NAME and samples in the cache, and the results are written
after each S to docs/results/NAME-tuned.json, so an interrupted run continues:

    python scripts/tuned.py digits -S 3,4,5 -n 4000 --tunings 3
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastdpm import Model, TunedPlan, TuneOptions, load_model
from fastdpm.core.multistep import multistep_3
from fastdpm.core.samplers import TUNED
from fastdpm.evaluation import Comparison, DrawOptions, MeasureOptions
from fastdpm.evaluation.comparing import prepare
from fastdpm.evaluation.drawn import Drawer, ModelHandle, PlanDrawer
from fastdpm.evaluation.grid import recipes_of
from fastdpm.evaluation.methods import Method, TunedMethod, choose_methods, open_drawer
from fastdpm.evaluation.trajectories import with_trajectories
from fastdpm.tuning import Tuning
from fastdpm.tuning.quality import with_quality
from fastdpm.tuning.rollout import levels_of, lowest

RESULTS = Path(__file__).parent.parent / "docs" / "results"
_SEED = 1  # of the samples that are measured
_LOOKED_AT = 500  # samples that are compared with those of the teacher
_ROWS = 48  # steps of that teacher


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
    looks: dict[str, dict[str, float]] = {}
    paired = model.config.data.mel is not None  # the metrics of a vocoder say how near it is
    teacher = None if paired else _Teacher(options, model, tunings[0])
    plans: dict[str, dict[int, TunedPlan]] = {}
    for num_steps in map(int, options.steps.split(",")):
        for number, tuning in enumerate(tunings):
            plan = _tuned(options, tuning, number, num_steps)
            plans.setdefault(_key(number), {})[num_steps] = plan
        tuned = [TunedMethod(held, key) for key, held in plans.items()]
        for count in (num_steps, 2 * num_steps):
            methods: list[str | Method] = [*peers.at(count)]
            methods += tuned if count == num_steps else []
            prepared = prepare(
                options.model,  # by name, so that the samples of scripts/solvers.py are found
                count,
                methods,
                measuring=MeasureOptions(options.against, options.n),
                options=DrawOptions(_SEED, options.precision),
                clip=tunings[0].clip,
                guidance_scale=tunings[0].guidance,
            )
            found = prepared.run(log=lambda line: print(line, flush=True))
            parts.append(found)
            if teacher is not None:
                looks |= {_look_key(m, count): teacher.look(m, count) for m in methods}
        for number, held in enumerate(plans.values()):
            plan = held[num_steps] = _with_quality(held[num_steps], parts[-2], number)
            _keep(_path(options, number, num_steps), plan)
        _write(options, parts, plans, looks)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("-S", dest="steps", required=True, help="values of S, separated by commas")
    parser.add_argument("-n", type=int, required=True, help="samples of each cell")
    parser.add_argument("--tunings", type=int, default=1, help="tunings of each S")
    parser.add_argument("--noises", type=int, default=1536, help="noises to learn from")
    parser.add_argument("--evaluations", type=int, default=400_000, help="of each plan, at most")
    parser.add_argument("--against", help="recordings, for a vocoder")
    parser.add_argument("--clip")
    parser.add_argument("--guidance", type=float, help="by default as in the model's recipe")
    parser.add_argument("--precision", default="float32")
    return parser.parse_args()


def _look_key(method: str | Method, num_steps: int) -> str:
    return f"{method if isinstance(method, str) else method.key} {num_steps}"


def _key(number: int) -> str:
    """The name of a tuning in results."""
    return "tuned" if number == 0 else f"tuned-{number + 1}"


def _name(options: argparse.Namespace) -> str:
    guided = "" if options.guidance in (None, 1) else f"-guidance-{options.guidance:g}"
    return f"{options.model}{guided}"


def _tuned(options: argparse.Namespace, tuning: Tuning, number: int, num_steps: int) -> TunedPlan:
    """The plan of a tuning: from its file if it is there."""
    path = _path(options, number, num_steps)
    if path.is_file():
        return TunedPlan.from_json(path.read_text(encoding="utf-8"))
    plan = tuning.run(num_steps)
    _keep(path, plan)
    return plan


def _path(options: argparse.Namespace, number: int, num_steps: int) -> Path:
    return RESULTS / "tuned" / _name(options) / str(number) / f"S{num_steps}.json"


def _keep(path: Path, plan: TunedPlan) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plan.to_json() + "\n", encoding="utf-8")


def _with_quality(plan: TunedPlan, found: Comparison, number: int) -> TunedPlan:
    """The plan with what was measured of it."""
    key = _key(number)
    cell = next(c for c in found.cells if c.method == key and c.num_steps == plan.num_steps)
    about = {"n": cell.n, "seed": _SEED, "features": found.features, "against": found.against}
    return with_quality(plan, about, found.metrics, cell.scores)


class _Teacher:
    """The samples of the teacher, and how others look beside them."""

    def __init__(self, options: argparse.Namespace, model: Model, tuning: Tuning) -> None:
        self.model, self.clip, self.guidance = model, tuning.clip, tuning.guidance
        self.handle = ModelHandle(options.model)
        self.samples = range(min(_LOOKED_AT, options.n))
        self.draw = DrawOptions(_SEED, options.precision)
        end = -math.log(tuning.options.teacher_end)
        levels = levels_of(model.schedule, np.linspace(lowest(model.schedule), end, _ROWS))
        self.wanted = self._drawn(PlanDrawer(multistep_3(levels), self.clip, self.guidance))

    def _drawn(self, drawer: Drawer) -> Tensor:
        parts = [part for part, _ in drawer.draw(self.model, self.samples, self.draw, None)]
        return torch.cat(parts).cpu().double().clamp(-1, 1)

    def look(self, method: str | Method, num_steps: int) -> dict[str, float]:
        """Root mean squared distance to the teacher, and the variance, by the teacher's."""
        schedule = self.model.schedule
        chosen = choose_methods([method], None, recipes_of(None, self.model.config), {})
        with_levels = with_trajectories(
            *(chosen, self.handle, schedule, self.draw, self.clip, self.guidance, MeasureOptions())
        )
        drawer = open_drawer(with_levels[0], schedule, num_steps, self.clip, self.guidance)
        x = self._drawn(drawer)
        variance = [float((y - y.mean(0)).square().mean()) for y in (x, self.wanted)]
        distance = float((x - self.wanted).square().mean()) / variance[1]
        return {"distance": distance**0.5, "variance": variance[0] / variance[1]}


class _Peers:
    """The finalists of scripts/solvers.py."""

    def __init__(self, model: str) -> None:
        record = json.loads((RESULTS / f"{model}-solvers.json").read_text(encoding="utf-8"))
        self.cells = Comparison.from_dict(record["comparison"]).cells

    def at(self, num_steps: int) -> list[str]:
        """Those at S, or at the nearest S that was searched."""
        nearest = min({c.num_steps for c in self.cells}, key=lambda s: abs(s - num_steps))
        found = (c.method for c in self.cells if c.num_steps == nearest and c.method != TUNED)
        return list(dict.fromkeys(found))


def _write(
    options: argparse.Namespace,
    parts: list[Comparison],
    plans: dict[str, dict[int, TunedPlan]],
    looks: dict[str, dict[str, float]],
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
        "looks": looks,
        "comparison": found.results,
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (RESULTS / f"{_name(options)}-tuned.json").write_text(text + "\n", encoding="utf-8")
    shown = [s for s in (3, 4, 5, 8) if s in found.steps]
    if pictures and shown:
        drawn = replace(found, cells=tuple(c for c in found.cells if c.num_steps in shown))
        drawn.plot_samples(RESULTS / f"{_name(options)}-tuned.png", num_steps=shown)


if __name__ == "__main__":
    main()
