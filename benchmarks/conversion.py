"""Measure the memory that converting the LSUN model needs, relative to its size.

Writes a checkpoint of 114 million random weights in the layout of DDPM's PyTorch port, converts it
in a separate process, and compares the peak resident memory of this process with its memory after
all imports. Mapped pages of files count as memory. Linux only.

    python benchmarks/conversion.py [--list]

With --list, the file has the layout of DDIM's code: weights, optimizer, averaged weights.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from fastdpm.models.presets import read_preset
from fastdpm.networks.build import build_network

_CONVERT = """
import sys
from pathlib import Path
import safetensors.torch
from fastdpm.models.conversion import convert
from fastdpm.models.presets import read_preset
from fastdpm.networks.build import check_fits

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

known = read_preset("cifar10-ddpm")
check_fits(known.network, known.data)
Path("/proc/self/clear_refs").write_text("5")  # the peak is that of the parent until then
before = peak()
convert(sys.argv[1], Path(sys.argv[2]), preset="lsun-bedroom")
print(peak() - before)
"""


def main(*, as_list: bool) -> float:
    """Print and return memory over size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "model-2388000.ckpt"
        state = build_network(read_preset("lsun-bedroom").network).state_dict()
        size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        if as_list:
            moments = {i: {"exp_avg": torch.rand_like(w)} for i, w in enumerate(state.values())}
            averaged = {n: tensor.clone() for n, tensor in state.items()}
            torch.save([state, {"state": moments}, 5, 100, averaged], path)
            del moments, averaged
        else:
            torch.save(state, path)
        del state
        command = [sys.executable, "-c", _CONVERT, str(path), str(folder / "out")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        used = int(done.stdout)
    print(f"weights {size / 2**20:,.0f} MiB, conversion {used / 2**20:,.0f} MiB above the imports")
    print(f"{used / size:.2f} times their size")
    return float(used / size)


if __name__ == "__main__":
    main(as_list="--list" in sys.argv[1:])
