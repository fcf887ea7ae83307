"""``fastdpm tune``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastdpm.cli import choices
from fastdpm.cli.expand import OneOf, changes
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OutFolder
from fastdpm.cli.panels import Panel
from fastdpm.cli.recipes import Guiding
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from fastdpm.data.run_folder import RunFolder
    from fastdpm.models.model import Model
    from fastdpm.models.tuned import TunedPlan
    from fastdpm.tuning.tune import Tuning


@changes(OutFolder, out="Folder for the plans S3.json, S4.json ..., and tuning.png.")
def tune(
    *,
    model: choices.ModelName,
    steps: Annotated[
        str,
        Panel.SAMPLING.option(
            "--steps",
            "-S",
            help="Values of S to learn a plan for, separated by commas.",
        ),
    ],
    checkpoint: choices.Checkpoint = None,
    condition: choices.Condition = None,
    class_labels: choices.ClassLabels = None,
    guiding: Guiding,
    clip: choices.Clip = None,
    n: Annotated[
        int,
        Panel.TUNING.option("-n", help="Noises to learn from; half as many fresh ones choose."),
    ] = 1536,
    until: Annotated[
        str,
        Panel.TUNING.option(
            help="The last stage: levels, with coefficients in closed form; paths, both together"
            " towards the teacher's samples; or moments, towards the moments of features."
        ),
        OneOf("fastdpm.tuning.options:STAGES"),
    ] = "moments",
    teacher_steps: Annotated[
        int | None,
        Panel.TUNING.option(
            help="Network evaluations of the teacher; by default 24, doubled until more make no"
            " difference."
        ),
    ] = None,
    teacher_end: Annotated[
        float, Panel.TUNING.option(help="Noise scale where the teacher ends.")
    ] = 0.15,
    evaluations: Annotated[
        int,
        Panel.TUNING.option(
            help="Network evaluations for each S and each set of noises, at most, without those of"
            " the teacher."
        ),
    ] = 400_000,
    minutes: Annotated[
        float | None,
        Panel.TUNING.option(
            help="Minutes for each S, at most, without those of the teacher; the best plan so far"
            " counts."
        ),
    ] = None,
    seed: Annotated[int, Panel.TUNING.option(help="Seed of the noises.", min=0)] = 0,
    seeds: Annotated[
        int,
        Panel.TUNING.option(
            help="Sets of noises to learn from, one after the other; the best plan counts.", min=1
        ),
    ] = 1,
    measure: Annotated[
        int | None,
        Panel.TUNING.option(
            help="Also measure each plan with so many samples; its file keeps the scores.", min=1
        ),
    ] = None,
    against: choices.Against = None,
    install: Annotated[
        bool,
        Panel.OUTPUT.option(
            "--install",
            help="Also put the plans into the model folder, so that they are used by default.",
        ),
    ] = False,
    batch_size: choices.BatchSize = None,
    precision: choices.Precision = "float32",
    machine: Machine,
    folder: OutFolder,
) -> None:
    """Learn plans for a model: no data, no training and no gradients are needed.

    A teacher of many steps draws samples; levels and coefficients are learned that lead from the
    same noises to nearly the same samples in S steps. `sample --plan` samples with a plan, and
    `sample` alone with those of the model.
    """
    counts = choices.parse("--steps", steps, int)
    if not counts:
        raise InvalidArgumentError("--steps needs at least one S")
    folder.check()
    found = choices.find(model, checkpoint)
    if install:
        _check_folder(Path(model))

    from fastdpm.data.condition import read_condition
    from fastdpm.data.tensors import values_digest
    from fastdpm.tuning.options import STAGES, TuneOptions
    from fastdpm.tuning.tune import Tuning

    config = found.config
    options = TuneOptions(
        n=n,
        seed=seed,
        seeds=seeds,
        stages=STAGES[: STAGES.index(until) + 1],
        teacher_steps=teacher_steps,
        teacher_end=teacher_end,
        evaluations=evaluations,
        minutes=minutes,
        precision=precision,
        batch_size=batch_size,
    )
    chosen = read_condition(condition, class_labels, config.data, config.null_class)
    tuning = Tuning(
        machine.open(found, n, batch_size),
        options,
        clip=clip,
        guidance_scale=guiding.guidance(config.recipe.guidance),
        condition=chosen,
        log=console.print,
    )
    for count in counts:
        tuning.check(count)
    quality = _Quality(tuning.model, measure, against, batch_size, machine.device, chosen)
    quality.check()
    shown = None if tuning.condition is None else values_digest(tuning.condition)
    identity = tuning.identity | {"steps": sorted(set(counts)), "condition": shown}
    inputs = (*found.files, None if condition is None else Path(condition))
    with folder.claim("tune", identity, inputs) as run:
        plans = [_tuned(tuning, count, run, quality) for count in sorted(set(counts))]
        _draw(run, plans)
    for plan in plans:
        if plan.quality:
            console.print(f"S = {plan.num_steps}: {plan.measured_as}")
        place = run.path / _name(plan.num_steps)
        if install:
            place = _install(plan, Path(model))
        console.print(f"S = {plan.num_steps}: {place}")
    console.print(f"levels and losses: {run.path / 'tuning.png'}")


def _check_folder(path: Path) -> None:
    """Check that plans can be put into a model folder."""
    from fastdpm.data.files import check_writable
    from fastdpm.models.config import CONFIG

    if not (path / CONFIG).is_file():
        raise InvalidArgumentError(
            f"--install needs a model folder, and {path} is none: write one with `fastdpm"
            f" convert {path} --out DIR`, or drop it"
        )
    check_writable(path)


def _install(plan: TunedPlan, folder: Path) -> Path:
    """Put a plan into a model folder, in place of an earlier one."""
    from fastdpm.data.files import write_text
    from fastdpm.models.tuned import PLANS

    path = folder / PLANS / _name(plan.num_steps)
    path.parent.mkdir(exist_ok=True)
    write_text(path, plan.to_json() + "\n")
    return path


def _name(num_steps: int) -> str:
    return f"S{num_steps}.json"


def _stages_name(num_steps: int) -> str:
    """The file of the finished stages of an unfinished plan."""
    return f"S{num_steps}-stages.json"


@dataclass(frozen=True)
class _Quality:
    """Measures plans, if that is wanted.

    Attributes:
        n: Number of samples; None if nothing is to be measured.
    """

    model: Model
    n: int | None
    against: str | None
    batch_size: int | None
    device: str
    condition: Any

    def check(self) -> None:
        """Refuse what cannot be measured, before anything is learned."""
        if self.n is None:
            if self.against is not None:
                raise InvalidArgumentError("--against needs --measure: add it, or drop --against")
            return
        from fastdpm.evaluation.evaluating import open_measure
        from fastdpm.evaluation.options import MeasureOptions

        open_measure(self.model.config.data, MeasureOptions(self.against, self.n))

    def of(self, plan: TunedPlan) -> TunedPlan:
        """The plan with its quality; itself if that is known, or not wanted."""
        known = plan.quality.get("n") == self.n and self.against is None
        if self.n is None or known:
            return plan
        from fastdpm.evaluation.drawn import DrawOptions
        from fastdpm.tuning.quality import measured

        paired = self.model.config.data.mel is not None  # recordings are its conditions
        options = DrawOptions(
            batch_size=None if paired else self.batch_size,
            device=self.device,
            condition=None if paired else self.condition,
        )
        return measured(plan, self.model, self.n, against=self.against, options=options)


def _tuned(tuning: Tuning, num_steps: int, run: RunFolder, quality: _Quality) -> TunedPlan:
    """The plan of one S: from the folder if it is there, else learned, and kept stage by stage.

    Its quality is measured if that was wanted and the folder does not have it.
    """
    from fastdpm.models.tuned import read_tuned

    name = _name(num_steps)
    plan = read_tuned(run.folder / name) if name in run.files else _learned(tuning, num_steps, run)
    unfinished = _stages_name(num_steps)
    if unfinished in run.files:  # the run was stopped before it was deleted
        with run.batch(remove=[unfinished]):
            pass
    better = quality.of(plan)
    if better is not plan:
        with run.batch() as part:
            (part / name).write_text(better.to_json() + "\n", encoding="utf-8")
    return better


def _learned(tuning: Tuning, num_steps: int, run: RunFolder) -> TunedPlan:
    """Learn the plan of one S, keep it stage by stage, and write it."""
    name, unfinished = _name(num_steps), _stages_name(num_steps)
    kept: list[Any] = []
    if unfinished in run.files:
        kept = json.loads((run.folder / unfinished).read_text(encoding="utf-8"))

    def keep(done: list[dict[str, Any]]) -> None:
        with run.batch() as part:
            (part / unfinished).write_text(json.dumps(done), encoding="utf-8")

    plan = tuning.run(num_steps, kept, keep)
    with run.batch(remove=[unfinished]) as part:
        (part / name).write_text(plan.to_json() + "\n", encoding="utf-8")
    return plan


def _draw(run: RunFolder, plans: list[TunedPlan]) -> None:
    from fastdpm.output.figures_tuning import write_tuning

    with run.batch() as part:
        write_tuning(part / "tuning.png", plans)
