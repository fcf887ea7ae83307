"""Clipped states are those of LMNT's DiffWave, and only where sampling goes towards data."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdpm import InvalidArgumentError, Recipe, SampleNoise, load_model, run
from fastdpm.core.inverse import find_encoding
from fastdpm.evaluation.methods import open_drawer
from fastdpm.inverse.editing import edit
from fastdpm.inverse.encoding import decode, encode
from fastdpm.inverse.likelihood import bits_per_dimension, grey_levels_of
from fastdpm.models.presets import read_preset
from tests.messages import tells


def _network(x: Tensor, t: Tensor) -> Tensor:
    return 1.5 * torch.tanh(x * (1 + t.reshape(-1, 1, 1) / 50))


def test_the_loop_is_that_of_lmnt():
    """Their sampling loop, in their variables: beta and alpha are those of the fast schedule."""
    config = read_preset("ljspeech-lmnt").model_config()
    assert config.recipe.clip == "state"
    from fastdpm import VarianceSchedule

    plan = config.recipe.compile(VarianceSchedule.from_config(config.schedule))
    noise = SampleNoise(3, range(4))
    start = 3 * noise.start((1, 64), dtype=torch.float64)
    beta = np.array(config.recipe.variances)
    alpha, alpha_bar = 1 - beta, np.cumprod(1 - beta)
    audio = start
    for row, n in enumerate(range(len(beta) - 1, -1, -1)):
        t = torch.full((4,), float(plan.t[row]), dtype=torch.float64)
        step = beta[n] / (1 - alpha_bar[n]) ** 0.5
        audio = (audio - step * _network(audio, t)) / alpha[n] ** 0.5
        if n > 0:
            sigma = ((1 - alpha_bar[n - 1]) / (1 - alpha_bar[n]) * beta[n]) ** 0.5
            audio = audio + sigma * noise(row, audio)
        audio = audio.clamp(-1, 1)
    found = run(plan, _network, start, noise=noise, clip_state=True)
    torch.testing.assert_close(found, audio, rtol=0, atol=1e-9)
    assert (run(plan, _network, start, noise=noise) - audio).abs().max() > 0.1


def test_samples_are_clipped_in_each_row(image_model):
    states = []
    kept = {"clip": "state", "seed": 1, "callback": lambda state: states.append(state.x.clone())}
    clipped = image_model.sample(2, kappa=1.0, **kept)
    assert len(states) == image_model.config.recipe.num_steps
    assert all(state.abs().max() <= 1 for state in states)
    assert not torch.equal(clipped, image_model.sample(2, kappa=1.0, seed=1))


def test_the_clip_is_part_of_what_identifies_samples(image_model):
    recipe = Recipe(num_steps=4, clip="state")
    assert "clip state" in recipe.describe()
    keys = {
        open_drawer(method, image_model.schedule, 4, clip).key
        for method in _methods()
        for clip in ("none", "x0", "dynamic", "state")
    }
    assert len(keys) == 4 * len(_methods())


def _methods():
    from fastdpm.evaluation.methods import choose_methods

    return choose_methods(["var-linear-k0"])


def test_an_edit_clips_states(image_model):
    x = torch.zeros(2, 1, 8, 8)
    clipped = edit(image_model, x, strength=1.0, clip="state", seed=0)
    assert not torch.equal(clipped, edit(image_model, x, strength=1.0, clip="none", seed=0))


def test_nothing_is_clipped_where_clipping_has_no_inverse(image_model):
    levels = Recipe(num_steps=4).choose_levels(image_model.schedule)
    method = find_encoding("first")
    assert method.plan is not None
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(InvalidArgumentError, match=tells("clip_state", "encodes")):
        run(method.plan(levels), image_model.noise_predictor(), x, clip_state=True)
    grey, _ = grey_levels_of(image_model.config.data, 256)
    with pytest.raises(InvalidArgumentError, match=tells("`clip`", "'state'", "'none'")):
        bits_per_dimension(image_model, x, levels, grey, clip="state", rounding=0.5)


def test_a_model_that_recommends_clipped_states_encodes_without(folders):
    from dataclasses import replace

    model = load_model(folders["image"])
    x = torch.rand(2, 1, 8, 8) * 2 - 1
    levels = Recipe(num_steps=4).choose_levels(model.schedule)
    model.config = replace(model.config, recipe=Recipe(num_steps=4, clip="state"))
    latents = encode(model, x, levels)
    torch.testing.assert_close(decode(model, latents), x, rtol=0, atol=1e-4)
