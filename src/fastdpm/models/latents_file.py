"""Files of latents: safetensors with the plan that decodes them inside.

The tensors are those of :class:`fastdpm.models.latents.Latents` under their names; the metadata
holds the format and its version, the plan as JSON, the method, the digest and name of the model,
and the names of what was encoded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fastdpm.core.errors import DataError, InvalidArgumentError, SamplingError
from fastdpm.core.plan import Plan
from fastdpm.files import write_bytes
from fastdpm.models.latents import METHODS, Latents

FORMAT, VERSION = "fastdpm-latents", "1"
_TENSORS = ("x", "evaluations", "residual", "row")
_OPTIONAL = ("past", "condition")
_HEAD = ("plan", "fingerprint", "method", "model", "model_name", "inputs")


class SavedLatents(NamedTuple):
    """What a file of latents holds: them, the name of their model, and those of the inputs."""

    latents: Latents
    model_name: str
    inputs: tuple[str, ...]


def write_latents(
    path: str | Path, latents: Latents, *, model_name: str = "", inputs: Sequence[str] = ()
) -> None:
    """Write latents; numbers come back to the last bit.

    Args:
        path: The file, by custom a .safetensors.
        latents: As :func:`fastdpm.models.latents.encode` gives them, all of them converged or
            taken as they are.
        model_name: Of the model that encoded them, for errors.
        inputs: Names of what was encoded, one for each sample; numbers by default.

    Raises:
        InvalidArgumentError: If the file cannot have that place, the names are not one for each
            sample, or the latents hold values that are not finite.
    """
    names = list(inputs) or [str(i) for i in range(len(latents.x))]
    if len(names) != len(latents.x):
        raise InvalidArgumentError(
            f"{len(latents.x)} latents need as many names, got {len(names)}"
        )
    _check_finite("these latents", latents)
    tensors: dict[str, Tensor] = {name: getattr(latents, name) for name in _TENSORS}
    tensors |= {n: getattr(latents, n) for n in _OPTIONAL if getattr(latents, n) is not None}
    head = {
        "format": FORMAT,
        "version": VERSION,
        "plan": latents.plan.to_json(),
        "fingerprint": latents.plan.fingerprint,
        "method": latents.method,
        "model": latents.model,
        "model_name": model_name,
        "inputs": json.dumps(names),
    }
    write_bytes(Path(path), save({n: t.cpu().contiguous() for n, t in tensors.items()}, head))


def read_latents(path: str | Path) -> SavedLatents:
    """Read :func:`write_latents` back.

    Raises:
        DataError: If there is no such file, it holds no latents or is damaged, or its plan was
            changed.
    """
    path = Path(path)
    head, tensors = _read(path)
    for key, wanted in (("format", FORMAT), ("version", VERSION)):
        if head.get(key) != wanted:
            raise DataError(
                f"{path} is no file of latents: its {key} is {head.get(key)!r}, not {wanted!r}"
            )
    missing = [name for name in _HEAD if name not in head]
    missing += [name for name in _TENSORS if name not in tensors]
    if missing:
        raise DataError(f"{path} is not a whole file of latents: {', '.join(missing)} missing")
    plan = _read_plan(path, head)
    _check_tensors(path, tensors, plan)
    inputs = _read_names(path, head["inputs"], len(tensors["x"]))
    if head["method"] not in METHODS:
        raise DataError(f"{path} was encoded by {head['method']!r}, none of {', '.join(METHODS)}")
    chosen = {name: tensors.get(name) for name in (*_TENSORS, *_OPTIONAL)}
    latents = Latents(plan=plan, method=head["method"], model=head["model"], **chosen)  # type: ignore[arg-type]
    _check_finite(str(path), latents)
    return SavedLatents(latents, head["model_name"], inputs)


def select(latents: Latents, which: Tensor) -> Latents:
    """The latents of some samples, by their indices or by a mask, shape (n,)."""
    names = (*_TENSORS, *_OPTIONAL)
    tensors = {name: getattr(latents, name) for name in names}
    return replace(latents, **{n: t[which] for n, t in tensors.items() if t is not None})


def usable(latents: Latents) -> Tensor:
    """Which samples have a latent, shape (n,): those that converged or whose best was kept."""
    return torch.isfinite(latents.x).flatten(1).all(dim=1)


def unsolved(latents: Latents, names: Sequence[str]) -> list[str]:
    """One line for each sample that did not converge: its name, row and residual."""
    return [
        f"{names[i]}: row {int(latents.row[i])} of {latents.plan.num_rows}, residual"
        f" {float(latents.residual[i]):.2g}"
        for i in torch.nonzero(latents.row >= 0).flatten().tolist()
    ]


def check_usable(latents: Latents, names: Sequence[str]) -> None:
    """Raise SamplingError, naming row and residual, if a sample has no latent."""
    lost = torch.nonzero(~usable(latents)).flatten()
    if len(lost):
        told = unsolved(select(latents, lost), [names[i] for i in lost.tolist()])
        raise SamplingError(
            f"{len(lost)} of {len(latents.x)} did not converge ({'; '.join(told)}): take more"
            " steps or other levels, keep the best iterate, or encode by another method"
        )


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise DataError(f"no latents at {str(path)!r}: give a file that `fastdpm encode` wrote")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return dict(file.metadata() or {}), tensors
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a whole safetensors file: {error}") from None


def _read_plan(path: Path, head: dict[str, str]) -> Plan:
    try:
        plan = Plan.from_json(head["plan"])
    except InvalidArgumentError as error:
        raise DataError(f"the plan in {path} cannot be used: {error}") from None
    if plan.fingerprint != head["fingerprint"]:
        raise DataError(
            f"{path} was encoded for the plan {head['fingerprint']}, but the plan in it is"
            f" {plan.fingerprint}: latents decode by their own plan alone; encode again"
        )
    return plan


def _check_tensors(path: Path, tensors: dict[str, Tensor], plan: Plan) -> None:
    x = tensors["x"]
    wanted: dict[str, tuple[torch.Size, torch.dtype | None]] = {
        "x": (x.shape, torch.float32),
        "past": (x.shape, torch.float32),
        "evaluations": (x.shape[:1], None),
        "residual": (x.shape[:1], None),
        "row": (x.shape[:1], None),
    }
    if x.ndim < 2 or not len(x):
        raise DataError(f"{path} holds no latents: x has shape {tuple(x.shape)}")
    if "condition" in tensors:
        wanted["condition"] = (x.shape[:1] + tensors["condition"].shape[1:], None)
    for name, tensor in tensors.items():
        shape, dtype = wanted.get(name, (tensor.shape, None))
        if tensor.shape != shape or dtype not in (None, tensor.dtype):
            raise DataError(
                f"{path} is damaged: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}"
                f" beside x of shape {tuple(x.shape)}"
            )
    if plan.num_past != int("past" in tensors):
        raise DataError(
            f"{path} is damaged: its plan starts from {1 + plan.num_past} states, it holds"
            f" {1 + int('past' in tensors)}"
        )


def _read_names(path: Path, text: str, count: int) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list) or len(names) != count:
        raise DataError(f"{path} is damaged: its names are not those of {count} inputs")
    return tuple(map(str, names))


def _check_finite(what: str, latents: Latents) -> None:
    for state in (latents.x, latents.past):
        if state is not None and not torch.isfinite(state).all():
            raise DataError(
                f"{what} hold values that are not finite: leave out the samples that did not"
                " converge"
            )
