"""The device and the threads that a command computes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastdpm.cli.expand import Options
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from fastdpm.models.config import ModelConfig
    from fastdpm.models.find import FoundModel
    from fastdpm.models.model import Model

_MAX_THREADS = 1024  # many more crash the libraries that start them


@dataclass(frozen=True)
class Machine(Options):
    """Device and threads."""

    device: Annotated[
        str,
        Panel.COMPUTATION.option(
            help="Device: auto, cpu, cuda, cuda:N or mps; auto uses a CUDA GPU if there is one.",
            metavar="DEVICE",
        ),
    ] = "auto"
    threads: Annotated[
        int | None,
        Panel.COMPUTATION.option(
            help="Processor threads; by default chosen by the size of the network.", min=1
        ),
    ] = None
    verbose: Annotated[
        bool, Panel.COMPUTATION.option("--verbose", help="Print the number of threads, and why.")
    ] = False

    def open(self, found: FoundModel, samples: int | None, batch_size: int | None) -> Model:
        """Load a model onto the device, and choose the threads; see :meth:`use_threads`."""
        from fastdpm.models.load import open_model

        model = open_model(found, self.device)
        self.use_threads(found.config, samples, batch_size)
        return model

    def use_threads(
        self, config: ModelConfig, samples: int | None, batch_size: int | None
    ) -> None:
        """Choose the number of threads for a network that is evaluated on batches of samples.

        Args:
            config: The model's configuration.
            samples: The number of all samples; None if not known yet.
            batch_size: The number of samples in a batch; None to choose it by their size.
        """
        import torch

        from fastdpm.models.cost import evaluation_flops, fitting_batch, fitting_threads

        available = torch.get_num_threads()  # OMP_NUM_THREADS, or the number of cores
        if self.threads is not None or available == 1:
            self.use_stated_threads()
            return
        size = batch_size or fitting_batch(config.data.shape)
        size = size if samples is None else min(size, samples)
        flops = size * evaluation_flops(config)
        self._use(
            fitting_threads(flops, available),
            f"of {available}, for {flops / 1e9:.3g} GFLOP in an evaluation of {size} samples",
        )

    def use_stated_threads(self) -> None:
        """Use the number of threads that is set, or PyTorch's own."""
        import torch

        if self.threads is not None and self.threads > _MAX_THREADS:
            raise InvalidArgumentError(
                f"`threads` must be at most {_MAX_THREADS:,}, got {self.threads:,}"
            )
        if self.threads is None:
            self._use(torch.get_num_threads(), "chosen by PyTorch")
        else:
            self._use(self.threads, "set by --threads")

    def _use(self, threads: int, why: str) -> None:
        import torch

        torch.set_num_threads(threads)
        if self.verbose:
            console.print(f"threads: {threads} {why}")
