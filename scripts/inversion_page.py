"""The section of the results page about encoding and decoding."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

_HEAD = """## Encoding and decoding

`python scripts/inversion.py --sounds spoken-digits-test.parquet` measures this on held-out data:
scikit-learn's digits, rows 1,437 to 1,796, and the first recordings of the test split of the Free
Spoken Digit Dataset, centered in the model's window. The network runs in float32.

### Approximate encoders compared with diffusers

PSNR of the reconstruction of {n} digits in dB (mean ± standard error, higher is better). Encoding
and decoding together take about 100 network evaluations. "diffusers" is `DDIMInverseScheduler`
followed by `DDIMScheduler` on the same network.
"""
_ROUND_TRIP = """
### Reconstruction error

The columns are: the share of samples whose relative error |decode(encode(x)) - x| / |x| is at most
1e-4; the largest relative error; the network evaluations to encode a sample; the standard
deviation of the latents at the noisiest level, which is near 1 if the levels suit the data; and
the rows at which samples could not be encoded, with the number of these samples and their largest
residual. "*" means without the last row: `encode(model, x, levels[:-1], "implicit")` or
`--without-last-row`. Recordings are padded with digital silence. The last row maps all states near
silence to silence, so it has no inverse there.
"""
_LIKELIHOOD = """
### Levels compared by likelihood

Bits per dimension of {n} digits (mean ± standard error, lower is better): the variational bound of
sampling with kappa = 1 over these levels, with the forward ("large") variance and 17 gray levels.
`fastdpm likelihood` computes the same.

![Where the bits are spent at S = 20](results/digits-terms.png)
"""
_CIFAR10 = """
### CIFAR-10

`python scripts/inversion_cifar10.py --data cifar10-test.parquet` encodes the first test image of
each class of CIFAR-10 (JPEG q75) with the built-in model `cifar10` and its own class, over STEP
quadratic levels, and decodes it. The columns are: the network evaluations of encoding and
decoding; the PSNR of the reconstruction in dB, and its mean absolute error in levels of
0 to 255, mean ± standard error over the images; and the standard deviation of the latents. Where
nothing else is said, there is no guidance and the network computes in float32.

![PSNR of reconstructions of CIFAR-10](results/cifar10-reconstruction.png)
"""
_NAMES = {"first": "first order", "second": "second order"}


def section(path: Path) -> str:
    """Return the tables, or nothing if there are no measurements."""
    if not path.is_file():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    parts = [_HEAD.format(n=found["psnr"][0]["n"]), _psnr(found["psnr"]), _ROUND_TRIP]
    for name in ("digits", "spoken-digits"):
        if found.get(name):
            parts += [f"`{name}`:\n", _round_trips(found[name])]
    bits = found["likelihood"]
    parts += [_LIKELIHOOD.format(n=bits[0]["n"]), _likelihood(bits)]
    cifar10 = path.with_name("cifar10-inversion.json")
    if cifar10.is_file():
        rows = json.loads(cifar10.read_text(encoding="utf-8"))["cifar10"]
        parts += [_CIFAR10, _errors(rows)]
    return "\n".join(parts)


def _errors(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| encoder | S | n | evaluations | PSNR | mean absolute error | std |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        precision = "" if row["precision"] == "float32" else f", {row['precision']}"
        guidance = "" if row["guidance"] == 1 else f", guidance {row['guidance']:g}"
        cells = [
            f"{_NAMES.get(row['method'], row['method'])}{precision}{guidance}",
            str(row["S"]),
            str(row["n"]),
            f"{row['evaluations']:.0f}",
            _mean(row["psnr"], ".1f"),
            _mean(row["absolute_error"], ".3f" if max(row["absolute_error"]) > 0.01 else ".1e"),
            f"{row['std']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _mean(values: list[float], digits: str) -> str:
    """The mean of values and its standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):{digits}} ± {error:{digits}}"


def _psnr(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| encoder | levels or steps | S | evaluations | PSNR |",
        "| --- | --- | --- | --- | --- |",
    ]
    best = {
        m: max(r["psnr"] for r in rows if r["method"] == m) for m in {r["method"] for r in rows}
    }
    for row in rows:
        shown = f"{row['psnr']:.2f} ± {row['error']:.2f}"
        shown = f"**{shown}**" if row["psnr"] == best[row["method"]] else shown
        name = _NAMES.get(row["method"], row["method"])
        levels = f"{row['levels'].upper()} {row['spacing']}".strip()
        lines.append(f"| {name} | {levels} | {row['S']} | {row['evaluations']} | {shown} |")
    return "\n".join([*lines, ""])


def _round_trips(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| encoder | levels | S | n | within 1e-4 | largest | evaluations | std | failed at row |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        largest = "-" if row["largest"] is None else f"{row['largest']:.1e}"
        std = "-" if row["std"] is None else f"{row['std']:.2f}"
        cells = [
            row["method"] if row["last_row"] else f"{row['method']} *",
            f"{row['levels'].upper()} {row['spacing']}",
            str(row["S"]),
            str(row["n"]),
            f"{row['within']:.1%}",
            largest,
            f"{row['evaluations']:.0f}",
            std,
            _failed(row["failed"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _likelihood(rows: list[dict[str, Any]]) -> str:
    lines = ["| levels | S | evaluations | bits per dimension |", "| --- | --- | --- | --- |"]
    for row in rows:
        levels = f"{row['levels'].upper()} {row['spacing']}"
        if row["levels"] == "all":
            levels = "every training step"
        shown = f"{row['bits']:.3f} ± {row['error']:.3f}"
        lines.append(f"| {levels} | {row['S']:,} | {row['evaluations']:,} | {shown} |")
    return "\n".join([*lines, ""])


def _failed(failed: list[dict[str, Any]]) -> str:
    """Return the rows at which samples failed, the most frequent first."""
    by_row: dict[int, list[float]] = {}
    for each in failed:
        by_row.setdefault(each["row"], []).append(each["residual"])
    ordered = sorted(by_row.items(), key=lambda item: -len(item[1]))
    shown = [f"{row}: {len(values)} (to {max(values):.0e})" for row, values in ordered]
    return ", ".join(shown) or "none"
