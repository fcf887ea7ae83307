"""The samplers of diffusers on our models, to compare them with our own plans.

They keep the default settings of their classes, except that clipping is done by our ``clip``. For
S = 10 of T = 1000 steps, they evaluate the network at these steps, counted from 0:

==================  ====================  =====================  ====================
classes             leading               linspace               trailing
==================  ====================  =====================  ====================
DDIM, DDPM, PNDM    900, 800 ... 100, 0   999, 888 ... 111, 0    999, 899 ... 199, 99
DEIS, UniPC,        900, 810 ... 180, 90  999, 899 ... 200, 100  999, 899 ... 199, 99
DPM-Solver++
==================  ====================  =====================  ====================

* ``leading`` starts from pure noise, although its first step expects less noise;
  ``steps_offset`` is 0. "karras" (DEIS, UniPC, DPM-Solver++) spaces the noise scales by their
  seventh root over all T steps and rounds the steps that the network receives.
* DDIM and PNDM always step from t to t - T // S. With ``linspace``, or if S does not divide T,
  the network therefore receives a step that does not match the state's noise level, and a trailing
  chain can end at step 0 with the noise of that step.
* DDIM has ``set_alpha_to_one=True`` and ends at clean data, like DDPM, DPM-Solver++ and UniPC.
  PNDM has ``set_alpha_to_one=False``, and DEIS has no such setting: both end at the level of
  step 0.
* DEIS and UniPC have order 2, but "unipc-3" has order 3. DDPM uses the posterior variance
  ("fixed_small").

Sources: Lin et al. 2023, arXiv:2305.08891, table 2, for the spacings; Song et al. 2020,
arXiv:2010.02502 (DDIM); Liu et al. 2022, arXiv:2202.09778 (PNDM); Zhang & Chen 2022,
arXiv:2204.13902 (DEIS); Lu et al. 2022, arXiv:2211.01095 (DPM-Solver++); Zhao et al. 2023,
arXiv:2302.04867 (UniPC); Karras et al. 2022, arXiv:2206.00364, eq. 5.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.errors import (
    InvalidArgumentError,
    MissingExtraError,
    SamplingError,
    check_one_of,
    first_line,
)
from fastdpm.core.guidance import GuidanceLike, GuidanceScale
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import CLIPS, PRECISIONS, Recipe
from fastdpm.core.schedule import Array, VarianceSchedule
from fastdpm.data.condition import Condition
from fastdpm.models.model import Model
from fastdpm.sampling.network import Network, NoisePredictor, evaluate_network
from fastdpm.sampling.network import count_evaluations as evaluations_of
from fastdpm.sampling.noise import SampleNoise
from fastdpm.sampling.state import Callback, after_rows

_SPACINGS = ("leading", "linspace", "trailing")
_KARRAS, _DPM, _UNIPC = "karras", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
# No plan has this many rows, so no plan draws its noise from this counter.
_GENERATOR_COUNTER = np.array([0, 0, 0, 2**64 - 1], dtype=np.uint64)


@dataclass(frozen=True)
class DiffusersMethod:
    """A scheduler of diffusers with one of its step spacings.

    Attributes:
        key: Its name on the command line and in results.
        solver: Its name in tables.
        choice: Step spacing: "leading", "linspace", "trailing", or "karras" (by noise scale).
        scheduler: The class in diffusers.
        settings: Arguments of that class in addition to schedule and spacing.
        extra: Network evaluations in addition to one per step.
        least: The smallest number of steps it can take.
        stochastic: Whether it draws noise.
        compared: Whether the group "diffusers" includes it. Any other is compared by its key.
    """

    key: str
    solver: str
    choice: str
    scheduler: str
    settings: Mapping[str, bool | int] = field(default_factory=dict)
    extra: int = 0
    least: int = 1
    stochastic: bool = False
    compared: bool = True
    family: ClassVar[str] = "diffusers"
    takes_all_steps: ClassVar[bool] = False
    has_own_steps: ClassVar[bool] = False

    @property
    def group(self) -> str:
        """Its heading in tables."""
        return f"{self.solver} (diffusers)"

    def recipe(self, num_steps: int, total: int) -> Recipe | None:
        """Our recipe for the same samples at S of T steps; None if there is none.

        There is none for DDPM, which draws other noise; for PNDM, PLMS and DEIS; for "karras",
        which rounds the steps that the network receives; for DDIM with "linspace" or if S does not
        divide T, which steps from other levels than it reached; and for 3M from S = 15 on, which
        has no rows of lower order before its last one. :meth:`plan` has a plan for all but DDPM.
        """
        if num_steps == 1 or self.choice == _KARRAS or self.scheduler not in _OURS:
            return None
        spacing = self.choice if self.choice == "trailing" else f"{self.choice}-open"
        if self.scheduler == "DDIMScheduler":
            if self.choice == "linspace" or total % num_steps:
                return None
            spacing = self.choice
        order = self.settings.get("solver_order", 2)
        if self.scheduler == _DPM and order == 3 and num_steps >= _LONG:
            return None
        method = _OURS[self.scheduler].format(order=order)
        return Recipe(num_steps=num_steps, method=method, levels="step", spacing=spacing)

    def plan(self, schedule: VarianceSchedule, num_steps: int) -> Plan | None:
        """A plan for the same samples, to rounding; None if the scheduler draws noise.

        Args:
            schedule: The schedule of the model.
            num_steps: S.

        Raises:
            InvalidArgumentError: If the method cannot take that number of steps.
            MissingExtraError: If diffusers is not installed.
            SamplingError: If diffusers cannot take S steps of this schedule.
        """
        self.check_steps(num_steps, schedule.num_train_steps)
        chain = _Chain(self, schedule, num_steps)
        if self.stochastic:
            return None
        from fastdpm.integrations.diffusers.linear import plan_of

        label = f"diffusers {self.solver}, {self.choice}, S = {num_steps}"
        return plan_of(chain.scheduler, num_steps, label=label)

    def num_evaluations(self, num_steps: int) -> int:
        """Network evaluations for ``num_steps`` steps."""
        return num_steps + self.extra

    def check_steps(self, num_steps: int, total: int) -> None:
        """Raise InvalidArgumentError if it cannot take ``num_steps`` of ``total`` steps."""
        if not self.least <= num_steps <= total:
            raise InvalidArgumentError(
                f"{self.key} needs S in [{self.least}, {total}] (T), got {num_steps}"
            )


# Our samplers that do the same as a scheduler, by its order.
_OURS = {"DDIMScheduler": "ddim-rev", _UNIPC: "unipc-{order}", _DPM: "dpmpp-{order}m"}
_LONG = 15
_UNCLIPPED: dict[str, Any] = {"settings": {"clip_sample": False}}
_PLMS: dict[str, Any] = {"settings": {"skip_prk_steps": True}, "extra": 1, "least": 2}
_SOLVERS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("ddim", "DDIM", "DDIMScheduler", _UNCLIPPED),
    ("ddpm", "DDPM", "DDPMScheduler", _UNCLIPPED | {"stochastic": True}),
    ("pndm", "PNDM", "PNDMScheduler", {"extra": 9, "least": 4}),
    ("plms", "PLMS", "PNDMScheduler", _PLMS),
    ("deis", "DEIS", "DEISMultistepScheduler", {}),
    ("dpmpp-2m", "DPM-Solver++ 2M", _DPM, {"settings": {"solver_order": 2}}),
    ("dpmpp-3m", "DPM-Solver++ 3M", _DPM, {"settings": {"solver_order": 3}}),
    ("unipc", "UniPC", _UNIPC, {}),
    ("unipc-3", "UniPC 3", _UNIPC, {"settings": {"solver_order": 3}, "compared": False}),
)
_BY_SCALE = ("DEISMultistepScheduler", _DPM, _UNIPC)  # these take "karras"


def _methods() -> Iterator[DiffusersMethod]:
    """Every scheduler with each of its spacings."""
    for name, solver, kind, more in _SOLVERS:
        for spacing in (*_SPACINGS, _KARRAS) if kind in _BY_SCALE else _SPACINGS:
            method = DiffusersMethod(f"diffusers-{name}-{spacing}", solver, spacing, kind, **more)
            added = spacing == _KARRAS and kind != _DPM
            yield replace(method, compared=False) if added else method


DIFFUSERS_METHODS: Mapping[str, DiffusersMethod] = MappingProxyType(
    {method.key: method for method in _methods()}
)


def sample_diffusers(
    model: Model,
    method: DiffusersMethod,
    num_steps: int,
    samples: Sequence[int],
    *,
    clip: str = "none",
    seed: int = 0,
    batch_size: int | None = None,
    condition: Condition | None = None,
    precision: str = "float32",
    guidance_scale: GuidanceLike = 1.0,
    callback: Callback | None = None,
) -> Iterator[tuple[Sequence[int], Tensor, int]]:
    """Draw samples by their indices with a scheduler of diffusers, batch by batch.

    Sampling starts from the same noise as :meth:`fastdpm.Model.sample_batches` with the same seed
    and indices. Stochastic methods have one generator per sample: sample i depends on (seed, i)
    and the method, not on its batch.

    Args:
        model: The model; v and x0 predictions are converted to eps for the scheduler.
        method: A value of :data:`DIFFUSERS_METHODS`.
        num_steps: S, from the smallest number that the method can take to T. PNDM makes S + 9
            network evaluations, because it starts with Runge-Kutta steps, and PLMS S + 1.
        samples: Indices of the samples, each at least 0.
        clip: "none", "x0", "dynamic" or "state", applied as in our plans; states are clipped after
            each network evaluation.
        seed: At least 0.
        batch_size: Samples at a time; by default chosen by their size.
        condition: See :meth:`fastdpm.Model.sample`.
        precision: Of the network: "float32", "bf16" or "fp16".
        guidance_scale: Scale of classifier-free guidance, or one for each network evaluation
            of an unguided chain.
        callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each network
            evaluation.

    Yields:
        The indices of a batch, its samples (float32 in [-1, 1], on the model's device), and the
        number of network evaluations per sample.

    Raises:
        InvalidArgumentError: If an argument is out of range.
        MissingExtraError: If diffusers is not installed.
        SamplingError: If diffusers cannot take S steps of this schedule, or the network or a step
            returns something unusable.
    """
    method.check_steps(num_steps, model.schedule.num_train_steps)
    if len(samples) < 1:
        raise InvalidArgumentError(f"`n` must be at least 1, got {len(samples)}")
    check_one_of("clip", clip, CLIPS)
    check_one_of("precision", precision, PRECISIONS)
    checked = model.check_condition(condition)
    shape = model.sample_shape(checked)
    guidance = model.check_guidance(guidance_scale, checked)
    levels = _Chain(method, model.schedule, num_steps).levels  # raises if diffusers cannot
    guiding, evaluations = guidance.over(levels), guidance.evaluations(levels)

    def batches() -> Iterator[tuple[Sequence[int], Tensor, int]]:
        for first, batch in model.split(samples, batch_size, checked):
            x = SampleNoise(seed, batch).start(shape, device=model.device)
            generators = _generators(seed, batch) if method.stochastic else None
            chosen = model.condition_of(checked, batch)
            network = model.noise_predictor(chosen, clip=clip, precision=precision, **guiding)
            chain = _Chain(method, model.schedule, num_steps)
            each = after_rows(
                callback, first, len(samples), len(chain.steps), evaluations=evaluations
            )
            for evaluation in range(len(chain.steps)):
                x = chain.step(network, evaluation, x, generators)
                x = x.clamp(-1, 1) if clip == "state" else x
                if each is not None:
                    each(evaluation, x)
            yield batch, model.finished(x), chain.evaluations

    return batches()


def count_evaluations(
    method: DiffusersMethod, schedule: VarianceSchedule, num_steps: int, guidance: GuidanceScale
) -> int:
    """Network evaluations of a sample.

    Raises:
        InvalidArgumentError: If guidance has another number of scales.
    """
    if not guidance.enabled:
        return method.num_evaluations(num_steps)
    try:
        return guidance.evaluations(_Chain(method, schedule, num_steps).levels)
    except SamplingError:  # drawing will fail
        return 2 * method.num_evaluations(num_steps)


class _Chain:
    """One run of a scheduler, which stores the past predictions it needs.

    Attributes:
        steps: The step that the network receives at each evaluation, zero-based.
        levels: The sqrt(alpha_bar) that the scheduler assumes there.
        evaluations: Network evaluations made so far.
    """

    def __init__(
        self, method: DiffusersMethod, schedule: VarianceSchedule, num_steps: int
    ) -> None:
        self.where = f"{method.key} with S = {num_steps} of T = {schedule.num_train_steps} steps"
        self.evaluations = 0
        with torch.device("cpu"):
            self.scheduler = _scheduler(method, schedule)
        with self.in_one_line("diffusers refuses these steps"):
            self.scheduler.set_timesteps(num_steps)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(
                0
            )  # or a repeated first step is mistaken for the second
        self.steps = self.scheduler.timesteps.numpy().astype(np.float64)
        outside = self.steps[(self.steps < 0) | (self.steps > schedule.num_train_steps - 1)]
        if outside.size:
            raise self.error(f"diffusers chooses step {outside[0]:g}, which does not exist")
        self.levels = self._levels()
        if hasattr(self.scheduler, "sigmas") and (np.diff(self.levels) <= 0).any():
            raise self.error("diffusers chooses a step twice, which this solver cannot take")

    def error(self, message: str) -> SamplingError:
        return SamplingError(f"{self.where}: {message}: choose another S or spacing")

    @contextmanager
    def in_one_line(self, message: str) -> Iterator[None]:
        """Turn an error of diffusers into one line.

        Warnings of NumPy inside diffusers are hidden; the results are checked instead.
        """
        try:
            with warnings.catch_warnings(), torch.device("cpu"):
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", RuntimeWarning)
                yield
        except (ValueError, IndexError, ArithmeticError) as error:
            raise self.error(f"{message} ({first_line(error)})") from None

    def _levels(self) -> Array:
        """Levels from the scheduler's own float32 tables, to convert x0 to eps and back exactly.

        Karras steps are rounded but their noise scales are not, so the levels follow the scales.
        """
        if hasattr(self.scheduler, "sigmas"):
            sigma = self.scheduler.sigmas.double().numpy()[:-1]
            return np.asarray(1 / np.sqrt(1 + sigma**2))
        alpha_bar = self.scheduler.alphas_cumprod.double().numpy()
        return np.asarray(np.sqrt(alpha_bar[self.steps.astype(np.int64)]))

    @torch.no_grad()
    def step(
        self,
        network: Network | NoisePredictor,
        row: int,
        x: Tensor,
        generators: list[torch.Generator] | None,
    ) -> Tensor:
        """Evaluate the network once and let the scheduler compute the next state."""
        where = f"{self.where}, evaluation {row}"
        eps, _ = evaluate_network(
            network, x, float(self.steps[row]), float(self.levels[row]), where
        )
        self.evaluations += evaluations_of(network, float(self.levels[row]))
        noise = {} if generators is None else {"generator": generators}
        timestep = self.scheduler.timesteps[row]
        with self.in_one_line(f"diffusers fails at evaluation {row}"):
            # Schedulers keep earlier outputs, which the network may overwrite.
            new = self.scheduler.step(eps.clone(), timestep, x, return_dict=False, **noise)[0]
        if not isinstance(new, Tensor) or not torch.isfinite(new).all():
            raise self.error(f"evaluation {row} of diffusers returns values that are not finite")
        return new


def _scheduler(method: DiffusersMethod, schedule: VarianceSchedule) -> Any:
    try:
        kind = getattr(importlib.import_module("diffusers"), method.scheduler)
    except ImportError:
        raise MissingExtraError("diffusers", "diffusers") from None
    spacing: dict[str, Any] = {"timestep_spacing": method.choice}
    if method.choice == _KARRAS:
        spacing = {"use_karras_sigmas": True}
    return kind(
        num_train_timesteps=schedule.num_train_steps,
        trained_betas=schedule.betas.tolist(),
        prediction_type="epsilon",
        **spacing,
        **method.settings,
    )


def _generators(seed: int, samples: Sequence[int]) -> list[torch.Generator]:
    """A generator for each sample, seeded by a number that Philox draws for (seed, sample)."""
    keys = (np.array([seed, sample], dtype=np.uint64) for sample in samples)
    bits = (np.random.Philox(key=key, counter=_GENERATOR_COUNTER) for key in keys)
    return [torch.Generator("cpu").manual_seed(int(draw.random_raw())) for draw in bits]
