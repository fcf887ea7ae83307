"""Averaged weights are found in every usual layout, and never passed over in silence."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdpm import ModelError
from fastdpm.models.formats.states import check_readable, choose_weights
from tests.messages import tells

MARK = "body.0.weight"
State = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))


def _state(value: float) -> State:
    return {name: torch.full_like(w, value) for name, w in Net().state_dict().items()}


RAW, GOOD, OTHER = _state(0.0), _state(1.0), _state(2.0)
LISTED = list(GOOD.values())


def _under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def _average() -> State:
    average = torch.optim.swa_utils.AveragedModel(Net())
    average.module.load_state_dict(GOOD)
    return average.state_dict()


def _flat(prefix: str) -> State:
    """Names without dots, as LitEma registers its buffers."""
    flat = {prefix + name.replace(".", ""): tensor for name, tensor in GOOD.items()}
    return flat | {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(3)}


EMA_LIST = {"decay": 0.999, "num_updates": 9, "shadow_params": LISTED, "collected_params": []}
EMA_PYTORCH = _under("ema_model.", GOOD) | _under("online_model.", RAW) | {"step": torch.ones(1)}
DIFFUSION = {"betas": torch.ones(3), **_under("model.", GOOD)}
CLOSED = {"exp_avg": torch.ones(3)}
LAYOUTS: dict[str, Any] = {
    "named": {"model": RAW, "ema": GOOD},
    "score_sde": {"optimizer": CLOSED, "model": _under("module.", RAW), "ema": EMA_LIST},
    "torch_ema": {"model_state_dict": RAW, "ema_state_dict": EMA_LIST},
    "diffusers EMAModel": {"unet": RAW, "ema": EMA_LIST | {"optimization_step": 3}},
    "ema_pytorch": {"model": RAW, "ema": EMA_PYTORCH},
    "ema_pytorch alone": EMA_PYTORCH,
    "ema_pytorch of a process": {"model": RAW, "ema": _under("ema_model.", DIFFUSION)},
    "ddim": [_under("module.", RAW), {"state": {0: CLOSED}}, 3, 100, GOOD],
    "two states": [RAW, GOOD],
    "timm": {"state_dict": RAW, "state_dict_ema": GOOD, "epoch": 3},
    "AveragedModel": _average(),
    "AveragedModel in a container": {"model": RAW, "ema_network": _average()},
    "lightning weight averaging": {
        "state_dict": _under("net.", GOOD),
        "current_model_state": _under("net.", RAW),
        "averaging_state": {"n_averaged": torch.tensor(3)},
    },
    "lightning swa": {
        "state_dict": _under("net.", RAW),
        "callbacks": {"StochasticWeightAveraging": {"average_model_state": _under("net.", GOOD)}},
    },
    "lightning ema callback": {
        "state_dict": _under("net.", RAW),
        "callbacks": {"EMA": {"ema_state_dict": _under("net.", GOOD)}},
    },
    "lightning ema in the module": {
        "state_dict": _under("net.", RAW) | _under("net_ema.module.", GOOD)
    },
    "nemo": {"state_dict": RAW, "optimizer_states": [{"opt": CLOSED, "ema": tuple(LISTED)}]},
    "latent-diffusion": {
        "state_dict": _under("model.diffusion_model.", RAW) | _flat("model_ema.diffusion_model")
    },
    "shadow": {"model": RAW, "ema": {"shadow": GOOD, "backup": RAW}},
    "compiled": {"model": _under("_orig_mod.", RAW), "ema": _under("module._orig_mod.", GOOD)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_averaged_weights_are_used_and_the_note_names_them(tmp_path, layout):
    path = tmp_path / "x.pt"
    torch.save(LAYOUTS[layout], path)
    found = choose_weights(path, torch.load(path, weights_only=True), MARK)
    assert found is not None
    weights, (note,) = found
    assert weights.averaged or "states" in layout or layout == "ddim"
    assert weights.tensors.keys() == GOOD.keys()
    assert all(torch.equal(weights.tensors[name], tensor) for name, tensor in GOOD.items())
    assert re.search(tells("x.pt", weights.place, "averaged"), note)


WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": dict,
    "DataParallel": lambda s: _under("module.", s),
    "compiled": lambda s: _under("_orig_mod.", s),
    "compiled part": lambda s: {n.replace("body.", "body._orig_mod."): t for n, t in s.items()},
    "fsdp": lambda s: _under("_fsdp_wrapped_module.", s),
    "lightning": lambda s: {"state_dict": _under("model.", s), "hyper_parameters": {"lr": 1e-4}},
    "net": lambda s: {"state_dict": _under("net.", s)},
    "denoise_fn": lambda s: {"betas": torch.ones(3), **_under("denoise_fn.", s)},
    "DDP of a compiled one": lambda s: {"model": _under("module._orig_mod.", s)},
    "deep": lambda s: {"a": {"b": {"c": s}}},
    "the same twice": lambda s: {"model": s, "best": s},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_what_is_around_the_names_is_removed(tmp_path, wrapper):
    torch.save(WRAPPED[wrapper](GOOD), tmp_path / "x.pt")
    found = choose_weights(tmp_path / "x.pt", torch.load(tmp_path / "x.pt"), MARK)
    assert found is not None
    weights, notes = found
    assert notes == ()
    assert weights.tensors.keys() == GOOD.keys()
    assert weights.beside.keys() == ({"betas"} if wrapper == "denoise_fn" else set())


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ({"model": RAW, "ema": {"shadow_params": LISTED[:-1]}}, ["ema.shadow_params", 3]),
        ({"model": RAW, "ema": {"shadow_params": LISTED[::-1]}}, ["ema.shadow_params", 4]),
        ({"model": RAW, "ema": {f"w{i}": t for i, t in enumerate(LISTED)}}, ["'ema'", 4]),
        ({"model": RAW, "ema_1": GOOD, "ema_2": OTHER}, ["ema_1", "ema_2"]),
        ({"a": RAW, "b": GOOD}, ["'a'", "'b'"]),
    ],
    ids=["fewer", "other order", "other names", "several", "none averaged"],
)
def test_weights_that_cannot_be_chosen_are_refused_by_name(tmp_path, content, values):
    with pytest.raises(ModelError, match=tells("x.pt", *values)):
        choose_weights(tmp_path / "x.pt", content, MARK)


def test_a_list_without_names_is_refused_by_name(tmp_path):
    content = {"ema": EMA_LIST}
    assert choose_weights(tmp_path / "x.pt", content, MARK) is None
    with pytest.raises(ModelError, match=tells("x.pt", "ema.shadow_params", 4)):
        check_readable(tmp_path / "x.pt", content)


def test_numbers_about_an_average_are_no_weights(tmp_path):
    content = {"model": RAW, "ema_decay": torch.tensor(0.9), "ema": {"step": torch.tensor(3)}}
    found = choose_weights(tmp_path / "x.pt", content, MARK)
    assert found is not None
    assert (found[0].place, found[0].averaged, found[1]) == ("model", False, ())


def test_averaged_weights_in_a_file_beside_it_are_named(tmp_path):
    for name in ("ema_0.9999_000500.pt", "ema_0.9999_001000.pt", "model000500.pt"):
        torch.save(RAW, tmp_path / name)
    found = choose_weights(tmp_path / "model000500.pt", RAW, MARK)
    assert found is not None
    assert re.search(tells("model000500.pt", "ema_0.9999_000500.pt"), found[1][0])
    assert choose_weights(tmp_path / "ema_0.9999_000500.pt", RAW, MARK) == (found[0], ())
    torch.save(RAW, tmp_path / "last-EMA.ckpt")
    found = choose_weights(tmp_path / "last.ckpt", RAW, MARK)
    assert found is not None
    assert re.search(tells("last.ckpt", "last-EMA.ckpt"), found[1][0])


def test_content_that_contains_itself_ends(tmp_path):
    content: dict[str, Any] = {"model": RAW}
    content["self"] = [content] * 1000
    found = choose_weights(tmp_path / "x.pt", content, MARK)
    assert found is not None
    assert found[0].place == "model"
