"""Where and how fast a command computes: device and threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from fastdpm.cli.expand import Options
from fastdpm.cli.terminal import console

if TYPE_CHECKING:
    from fastdpm.models.config import ModelConfig
    from fastdpm.models.find import FoundModel
    from fastdpm.models.model import Model


@dataclass(frozen=True)
class Machine(Options):
    """Device and threads."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto"
    threads: Annotated[
        int | None,
        typer.Option(
            help="Processor threads of the network; by default as many as its size is worth.",
            min=1,
        ),
    ] = None
    verbose: Annotated[bool, typer.Option("--verbose", help="Say what was chosen.")] = False

    def open(self, found: FoundModel, samples: int | None, batch_size: int | None) -> Model:
        """Load a model onto the device, and choose the threads; see :meth:`use_threads`."""
        from fastdpm.models.load import open_model

        self.use_threads(found.config, samples, batch_size)
        return open_model(found, self.device)

    def use_threads(
        self, config: ModelConfig, samples: int | None, batch_size: int | None
    ) -> None:
        """Choose the number of threads for a network that is asked for batches of samples.

        Args:
            config: Of the model.
            samples: In all; None if not known yet.
            batch_size: Samples at a time; None for what suits their size.
        """
        import torch

        from fastdpm.models.model import fitting_batch

        threads = self.threads
        said = f"{threads} as stated"
        if threads is None:
            from fastdpm.models.cost import evaluation_flops, fitting_threads

            size = batch_size or fitting_batch(config.data.shape)
            size = size if samples is None else min(size, samples)
            most = torch.get_num_threads()  # OMP_NUM_THREADS, or the cores there are
            flops = size * evaluation_flops(config) if most > 1 else 0.0
            threads = fitting_threads(flops, most)
            said = f"{threads} of {most}"
            if most > 1:
                said += f", for {flops / 1e9:.3g} GFLOP in an evaluation of {size} samples"
        torch.set_num_threads(threads)
        if self.verbose:
            console.print(f"threads: {said}")
