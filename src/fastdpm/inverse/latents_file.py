"""Latents files: safetensors that include the plan that decodes them.

The tensors have the names of the fields of :class:`fastdpm.inverse.encoding.Latents`. The metadata
contains the format and its version, a digest of the tensors, the plan as JSON, the method, the
digest and name of the model, and the names of the inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from fastdpm.core import inverse
from fastdpm.core.arguments import checked
from fastdpm.core.errors import DataError, InvalidArgumentError, SamplingError
from fastdpm.core.guidance import GuidanceScale
from fastdpm.core.limits import parse_json
from fastdpm.core.plan import Plan
from fastdpm.core.structure import build
from fastdpm.data.files import write_bytes
from fastdpm.data.tensors import bytes_digest, read_with_head, tensor_digest
from fastdpm.inverse.encoding import Latents

FORMAT, VERSION = "fastdpm-latents", "1"
_TENSORS = ("x", "evaluations", "residual", "row")
_OPTIONAL = ("past", "condition")
_HEAD = ("plan", "fingerprint", "method", "model", "model_name", "inputs")


class SavedLatents(NamedTuple):
    """Contents of a latents file.

    Attributes:
        latents: The latents.
        inputs: Name of each sample's input.
        gain: Factor that restores the volume of each sample's input, shape (n,).
    """

    latents: Latents
    inputs: tuple[str, ...]
    gain: Tensor


@checked
def write_latents(
    path: str | Path,
    latents: Latents,
    *,
    inputs: Sequence[str] = (),
    gain: Tensor | None = None,
) -> None:
    """Write latents to a file that :func:`read_latents` restores exactly.

    Args:
        path: Path of the file, usually with the suffix .safetensors.
        latents: Latents from :func:`fastdpm.inverse.encoding.encode`, all of them finite.
        inputs: Name of each sample's input; sample numbers by default.
        gain: Factor that restores the volume of each sample's input, shape (n,); 1 by default.

    Raises:
        InvalidArgumentError: If the file cannot be created, or the number of names is wrong.
        DataError: If the latents contain values that are not finite.
    """
    names = list(inputs) or [str(i) for i in range(len(latents.x))]
    if len(names) != len(latents.x):
        raise InvalidArgumentError(
            f"`inputs` must have {len(latents.x)} names, one per latent, got {len(names)}"
        )
    _check_finite("these latents", latents)
    tensors = _tensors(latents)
    tensors["gain"] = torch.ones(len(names), device="cpu") if gain is None else gain
    tensors["gain"] = tensors["gain"].double()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    guidance = (
        {"guidance": json.dumps(latents.guidance.record)} if latents.guidance.enabled else {}
    )
    head = {
        "digest": _digest(tensors),
        "format": FORMAT,
        "version": VERSION,
        "plan": latents.plan.to_json(),
        "fingerprint": latents.plan.fingerprint,
        "method": latents.method,
        "model": latents.model,
        "model_name": latents.model_name,
        "inputs": json.dumps(names),
        **guidance,
    }
    write_bytes(Path(path), save(tensors, head))


@checked
def read_latents(path: str | Path) -> SavedLatents:
    """Read a latents file that :func:`write_latents` or ``fastdpm encode`` wrote.

    Raises:
        DataError: If the file does not exist, is not a latents file or is damaged, or its plan or
            its values were changed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no latents at {str(path)!r}: pass a file that `fastdpm encode` wrote")
    head, tensors = read_with_head(path, DataError)
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if head.get(key) != expected:
            raise DataError(
                f"{path} is not a latents file: its {key} is {head.get(key)!r}, not {expected!r}"
            )
    missing = [name for name in _HEAD if name not in head]
    missing += [name for name in (*_TENSORS, "gain") if name not in tensors]
    if missing:
        raise DataError(f"{path} is not a complete latents file: {', '.join(missing)} missing")
    if "digest" in head and head["digest"] != _digest(tensors):
        raise DataError(
            f"{path} is damaged: its values do not match its digest {head['digest']}; encode again"
        )
    plan = _read_plan(path, head)
    _check_tensors(path, tensors, plan)
    inputs = _read_names(path, head["inputs"], len(tensors["x"]))
    row = inverse.ENCODINGS.get(head["method"])
    if row is None or row.num_past != plan.num_past:
        raise DataError(
            f"{path} is damaged: method {head['method']!r} does not match plan {plan.label!r}"
        )
    fields = {name: tensors.get(name) for name in (*_TENSORS, *_OPTIONAL)}
    names = {name: head[name] for name in ("method", "model", "model_name")}
    guidance = _read_guidance(path, head.get("guidance", "{}"), plan)
    latents = Latents(plan=plan, guidance=guidance, **names, **fields)  # type: ignore[arg-type]
    _check_finite(str(path), latents)
    return SavedLatents(latents, inputs, tensors["gain"])


def select(latents: Latents, which: Tensor) -> Latents:
    """Select the latents of some samples, by indices or by a mask of shape (n,)."""
    parts: dict[str, Any] = {name: tensor[which] for name, tensor in _tensors(latents).items()}
    return replace(latents, **parts)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, types, shapes and values, 16 hexadecimal digits."""
    lines = (f"{name} {tensor_digest(tensors[name])}\n".encode() for name in sorted(tensors))
    return bytes_digest(*lines)[:16]


def _tensors(latents: Latents) -> dict[str, Tensor]:
    names = (*_TENSORS, *_OPTIONAL)
    return {n: tensor for n in names if (tensor := getattr(latents, n)) is not None}


def unsolved(latents: Latents, names: Sequence[str]) -> list[str]:
    """Describe each sample that did not converge by its name, zero-based row and residual."""
    return [
        f"{names[i]}: row {int(latents.row[i])} of {latents.plan.num_rows}, residual"
        f" {float(latents.residual[i]):.2g}"
        for i in torch.nonzero(latents.row >= 0).flatten().tolist()
    ]


def check_usable(latents: Latents, names: Sequence[str]) -> None:
    """Raise SamplingError, with row and residual, if a sample has no latent."""
    lost = torch.nonzero(~latents.usable).flatten()
    if len(lost):
        details = unsolved(select(latents, lost), [names[i] for i in lost.tolist()])
        raise SamplingError(
            f"{len(lost)} of {len(latents.x)} did not converge ({'; '.join(details)}): use"
            " more steps, another `method`, or `solver=ImplicitOptions(keep_best=True)`"
        )


def _read_plan(path: Path, head: dict[str, str]) -> Plan:
    try:
        plan = Plan.from_json(head["plan"])
    except InvalidArgumentError as error:
        reason = str(error).split(":")[0]
        raise DataError(f"the plan in {path} cannot be used ({reason}): encode again") from None
    if plan.fingerprint != head["fingerprint"]:
        raise DataError(
            f"{path} was encoded for plan {head['fingerprint']}, but contains plan"
            f" {plan.fingerprint}: latents decode only with their own plan; encode again"
        )
    return plan


def _check_tensors(path: Path, tensors: dict[str, Tensor], plan: Plan) -> None:
    x = tensors["x"]
    expected: dict[str, tuple[torch.Size, torch.dtype | None]] = {
        "x": (x.shape, torch.float32),
        "past": (x.shape, torch.float32),
        "evaluations": (x.shape[:1], None),
        "residual": (x.shape[:1], None),
        "row": (x.shape[:1], None),
        "gain": (x.shape[:1], torch.float64),
    }
    if x.ndim < 2 or not len(x):
        raise DataError(f"{path} contains no latents: x has shape {tuple(x.shape)}")
    if "condition" in tensors:
        expected["condition"] = (x.shape[:1] + tensors["condition"].shape[1:], None)
    for name, tensor in tensors.items():
        shape, dtype = expected.get(name, (tensor.shape, None))
        if tensor.shape != shape or dtype not in (None, tensor.dtype):
            raise DataError(
                f"{path} is damaged: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}, but"
                f" x has shape {tuple(x.shape)}"
            )
    if plan.num_past != int("past" in tensors):
        raise DataError(
            f"{path} is damaged: its plan needs {1 + plan.num_past} states, but it contains"
            f" {1 + int('past' in tensors)}"
        )


def _read_guidance(path: Path, text: str, plan: Plan) -> GuidanceScale:
    """The guidance in the metadata; none in files that were encoded without it."""
    try:
        guidance = build(GuidanceScale, parse_json(text), "guidance")
        guidance.per_row(np.arange(float(plan.num_rows + plan.num_past)))
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}") from None
    return guidance


def _read_names(path: Path, text: str, count: int) -> tuple[str, ...]:
    try:
        names = parse_json(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or len(names) != count:
        raise DataError(f"{path} is damaged: it must contain {count} names of inputs")
    return tuple(map(str, names))


def _check_finite(what: str, latents: Latents) -> None:
    for values in (latents.x, latents.past, latents.condition):
        if values is not None and not torch.isfinite(values).all():
            raise DataError(
                f"{what} must be finite, got NaN or infinity: leave out the samples that did not"
                " converge"
            )
