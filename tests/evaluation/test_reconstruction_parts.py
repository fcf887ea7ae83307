"""A finished part of a reconstruction is read back as it was."""

from dataclasses import fields

import torch

from fastdpm.core import GuidanceScale
from fastdpm.data.run_folder import RunFolder
from fastdpm.evaluation.reconstruction import Found, Reconstruction
from fastdpm.evaluation.reconstruction_parts import ReconstructionParts


def test_a_part_keeps_everything(tmp_path):
    values = (1.5, 2.5)
    result = Reconstruction(
        method="first-order",
        plan="DDIM-rev",
        fingerprint="0123456789abcdef",
        x=torch.rand(2, 1, 8, 8),
        psnr=values,
        relative=values,
        evaluations=(4, 6),
        decoding=3,
        residual=values,
        row=(0, 1),
        deviation=values,
        snr=values,
        log_mel=None,
        guidance=GuidanceScale(2.0, interval=(0.1, 0.9), rescale=0.5),
    )
    with RunFolder.open(tmp_path / "out", "reconstruct", {}) as run:
        ReconstructionParts(run).write(Found("var linear", 3, result))
        (found,) = ReconstructionParts(run).found
    assert (found.choice, found.num_steps) == ("var linear", 3)
    for field in fields(Reconstruction):
        before, after = (getattr(each, field.name) for each in (result, found.result))
        same = torch.equal(before, after) if field.name == "x" else before == after
        assert same, field.name
