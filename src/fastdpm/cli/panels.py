"""The panels in which help shows options, in the order of a command's help.

An option is declared in its panel, ``Panel.SAMPLING.option("--steps", "-S", help="...")``, with
the arguments of ``typer.Option``. Commands with few options use ``typer.Option`` itself.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import typer


class Panel(Enum):
    """A panel of help, by its title."""

    MODEL = "Model"
    INPUT = "Input"
    ENCODING = "Encoding"
    EDITING = "Editing"
    SAMPLING = "Sampling"
    LIKELIHOOD = "Likelihood"
    TRAINING = "Training"
    TUNING = "Tuning"
    MEASUREMENT = "Measurement"
    OUTPUT = "Output"
    COMPUTATION = "Computation"

    def option(self, *names: str, help: str | Callable[[], str], **settings: Any) -> Any:
        """An option of this panel.

        Args:
            names: What users type, such as "--steps" and "-S"; by default the parameter's name.
            help: A phrase that says what the option does, or a function that returns it: text
                from tables, which is looked up when help is shown.
            settings: Other arguments of ``typer.Option``.
        """
        text: Any = help
        return typer.Option(*names, help=text, rich_help_panel=self.value, **settings)
