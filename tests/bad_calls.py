"""Public calls with wrong arguments: every parameter of every public callable, a menu of values.

``python -m tests.bad_calls`` prints each call that ends in anything but the library's own error.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from torch import Tensor, nn

import fastdpm
from fastdpm import core, data, evaluation, inverse, models, sampling, tuning
from fastdpm.integrations.diffusers import plan_of

MENU: dict[str, Any] = {
    "None": None,
    "True": True,
    "-1": -1,
    "0": 0,
    "5.5": 5.5,
    "NaN": math.nan,
    "inf": math.inf,
    "1e30": 1e30,
    "2**70": 2**70,
    "'3'": "3",
    "''": "",
    "NUL": "a\0b",
    "bytes": b"x",
    "[]": [],
    "[None]": [None],
    "['x']": ["x"],
    "[[1, 2], [3]]": [[1, 2], [3]],
    "{}": {},
    "{'a': 1}": {"a": 1},
    "object": object(),
    "1j": 1j,
    "array": np.array([1.0, 2.0]),
    "array of str": np.array(["x"]),
    "tensor": torch.tensor([1, 2]),
    "tensor of NaN": torch.full((2, 1, 8, 8), math.nan),
    "scalar tensor": torch.tensor(1.5),
    "meta tensor": torch.zeros(2, device="meta"),
    "iterator": iter([1]),
    "path": Path("no-such-file"),
}


class Call(NamedTuple):
    """A valid call, of which one argument at a time is replaced."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    skip: tuple[str, ...] = ()


class Net(nn.Module):
    """A network as small as can be."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.3))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.weight * x


def calls(folder: Path) -> Iterator[Call]:
    """A valid call of every public function and class."""
    schedule = fastdpm.VarianceSchedule.linear(20, 1e-3, 0.3)
    levels = fastdpm.levels_step(schedule, 3)
    yield from _core_calls(schedule, levels)
    yield from _sampling_calls(schedule, levels)
    yield from _inverse_calls(schedule, levels, folder)
    yield from _file_calls(schedule, folder)


def _core_calls(schedule: fastdpm.VarianceSchedule, levels: fastdpm.NoiseLevels) -> Iterator[Call]:
    plan, betas = fastdpm.ddim_rev(levels), [0.1, 0.2]
    tables = {name: getattr(plan, name) for name in ("level", "t", "a", "b", "c")}
    s, of = {"schedule": schedule}, fastdpm.VarianceSchedule
    yield Call("linear", of.linear, {"num_train_steps": 10})
    yield Call("scaled_linear", of.scaled_linear, {"num_train_steps": 10})
    yield Call("cosine", of.cosine, {"num_train_steps": 10})
    yield Call("from_betas", of.from_betas, {"betas": betas})
    yield Call("from_config", of.from_config, {"config": {"type": "betas", "betas": betas}})
    yield Call("R", schedule.R, {"t": 1.0})
    yield Call("T", schedule.T, {"r": 0.9})
    yield Call("levels_step", fastdpm.levels_step, s | {"num_steps": 3})
    yield Call("levels_var", fastdpm.levels_var, s | {"num_steps": 3})
    yield Call("levels_all", core.levels_all, s)
    yield Call("levels_spaced", core.levels_spaced, s | {"num_steps": 3, "spacing": "leading"})
    yield Call("levels_sigma", core.levels_sigma, s | {"num_steps": 3})
    yield Call("levels_custom", core.levels_custom, s | {"t": [5.0, 2.0]}, ("level",))
    yield Call("levels_custom level", core.levels_custom, s | {"level": [0.5, 0.9]}, ("t",))
    yield Call("levels_from_variances", core.levels_from_variances, s | {"variances": [0.1]})
    table: dict[str, Any] = {
        "level": [float(schedule.levels[-1]), 0.9, 1.0],
        "cost": np.ones((3, 3)),
    }
    costs = core.TrajectoryCosts(**table)
    yield Call("TrajectoryCosts", core.TrajectoryCosts, table)
    yield Call("from_dict", core.TrajectoryCosts.from_dict, {"data": costs.to_dict()})
    yield Call("levels_gits", core.levels_gits, s | {"num_steps": 2, "costs": costs})
    yield Call("NoiseLevels", fastdpm.NoiseLevels, {"level": [0.5, 1.0], "t": [3.0]})
    yield Call("slice", levels.__getitem__, {"rows": slice(1, None)})
    yield Call("Plan", fastdpm.Plan, tables)
    yield Call("from_json", fastdpm.Plan.from_json, {"text": plan.to_json()})
    yield from _plan_calls(s, levels)


def _plan_calls(s: dict[str, Any], levels: fastdpm.NoiseLevels) -> Iterator[Call]:
    yield Call("Recipe", fastdpm.Recipe, {})
    yield Call("Recipe.replace", fastdpm.Recipe().replace, {"kappa": 0.5, "num_steps": 3})
    yield Call("Recipe.change", fastdpm.Recipe().change, {"kappa": 0.5}, ("name",))
    yield Call("Recipe.compile", fastdpm.Recipe(num_steps=3).compile, s)
    yield Call("GuidanceScale", core.GuidanceScale, {"scale": 2.0})
    yield Call("ddim_rev", fastdpm.ddim_rev, {"levels": levels})
    yield Call("standard", core.standard, s)
    for name in ("dpmpp_2m", "dpmpp_3m", "multistep_3", "ipndm", "sde_dpmpp_2m", "restart"):
        yield Call(name, getattr(core, name), {"levels": levels})
    for name in ("unipc", "deis_log_rho", "adams_bashforth"):
        yield Call(name, getattr(core, name), {"levels": levels, "order": 2})
    yield Call("deis_tab", core.deis_tab, s | {"levels": levels, "order": 2})
    for name in ("heun", "dpm_solver_2"):
        yield Call(name, getattr(core, name), s | {"levels": levels})
    yield Call("GreyLevels", core.GreyLevels, {"count": 4, "low": -1.0, "step": 0.5})
    yield Call("GreyLevels.spanning", core.GreyLevels.spanning, {"count": 4})
    yield Call("GreyLevels.signed", core.GreyLevels.signed, {"count": 4})


def _sampling_calls(
    schedule: fastdpm.VarianceSchedule, levels: fastdpm.NoiseLevels
) -> Iterator[Call]:
    plan, model, x = fastdpm.ddim_rev(levels), _model(schedule), _data()
    noise, network = fastdpm.SampleNoise(0, [0, 1]), {"network": lambda x, t: x}
    yield Call("run", fastdpm.run, network | {"plan": plan, "x": x})
    yield Call("SampleNoise", fastdpm.SampleNoise, {"seed": 0, "samples": [0]})
    yield Call("SampleNoise.start", noise.start, {"shape": (3,)})
    yield Call("noise", noise, {"row": 0, "x": x})
    yield Call("ImplicitOptions", sampling.ImplicitOptions, {})
    yield Call("ClipX0", sampling.ClipX0, network)
    yield Call("DynamicThreshold", sampling.DynamicThreshold, network)
    yield Call("VPrediction", sampling.VPrediction, network)
    yield Call("X0Prediction", sampling.X0Prediction, network)
    yield Call("Autocast", sampling.Autocast, network | {"dtype": torch.bfloat16})
    guided = network | {"log_probability": lambda x, t: x.sum()}
    yield Call("ClassifierGuidance", sampling.ClassifierGuidance, guided)
    both = {"condition": x, "unconditional": x, "guidance_scale": 2.0}
    yield Call("Guidance", sampling.Guidance, network | both)
    wrap = {"network": Net().eval(), "schedule": schedule, "shape": (1, 8, 8)}
    yield Call("Model.wrap", fastdpm.Model.wrap, wrap)
    few, labeled = {"n": 2, "num_steps": 2}, _model(schedule, classes=3)
    yield Call("Model.sample", model.sample, few)
    yield Call("sample plan", model.sample, {"n": 2, "plan": plan})
    yield Call("sample labels", labeled.sample, few | {"class_labels": [1, 2]})
    short = {"model": model, "n": 2, "num_steps": 2}
    yield Call("trajectory_costs", models.trajectory_costs, short)
    yield Call("Decoder", models.Decoder, {"shape": (1, 2), "decode": lambda x: x})


def _inverse_calls(
    schedule: fastdpm.VarianceSchedule, levels: fastdpm.NoiseLevels, folder: Path
) -> Iterator[Call]:
    model, labeled, x = _model(schedule), _model(schedule, classes=3), _data()
    noise, latents = fastdpm.SampleNoise(0, [0, 1]), fastdpm.encode(model, x, levels)
    m = {"model": model, "x": x, "levels": levels}
    yield Call("encode", fastdpm.encode, m)
    yield Call("encode implicit", fastdpm.encode, m | {"method": "implicit"})
    yield Call("encode labels", fastdpm.encode, m | {"model": labeled, "class_labels": [1, 2]})
    yield Call("decode", fastdpm.decode, {"model": model, "latents": latents})
    yield Call("edit", fastdpm.edit, {"model": model, "x": x})
    ends = {"model": model, "a": x[0], "b": x[1], "levels": levels, "n": 3}
    yield Call("interpolate", fastdpm.interpolate, ends)
    yield Call("diffuse", fastdpm.diffuse, {"model": schedule, "x0": x, "step": 3, "noise": noise})
    yield Call("diffusion_chain", inverse.diffusion_chain, {"levels": levels})
    bits = m | {"grey": core.GreyLevels.spanning(256), "rounding": 0.5}
    yield Call("bits_per_dimension", fastdpm.bits_per_dimension, bits)
    yield Call("reconstruct", fastdpm.reconstruct, m)
    yield Call("write_latents", inverse.write_latents, {"path": folder / "a", "latents": latents})
    yield Call("read_latents", inverse.read_latents, {"path": folder / "none"})


def _file_calls(schedule: fastdpm.VarianceSchedule, folder: Path) -> Iterator[Call]:
    (folder / "recipes.toml").write_text("[mine]\nkappa = 0.5\n")
    yield Call("read_recipes", core.read_recipes, {"path": folder / "recipes.toml"})
    yield Call("load_model", fastdpm.load_model, {"name_or_path": folder / "none"})
    convert = {"source": folder / "none", "out": folder / "out"}
    yield Call("convert", fastdpm.convert, convert)
    yield Call("DataSpec", data.DataSpec, {"modality": "image", "shape": (1, 8, 8)})
    mel = {"sample_rate": 8000, "n_fft": 64, "hop_length": 16, "bands": 8}
    yield Call("MelSpec", data.MelSpec, mel | {"f_min": 0.0, "f_max": 4000.0})
    read = {"path": folder / "none", "data": _model(schedule).config.data}
    yield Call("read_samples", data.read_samples, read)
    yield Call("choose_methods", evaluation.choose_methods, {"names": "paper", "kappas": [0.0]})
    yield Call("DrawOptions", evaluation.DrawOptions, {})
    yield Call("MeasureOptions", evaluation.MeasureOptions, {})
    # A network of another shape than any feature network: every call is refused.
    odd = fastdpm.Model.wrap(Net().eval(), schedule, (1, 4, 4), name="tiny")
    yield Call("evaluate", fastdpm.evaluate, {"samples": odd})
    yield Call("compare", fastdpm.compare, {"model": odd})
    yield Call("recommend", fastdpm.recommend, {"model": odd})
    yield Call("prepare_recommendation", evaluation.prepare_recommendation, {"model": odd})
    yield Call("TuneOptions", fastdpm.TuneOptions, {})
    tuned = {"model": odd, "num_steps": 30, "options": fastdpm.TuneOptions(n=32, teacher_steps=1)}
    yield Call("tune", fastdpm.tune, tuned)  # S is refused in every call
    of_another = fastdpm.TunedPlan(
        plan=core.ddim_rev(fastdpm.levels_step(schedule, 3)), model="0" * 16
    )
    yield Call("measured", tuning.measured, {"tuned": of_another, "model": odd, "n": 30})
    yield Call("FastDPMScheduler", fastdpm.FastDPMScheduler, {})
    yield Call("FastDPMInverseScheduler", fastdpm.FastDPMInverseScheduler, {})
    of_theirs = {"scheduler": diffusers.DDIMScheduler(20), "num_steps": 3}
    yield Call("plan_of", plan_of, of_theirs)
    yield Call("set_timesteps", fastdpm.FastDPMScheduler().set_timesteps, {}, ("kwargs",))


def _model(schedule: fastdpm.VarianceSchedule, classes: int | None = None) -> fastdpm.Model:
    network = Net().eval()
    return fastdpm.Model.wrap(network, schedule, (1, 8, 8), classes=classes, name="tiny")


def _data() -> Tensor:
    return torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)


def replaced(call: Call) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The calls with one argument replaced: parameter, value, and arguments."""
    known = inspect.signature(call.function).parameters.values()
    names = [p.name for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in dict.fromkeys([*call.arguments, *names]):
        for label, value in MENU.items() if name not in call.skip else ():
            yield name, label, call.arguments | {name: iter([1]) if label == "iterator" else value}


def main() -> None:
    """Print what is not refused as it should be."""
    import tempfile

    tried = refused = 0
    verbose = "-v" in sys.argv
    only = [a for a in sys.argv[1:] if a != "-v"]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for call in calls(Path(folder)):
            if only and call.name not in only:
                continue
            for name, label, arguments in replaced(call):
                tried += 1
                try:
                    call.function(**arguments)
                except fastdpm.FastDPMError as error:
                    refused += 1
                    if f"`{name}`" not in str(error):
                        print(f"{call.name}({name}={label}) does not name it: {error}")
                except Exception as error:
                    place = traceback.extract_tb(error.__traceback__)[-1]
                    where = f"{Path(place.filename).name}:{place.lineno}"
                    said = f"{type(error).__name__}: {str(error)[:100]} [{where}]"
                    print(f"RAW {call.name}({name}={label}): {said}")
                else:
                    if verbose:
                        print(f"taken {call.name}({name}={label})")
    print(f"{tried} calls, {refused} refused")


if __name__ == "__main__":
    main()
