"""The samplers meet values computed by the FastDPM authors' own code.

``golden/official-fastdpm.json`` holds 20 of their runs on a closed-form network. Their code works
in float32 and finds VAR's variances to 1e-4, which is what the tolerances allow for.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastdpm import VarianceSchedule, ddim_rev, levels_step, levels_var, run

CASES = json.loads((Path(__file__).parent / "golden" / "official-fastdpm.json").read_text())[
    "cases"
]


def _name(case: dict[str, Any]) -> str:
    choice = f"{case['approximation']}-{case['spacing']}"
    return f"T{case['T']}-S{case['S']}-{choice}-kappa{case['kappa']:g}"


def _noise(number: int) -> torch.Tensor:
    drawn = np.random.RandomState(1000 + number).standard_normal((2, 3, 4, 4))
    return torch.from_numpy(drawn)


def _network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    t = t.reshape(-1, 1, 1, 1)
    return torch.tanh(x * (0.3 + 0.001 * t)) + 0.1 * torch.sin(t / 50)


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_a_run_equals_the_authors(case: dict[str, Any]):
    schedule = VarianceSchedule.linear(case["T"], case["beta_1"], case["beta_T"])
    choose = levels_step if case["approximation"] == "step" else levels_var
    levels = choose(schedule, case["S"], case["spacing"])
    network_t = np.array(case["network_t"])
    kept = np.flatnonzero(np.append(True, np.diff(network_t) != 0))  # they repeat merged steps
    np.testing.assert_allclose(levels.t, network_t[kept], atol=0.05)
    alpha_bar = np.array(case["alpha_bar"])[kept]
    np.testing.assert_allclose(levels.level[:-1] ** 2, alpha_bar, rtol=2e-4)

    plan = ddim_rev(levels, case["kappa"])
    x0 = run(plan, _network, _noise(0), noise=lambda row, x: _noise(int(kept[row]) + 1))
    difference = x0.flatten()[:12] - torch.tensor(case["x0"], dtype=torch.float64)
    assert float(difference.abs().max()) < 1e-2 * case["x0_std"]
    assert abs(float(x0.mean()) - case["x0_mean"]) < 1e-2 * case["x0_std"]
    assert float(x0.std()) == pytest.approx(case["x0_std"], rel=1e-2)
