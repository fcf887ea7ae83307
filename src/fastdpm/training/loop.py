"""The training loop: a run in a folder, which can be resumed after an interruption.

Every step draws its batch and noise from (seed, step). A resumed run therefore takes the same
steps as an uninterrupted one.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fastdpm.core.errors import FastDPMError, InvalidArgumentError, first_line
from fastdpm.core.structure import changed
from fastdpm.data.files import write_bytes, write_text
from fastdpm.data.run_folder import RunFolder
from fastdpm.models.find import FoundModel
from fastdpm.models.load import open_model
from fastdpm.output.figures import write_loss
from fastdpm.training.classification import Classification
from fastdpm.training.config import ClassifierConfig, TrainConfig, TrainOptions
from fastdpm.training.data import TrainingData
from fastdpm.training.denoising import Denoising
from fastdpm.training.losses import LossRecord
from fastdpm.training.precision import autocast_on, precision_on
from fastdpm.training.task import Predict, Task

CHECKPOINT = "checkpoint.pt"
_CHECKPOINT_KEYS = {"config", "network", "ema", "optimizer", "step", "seconds", "losses"}
_REPORT_SECONDS = 10.0
_COMPILED_SIZE = 5_000_000  # parameters; on a processor, smaller networks are not compiled


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

    Attributes:
        step: Number of completed steps.
        loss: Mean loss of the last steps, at most 50.
        seconds: Seconds spent.
        left: Estimated seconds left.
    """

    step: int
    loss: float
    seconds: float
    left: float


class Trainer:
    """A training run in a folder.

    Args:
        config: The training configuration.
        data: Training data, on ``device``.
        run: Folder of the run: checkpoint, loss, pictures, and the model at the end.
        device: Device to train on.
        command: The command that started the run, for the model card.
        log: Called with one-line messages.
        held_out: Data to measure the loss of a model, or the accuracy of a classifier, on; on
            ``device``, or None.
        start: Model whose weights a new run starts from, with a new optimizer.

    Raises:
        InvalidArgumentError: If the network does not fit the data, or the recipe does not fit the
            schedule.
        DataError: If there are classes, and the data has no labels or a label is not a class; or
            if there is only one held-out sample.
    """

    def __init__(
        self,
        config: TrainConfig | ClassifierConfig,
        data: TrainingData,
        run: RunFolder,
        device: torch.device,
        command: str,
        log: Callable[[str], None],
        held_out: TrainingData | None = None,
        start: FoundModel | None = None,
    ) -> None:
        options = config.training
        self.task = _task(config, data, held_out)
        self.config, self.run, self.device = config, run, device
        self.command, self.log, self.start = command, log, start
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network = self.task.build()
        self.network = network.to(device)
        if config.data.modality == "image":
            for parameter in self.network.parameters():
                parameter.data = _channels_last(parameter.data)
        # use_buffers averages the running statistics of the norms as well.
        self._average = AveragedModel(self.network, multi_avg_fn=self._update, use_buffers=True)
        self._average.n_averaged.fill_(1)  # at 0, the first step would replace the initial weights
        self.ema: nn.Module = self._average.module.eval().requires_grad_(False)
        self.optimizer = self.task.optimizer(self.network)
        self.precision = precision_on(device, options.precision)
        self.autocast = autocast_on(device, options.precision)
        self.predict: Predict = self.network
        self.step = 0
        self.seconds = 0.0
        self.losses = LossRecord()

    def resume(self) -> None:
        """Load the checkpoint in the folder of the run, or the weights that a new run starts from.

        Raises:
            FastDPMError: If the checkpoint is damaged, or was written with other settings.
            InvalidArgumentError: If the model to start from has another network, schedule,
                prediction or scale of steps.
            ModelError: If its weights cannot be read.
        """
        path = self.run.folder / CHECKPOINT
        if not path.is_file():
            if self.start is not None:
                self._start_from(self.start)
            return
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
        except Exception:  # torch raises many kinds of errors for a damaged file
            saved = None
        if not isinstance(saved, dict) or not saved.keys() >= _CHECKPOINT_KEYS:
            raise FastDPMError(
                f"{path} is not a complete checkpoint of fastdpm: start again in an empty folder"
            )
        if saved["config"] != self.config.identity:
            differences = self.config.differences(saved.get("decisive", {}))
            which = f" ({'; '.join(differences[:3])})" if "decisive" in saved else ""
            raise FastDPMError(
                f"{path} was written with other settings{which}: resume with those, or start"
                " again in an empty folder"
            )
        self.network.load_state_dict(saved["network"])
        self.ema.load_state_dict(saved["ema"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.losses.load(saved)

    def _start_from(self, found: FoundModel) -> None:
        """Load the weights of a model, and log their held-out loss."""
        check_start(found, self.config)
        weights = open_model(found, "cpu").network.state_dict()
        for network in (self.network, self.ema):
            network.load_state_dict(weights)
        self.task.report(self.ema, lambda line: self.log(f"before training: {line}"))

    def train(
        self,
        *,
        seconds: float = math.inf,
        report: Callable[[Progress], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train until the configured number of steps, or for ``seconds``; then write the model.

        Args:
            seconds: Time limit of this call.
            report: Called with the progress about every 10 seconds, and after the last step.
            should_stop: Called after every step; if it returns True, training stops.

        Returns:
            True if the model folder was written. False if ``should_stop`` ended the training; then
            only the checkpoint was written.
        """
        options = self.config.training
        began, before = time.monotonic(), self.seconds
        first: tuple[int, float] | None = None
        next_report = before + _REPORT_SECONDS
        next_checkpoint = before + 60 * options.checkpoint_minutes
        next_samples = before + 60 * options.sample_minutes
        self.prepare()
        if options.warmup_steps > options.steps:
            self.log(
                f"the warm-up takes {options.warmup_steps:,} steps, so the learning rate reaches"
                f" {options.steps / options.warmup_steps:.0%} of its value at most: set"
                " warmup_steps"
            )
        while self.step < options.steps and self.seconds - before < seconds:
            loss = self.take_step()
            self.losses.add(self.step, loss)
            self.seconds = before + time.monotonic() - began
            last = self.step == options.steps or self.seconds - before >= seconds
            if last or self.seconds >= next_report:
                now = (self.step, self.seconds)
                first = first or now
                left = min(time_left(first, now, options.steps), before + seconds - self.seconds)
                mean = self.losses.check(self.step)
                report(Progress(self.step, mean, self.seconds, max(left, 0.0)))
                next_report = self.seconds + _REPORT_SECONDS
            if self.seconds >= next_checkpoint:
                self.save()
                next_checkpoint = self.seconds + 60 * options.checkpoint_minutes
            if self.seconds >= next_samples:
                self.write_samples()
                next_samples = self.seconds + 60 * options.sample_minutes
            if should_stop():
                self.save()
                return False
        self.save()
        self.export()
        return True

    def prepare(self) -> None:
        """Compile the network where that pays, before the first step."""
        if self._worth_compiling():
            self._try_to_compile()

    def take_step(self) -> Tensor:
        """One optimizer step on the batch that belongs to it; returns the loss."""
        options = self.config.training
        seed = options.seed * 1_000_000_007 + self.step
        generator = torch.Generator(self.device).manual_seed(seed)
        loss = self.task.loss(partial(self._predict_seeded, seed), self.step, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(share_of_rate(options, self.step), options.gradient_clip)
        self.step += 1
        self._average.update_parameters(self.network)
        return loss.detach()

    def _predict_seeded(self, seed: int, *inputs: Tensor) -> Any:
        """Predict with dropout masks that depend only on ``seed``."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self.autocast:
            torch.manual_seed(seed)
            return self.predict(*map(_channels_last, inputs))

    def save(self) -> None:
        """Write the checkpoint, the loss table and the loss curve.

        Raises:
            DataError: If the loss is not finite; the last checkpoint is kept.
        """
        rows = self.losses.rows_at(self.step)
        state = {
            "config": self.config.identity,
            "decisive": self.config.decisive,
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            **self.losses.state,
        }
        lines = (f"{step},{loss:.6f}\n" for step, loss in rows)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with self.run.batch() as folder:
            write_bytes(folder / CHECKPOINT, buffer.getbuffer())
            write_text(folder / "loss.csv", "".join(["step,loss\n", *lines]))
            if len(rows) > 1:
                steps, losses = zip(*rows, strict=True)
                write_loss(folder / "loss.png", self.task.loss_name, steps, losses)

    def write_samples(self) -> None:
        """Write ``samples.png`` with the averaged weights."""
        with self.run.batch() as folder:
            self.task.show(self.ema, folder)

    def export(self) -> None:
        """Write the averaged weights to the folder ``model``, and a picture of samples."""
        self.write_samples()
        loss = self.losses.last(self.step)
        provenance: dict[str, Any] = {
            "command": self.command,
            **self._started_from,
            "steps": self.step,
            "batch_size": self.config.training.batch_size,
            "samples_seen": self.step * self.config.training.batch_size,
            "minutes": round(self.seconds / 60, 1),
            "device": self.device.type,
            "precision": self.precision,
            "loss": "not measured" if math.isnan(loss) else round(loss, 5),
            "seed": self.config.training.seed,
            "torch": torch.__version__,
            **self.task.report(self.ema, self.log),
        }
        with self.run.batch() as folder:
            self.task.export(self.ema, folder / "model", provenance)

    @property
    def _started_from(self) -> dict[str, str]:
        """The model that this run started from, for its card."""
        if self.start is None:
            return {}
        config = self.start.config
        digest = "" if config.weights_sha256 is None else f" (SHA-256 {config.weights_sha256})"
        return {"started_from": f"{config.name}{digest}"}

    def _worth_compiling(self) -> bool:
        """Whether torch.compile, which takes about a minute, pays: not for small networks."""
        size = sum(weight.numel() for weight in self.network.parameters())
        return self.device.type == "cuda" or size >= _COMPILED_SIZE

    def _try_to_compile(self) -> None:
        """Compile the network if torch.compile works on this machine, by a trial step."""
        compiled: Predict = torch.compile(self.network)
        inputs = self.task.inputs(torch.Generator(self.device).manual_seed(0))
        buffers = {name: value.clone() for name, value in self.network.named_buffers()}
        try:
            with self.autocast:
                out = compiled(*map(_channels_last, inputs))
            last = out if isinstance(out, Tensor) else out[-1]
            last.float().mean().backward()
            self.network.zero_grad(set_to_none=True)
        except Exception as error:  # compiler errors have no common base class
            self.log(f"training without torch.compile: {first_line(error)}")
        else:
            self.predict = compiled
        for name, value in self.network.named_buffers():
            value.copy_(buffers[name])  # undo the trial's update of running statistics

    def _update(self, averages: Sequence[Tensor], values: Sequence[Tensor], _: object) -> None:
        """Update the moving averages, which forget random initial weights faster."""
        decay = self.config.training.ema_decay
        if self.start is None:
            decay = min(decay, (1 + self.step) / (10 + self.step))
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value, 1 - decay)


def check_start(found: FoundModel, config: TrainConfig | ClassifierConfig) -> None:
    """Check that training by a configuration can start from the weights of a model.

    Raises:
        InvalidArgumentError: If the model has another network, schedule, prediction or scale of
            steps, or ``config`` is of a feature network.
    """
    if not isinstance(config, TrainConfig):
        raise InvalidArgumentError(
            f"`start` is for models, and {config.name} is a feature network: drop it"
        )
    wanted, stated = config.MAKES.of(config).to_dict(), found.config.to_dict()
    names = ("network", "schedule", "prediction", "time_scale")
    before, now = ({name: table.get(name) for name in names} for table in (stated, wanted))
    differences = [f"its {name} is {a}, not {b}" for name, a, b in changed(before, now)]
    if differences:
        raise InvalidArgumentError(
            f"`start` must be a model of this configuration, but {found.config.name} differs:"
            f" {'; '.join(differences[:3])}"
        )


def _channels_last(values: Tensor) -> Tensor:
    """Images and kernels in the layout that convolutions are fastest in; others as they are."""
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


def share_of_rate(options: TrainOptions, step: int) -> float:
    """Factor of the learning rate at a step, from 0: linear warm-up times the decay to 0."""
    warm = min(1.0, (step + 1) / max(options.warmup_steps, 1))
    if options.decay == "linear":
        falling = max(options.decay_share * options.steps, 1e-9)
        return warm * min(1.0, (options.steps - step) / falling)
    after = max(step - options.warmup_steps, 0)
    progress = after / max(options.steps - options.warmup_steps, 1)
    return warm * 0.5 * (1 + math.cos(math.pi * progress))


def time_left(first: tuple[int, float], now: tuple[int, float], steps: int) -> float:
    """Estimated seconds until step ``steps``, at the pace since the first report.

    Args:
        first: Completed steps and seconds spent at the first report.
        now: The same now. If both are equal, the pace of the whole run is used.
        steps: Total number of steps.
    """
    pace = (now[1] - first[1]) / max(now[0] - first[0], 1) or now[1] / now[0]
    return pace * (steps - now[0])


def _task(
    config: TrainConfig | ClassifierConfig, data: TrainingData, held_out: TrainingData | None
) -> Task:
    """The task of a configuration."""
    if isinstance(config, ClassifierConfig):
        return Classification(config, data, held_out)
    return Denoising(config, data, held_out)
