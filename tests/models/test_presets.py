"""Presets describe the published networks, and a checkpoint turns one into a model."""

from pathlib import Path

import pytest

from fastdpm import InvalidArgumentError, VarianceSchedule
from fastdpm.evaluation.methods import choose_methods, open_drawer
from fastdpm.models.presets import CompareSettings, presets, read_preset
from fastdpm.networks.build import check_fits
from tests.messages import tells

PAPER = [
    "celeba64-ddim",
    "cifar10-ddpm",
    "ljspeech-diffwave",
    "lsun-bedroom",
    "sc09-diffwave",
]


def test_the_models_of_the_paper_have_their_tables():
    assert [name for name in presets() if read_preset(name).compare is not None] == PAPER


@pytest.mark.parametrize("name", presets())
def test_a_preset_takes_its_data_and_says_where_its_weights_are(name):
    preset = read_preset(name)
    config = preset.model_config()
    assert preset.name == config.name == name
    network = check_fits(config.network, config.data)
    assert all(weight.is_meta for weight in network.parameters())
    assert config.recipe.compile(VarianceSchedule.from_config(config.schedule)).num_rows > 1
    assert preset.source is not None
    assert preset.source.checkpoint_from.startswith("https://")
    assert config.attribution


@pytest.mark.parametrize("name", PAPER)
def test_a_table_of_the_paper_compiles(name):
    preset = read_preset(name)
    assert preset.compare is not None
    config = preset.model_config()
    schedule = VarianceSchedule.from_config(config.schedule)
    T = schedule.num_train_steps  # noqa: N806
    methods = choose_methods(preset.compare.methods)
    assert tuple(method.key for method in methods) == preset.compare.methods
    for method in methods:
        for num_steps in preset.compare.steps:
            rows = open_drawer(method, schedule, num_steps, "none").rows
            assert rows == {"var": num_steps, "standard": T}.get(method.key.split("-")[0], rows)
            assert 5 <= rows <= max(num_steps, T if method.key == "standard" else 0)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("cifar10-ddpm", "35.7"),  # Ho et al. 2020, appendix B
        ("lsun-bedroom", "114"),  # likewise
    ],
)
def test_networks_have_the_published_number_of_parameters(name, millions):
    preset = read_preset(name)
    count = sum(w.numel() for w in check_fits(preset.network, preset.data).parameters())
    digits = len(millions.partition(".")[2])
    assert f"{count / 1e6:.{digits}f}" == millions


# As https://github.com/pesser/pytorch_diffusion and the DiffWave authors' code name them.
@pytest.mark.parametrize(
    ("name", "published"),
    [
        (
            "cifar10-ddpm",
            {
                "temb.dense.1.weight": (512, 512),
                "down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
                "down.1.attn.1.proj_out.weight": (256, 256, 1, 1),
                "down.2.downsample.conv.weight": (256, 256, 3, 3),
                "mid.attn_1.norm.weight": (256,),
                "up.3.block.0.conv1.weight": (256, 512, 3, 3),
                "up.0.block.0.conv1.weight": (128, 384, 3, 3),
                "up.0.block.2.conv1.weight": (128, 256, 3, 3),
                "up.1.attn.2.q.weight": (256, 256, 1, 1),
                "up.1.upsample.conv.weight": (256, 256, 3, 3),
            },
        ),
        (
            "ljspeech-diffwave",
            {
                "init_conv.0.conv.weight_g": (128, 1, 1),
                "residual_layer.fc_t2.weight": (512, 512),
                "residual_layer.residual_blocks.29.upsample_conv2d.1.weight_v": (1, 1, 3, 32),
                "residual_layer.residual_blocks.0.mel_conv.conv.weight_v": (256, 80, 1),
                "residual_layer.residual_blocks.0.res_conv.weight_g": (128, 1, 1),
                "final_conv.2.conv.weight": (1, 128, 1),
            },
        ),
    ],
)
def test_networks_have_the_published_names_and_shapes(name, published):
    preset = read_preset(name)
    state = check_fits(preset.network, preset.data).state_dict()
    assert {key: tuple(state[key].shape) for key in published} == published


def test_published_figures_belong_to_the_table():
    found = 0
    for preset in map(read_preset, PAPER):
        assert preset.compare is not None
        figures = preset.published.figures if preset.published else {}
        for method, by_steps in figures.items():
            assert method == "best" or method in preset.compare.methods
            assert {int(steps) for steps in by_steps} <= set(preset.compare.steps)
            found += sum(value > 0 for value in by_steps.values())
    assert found == 4


def test_the_page_of_the_paper_names_every_file():
    page = (Path(__file__).parents[2] / "docs" / "published.md").read_text(encoding="utf-8")
    for preset in map(read_preset, PAPER):
        source = preset.source
        assert source is not None
        assert f"fastdpm compare {preset.name} " in page
        for part in (source.checkpoint, source.checkpoint_from, source.statistics_from):
            assert part in page


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(InvalidArgumentError, match=tells(*presets())):
        read_preset("imagenet")


def test_a_table_may_hold_any_method_of_a_sampler():
    assert CompareSettings((1,), ("var-linear-k0",), 2, "fid").steps == (1,)
    keys = ("dpmpp-2m-var-linear", "step-quadratic-k0.25", "standard-learned")
    assert CompareSettings((5,), keys, 10, "fid").methods == keys


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"metric": "mos"}, ["metric", "fid", "sound", "vocoder", "mos"]),
        ({"steps": ()}, [1, "[]"]),
        ({"steps": (0, 5)}, [1, "[0, 5]"]),
        ({"n": 1}, ["n", 2, 1]),
        ({"methods": ("var-cubic-k0",)}, ["var-cubic-k0", "var-linear-k0", "standard"]),
        ({"methods": ("var-linear-k2",)}, ["var-linear-k2", "var-linear-k0", "standard"]),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, values):
    settings = {"steps": (5,), "methods": ("standard",), "n": 10, "metric": "fid"} | changes
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        CompareSettings(**settings)
