"""A run is resumed by its identity: exactly the settings that determine the weights."""

from dataclasses import replace

from fastdpm.training.config import DiffusionOptions, TrainConfig
from tests.conftest import IMAGE
from tests.training.test_classification import classifier_config

OPTIONS = DiffusionOptions(steps=60, batch_size=16)


def test_the_number_of_grey_levels_is_no_part_of_it():
    diffusion = TrainConfig(
        name=IMAGE.name,
        network=IMAGE.network,
        schedule=IMAGE.schedule,
        data=IMAGE.data,
        recipe=IMAGE.recipe,
        training=OPTIONS,
    )
    classifier = classifier_config()
    found = {
        (
            replace(diffusion, data=replace(diffusion.data, grey_levels=levels)).identity,
            replace(classifier, data=replace(classifier.data, grey_levels=levels)).identity,
        )
        for levels in (None, 17, 25)
    }
    assert len(found) == 1
    longer = replace(diffusion, training=replace(OPTIONS, steps=61))
    assert longer.identity not in found.pop()
