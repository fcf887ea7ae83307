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

        model = open_model(found, self.device)
        self.use_threads(found.config, samples, batch_size)
        return model

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

        from fastdpm.models.cost import evaluation_flops, fitting_threads
        from fastdpm.models.model import fitting_batch

        most = torch.get_num_threads()  # OMP_NUM_THREADS, or the cores there are
        if self.threads is not None or most == 1:
            self.use_stated_threads()
            return
        size = batch_size or fitting_batch(config.data.shape)
        size = size if samples is None else min(size, samples)
        flops = size * evaluation_flops(config)
        self._use(
            fitting_threads(flops, most),
            f"of {most}, for {flops / 1e9:.3g} GFLOP in an evaluation of {size} samples",
        )

    def use_stated_threads(self) -> None:
        """Use as many threads as stated; PyTorch's own number if none is."""
        import torch

        if self.threads is None:
            self._use(torch.get_num_threads(), "as PyTorch chose")
        else:
            self._use(self.threads, "as stated")

    def _use(self, threads: int, why: str) -> None:
        import torch

        torch.set_num_threads(threads)
        if self.verbose:
            console.print(f"threads: {threads} {why}")
