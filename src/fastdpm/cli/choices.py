"""Options that several commands share: how to sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fastdpm.core.recipe import Recipe

NumSteps = Annotated[
    int | None,
    typer.Option("--steps", "-S", help="S, network evaluations, from 2 to T.", show_default=False),
]
Levels = Annotated[
    str | None, typer.Option(help="var or step: how the S levels are chosen.", show_default=False)
]
Spacing = Annotated[str | None, typer.Option(help="linear or quadratic.", show_default=False)]
Kappa = Annotated[
    float | None,
    typer.Option(help="0 is DDIM-rev, 1 is DDPM-rev, or in between.", show_default=False),
]
Method = Annotated[
    str | None,
    typer.Option(
        help="ddim-rev, dpmpp-2m, dpmpp-3m, multistep-3, standard or standard-large.",
        show_default=False,
    ),
]
Unbounded = Annotated[
    bool, typer.Option("--unbounded", help="VAR without the authors' bound on its variances.")
]
AtSteps = Annotated[
    str | None,
    typer.Option(help="Steps by hand, zero-based and falling: 900,500,100.", show_default=False),
]
AtLevels = Annotated[
    str | None,
    typer.Option(help="Levels by hand, rising: 0.1,0.5,0.9.", show_default=False),
]
Variances = Annotated[
    str | None,
    typer.Option(
        help="Variances by hand, clean end first: 1e-4,1e-3,0.01,0.05,0.2,0.5.",
        show_default=False,
    ),
]


def parse_numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers separated by commas."""
    from fastdpm.core.errors import InvalidArgumentError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidArgumentError(
            f"{name} takes numbers separated by commas, got {text!r}"
        ) from None


def check_none_beside_plan(stated: dict[str, Any]) -> None:
    """Raise if a choice is stated beside a saved plan, which leaves nothing to choose."""
    from fastdpm.core.errors import InvalidArgumentError

    idle = [name for name, value in stated.items() if value not in (None, False)]
    if idle:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise InvalidArgumentError(
            f"--plan leaves nothing to choose for {names}: drop one of them"
        )


def choose(
    recommended: Recipe,
    *,
    steps: int | None,
    levels: str | None,
    spacing: str | None,
    kappa: float | None,
    method: str | None,
    unbounded: bool,
    at_steps: str | None,
    at_levels: str | None,
    variances: str | None,
    clip: str | None = None,
) -> Recipe:
    """The recommended recipe with the stated choices changed."""
    return recommended.replace(
        num_steps=steps,
        levels=levels,
        spacing=spacing,
        kappa=kappa,
        method=method,
        clip=clip,
        bounded=False if unbounded else None,
        at_steps=parse_numbers("--at-steps", at_steps),
        at_levels=parse_numbers("--at-levels", at_levels),
        variances=parse_numbers("--variances", variances),
    )
