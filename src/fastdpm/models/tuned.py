"""Tuned plans: plans that were learned for one network, and what they are valid for.

A tuned plan is a JSON file. A model folder holds its own as ``plans/S5.json``, one for each S.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fastdpm.core.errors import DataError, InvalidArgumentError, ModelError, check_one_of
from fastdpm.core.guidance import NO_GUIDANCE, GuidanceScale
from fastdpm.core.limits import parse_json, read_text
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import CLIPS, PRECISIONS, Recipe
from fastdpm.core.structure import build_versioned, plain

PLANS = "plans"
FORMAT = "fastdpm-tuned-plan"
_NAME = re.compile(r"S([1-9]\d*)\.json")


@dataclass(frozen=True, kw_only=True)
class TunedPlan:
    """A plan that was learned for one network.

    Attributes:
        plan: The plan.
        model: Digest of the network and its weights; see
            :func:`fastdpm.models.identity.model_digest`.
        condition: What the samples were conditioned on: "none", "classes", "mel" or "tensor".
        guidance: How the network was guided.
        clip: What was clipped.
        precision: Precision of the network: "float32", "bf16" or "fp16".
        record: How it was made: the teacher, the number of noises, the losses, and the cost.
        quality: How good its samples are: `n`, `seed`, `features`, `against`, and `scores`, each
            with `name`, `value` and `error`; empty if they were not measured.
    """

    plan: Plan
    model: str
    condition: str = "none"
    guidance: GuidanceScale = NO_GUIDANCE
    clip: str = "none"
    precision: str = "float32"
    record: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        """S, the number of rows."""
        return self.plan.num_rows

    @property
    def measured_as(self) -> str:
        """The scores of :attr:`quality` in a line; "not measured" if it is empty."""
        if not self.quality:
            return "not measured"
        shown = (
            f"{score['name']} {score['value']:.3g}"
            + ("" if score["error"] is None else f" ± {score['error']:.2g}")
            for score in self.quality["scores"].values()
            if score["value"] is not None
        )
        return f"{', '.join(shown)} ({self.quality['n']:,} samples, seed {self.quality['seed']})"

    def recipe(self, recipe: Recipe) -> Recipe:
        """A recipe with the clipping and guidance that the plan was learned for."""
        return recipe.replace(clip=self.clip, guidance_scale=self.guidance)

    def differences(self, recipe: Recipe, model: str | None = None) -> list[str]:
        """What the plan was learned for, as far as the samples to draw differ from it.

        Args:
            recipe: Decides clipping and guidance.
            model: Digest of the network and its weights; None if it is the plan's.
        """
        found = []
        if model is not None and model != self.model:
            found.append("another model")
        if recipe.guidance != self.guidance:
            found.append(self.guidance.describe() or "no guidance")
        if recipe.clip != self.clip:
            found.append(f"clip {self.clip}")
        return found

    def to_json(self) -> str:
        """Write the tuned plan as JSON."""
        body = {
            "format": FORMAT,
            "version": 1,
            "model": self.model,
            "condition": self.condition,
            "guidance": plain(self.guidance),
            "clip": self.clip,
            "precision": self.precision,
            "record": dict(self.record),
            "quality": dict(self.quality),
            "plan": json.loads(self.plan.to_json()),
        }
        return json.dumps(body, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidArgumentError: If the text is no tuned plan, or its plan was edited.
        """
        try:
            data: Any = parse_json(text)
        except ValueError as error:
            raise InvalidArgumentError(f"not a tuned plan: {error}") from None
        stated = build_versioned(_Stated, data, "tuned plan", FORMAT)
        check_one_of("clip", stated.clip, CLIPS)
        check_one_of("precision", stated.precision, PRECISIONS)
        values = {name: getattr(stated, name) for name in ("model", "condition", "guidance")}
        return cls(
            plan=Plan.from_json(json.dumps(stated.plan)),
            clip=stated.clip,
            precision=stated.precision,
            record=stated.record,
            quality=stated.quality,
            **values,
        )


@dataclass(frozen=True, kw_only=True)
class _Stated:
    """The contents of a file."""

    plan: dict[str, Any]
    model: str
    condition: str
    guidance: GuidanceScale
    clip: str
    precision: str
    record: dict[str, Any]
    quality: dict[str, Any] = field(default_factory=dict)


def is_plan_file(name: str) -> bool:
    """Whether a path inside a model folder is that of a tuned plan."""
    folder, _, file = name.rpartition("/")
    return folder == PLANS and _NAME.fullmatch(file) is not None


def as_plan(plan: Plan | TunedPlan) -> Plan:
    """The plan itself."""
    return plan.plan if isinstance(plan, TunedPlan) else plan


def read_plan(path: Path) -> Plan | TunedPlan:
    """Read the file of a plan or of a tuned plan.

    Raises:
        InvalidArgumentError: If there is no such file, or it is neither.
    """
    try:
        text = read_text(path)
        tuned = f'"{FORMAT}"' in text
        return TunedPlan.from_json(text) if tuned else Plan.from_json(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidArgumentError(f"no plan at {str(path)!r}: {reason}") from None
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{path}: {error}") from None


def read_tuned(path: Path) -> TunedPlan:
    """Read a file.

    Raises:
        ModelError: If it cannot be read or is no tuned plan.
    """
    try:
        return TunedPlan.from_json(read_text(path))
    except (OSError, ValueError, DataError) as error:
        raise ModelError(f"{path}: {error}") from None


def tuned_files(folder: Path) -> dict[int, Path]:
    """The tuned plans in a model folder, by S."""
    found = {}
    for path in sorted((folder / PLANS).glob("S*.json")):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            found[int(match.group(1))] = path
    return dict(sorted(found.items()))


def tuned_of(plans: Mapping[int, TunedPlan], num_steps: int) -> TunedPlan:
    """The tuned plan of a model for S.

    Raises:
        InvalidArgumentError: If it has none.
    """
    if num_steps in plans:
        return plans[num_steps]
    known = ", ".join(map(str, plans))
    there = f"for S = {num_steps}, only for {known}" if plans else "yet"
    raise InvalidArgumentError(
        f"the model has no tuned plan {there}: learn one with `fastdpm tune`"
    )


def default_plan(plans: Mapping[int, TunedPlan], recipe: Recipe) -> tuple[TunedPlan | None, str]:
    """The tuned plan to use in place of a recipe in which no sampler and no levels were chosen.

    Returns:
        The plan, or None and why there is none; without any plans there is nothing to say.
    """
    tuned = plans.get(recipe.num_steps)
    if tuned is None:
        known = ", ".join(map(str, plans))
        note = f"no tuned plan for S = {recipe.num_steps}, only for {known}" if plans else ""
        return None, f"{note}: the untrained recipe is used" if note else ""
    differences = tuned.differences(recipe)
    if not differences:
        return tuned, ""
    return None, (
        f"the tuned plan for S = {recipe.num_steps} was learned for {' and '.join(differences)}:"
        " the untrained recipe is used"
    )
