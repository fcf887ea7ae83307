"""Training configurations: those in the package build, and broken ones are refused."""

from dataclasses import replace

import pytest

from fastdpm import InvalidArgumentError
from fastdpm.models.config import FeaturesConfig
from fastdpm.models.features import check_classifies
from fastdpm.networks.build import check_fits
from fastdpm.training.config import CONFIGS, TrainConfig, read_train_config
from tests.conftest import VOCODER
from tests.messages import tells


def test_a_network_that_stretches_its_mel_wrongly_is_refused():
    wrong = replace(VOCODER, network={**VOCODER.network, "mel_upsample": [4, 8]})
    with pytest.raises(InvalidArgumentError, match=tells("32 samples", 16)):
        check_fits(wrong.network, wrong.data)
    check_fits(VOCODER.network, VOCODER.data)


def test_every_configuration_in_the_package_builds():
    names = sorted(path.stem for path in CONFIGS.glob("*.toml"))
    models = ["cifar10", "digits", "spoken-digits"]
    assert names == sorted([*models, *(f"{n}-features" for n in models), "spoken-digits-vocoder"])
    for name in names:
        config = read_train_config(name)
        assert config.name == name
        if isinstance(config, TrainConfig):
            network = check_fits(config.network, config.data)
            assert sum(p.numel() for p in network.parameters()) > 1e5
        else:
            network = check_classifies(FeaturesConfig.of(config))
            assert sum(p.numel() for p in network.parameters()) < 2e6


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("name = ", ["TOML", "Invalid value"]),
        ('name = "x"', ["network", "data", "schedule"]),
        ("[training]\nsteps = 0\nbatch_size = 1", ["steps", 1, 0]),
        ("[training]\nsteps = 1\nbatch_size = 1\nlr = 1", ["lr", "learning_rate"]),
        (
            "[training]\nsteps = 1\nbatch_size = 1\nprecision = 'fp8'",
            ["precision", "auto", "float32", "bf16", "fp8"],
        ),
        ("[training]\nsteps = 1\nbatch_size = 1\nema_decay = 1.0", ["ema_decay", "[0, 1)", "1.0"]),
        (
            "[training]\nsteps = 1\nbatch_size = 1\nlearning_rate = -1",
            ["learning_rate", 0, -1],
        ),
    ],
)
def test_a_broken_configuration_is_refused(tmp_path, text, values):
    path = tmp_path / "x.toml"
    if text.startswith("[training]"):
        text = (
            'name = "x"\n[network]\n[schedule]\ntype = "linear"\n[data]\nmodality = "image"\n'
            + ("shape = [1, 8, 8]\n" + text)
        )
    path.write_text(text)
    with pytest.raises(InvalidArgumentError, match=tells(path, *values)):
        read_train_config(path)


def test_an_unknown_configuration_names_the_known_ones():
    with pytest.raises(
        InvalidArgumentError, match=tells("mnist", "cifar10", "cifar10-features", "digits")
    ):
        read_train_config("mnist")
