"""A run is gone on with by its identity, which holds what decides the weights and no more."""

from dataclasses import replace

import torch

from fastdpm.training.classification import Classification
from fastdpm.training.config import TrainConfig, TrainOptions
from fastdpm.training.data import TrainingData
from fastdpm.training.denoising import Denoising
from tests.conftest import IMAGE
from tests.training.test_classification import classifier_config

OPTIONS = TrainOptions(steps=60, batch_size=16)
PIXELS = torch.full((8, 1, 8, 8), 255, dtype=torch.uint8)


def test_the_number_of_grey_levels_is_no_part_of_it():
    denoiser = TrainConfig(
        name=IMAGE.name,
        network=IMAGE.network,
        schedule=IMAGE.schedule,
        data=IMAGE.data,
        recipe=IMAGE.recipe,
        training=OPTIONS,
    )
    classifier = classifier_config()
    labels = torch.zeros(8, dtype=torch.int64)
    found = {
        (
            Denoising(
                replace(denoiser, data=replace(denoiser.data, grey_levels=levels)),
                TrainingData(denoiser.data, PIXELS),
            ).identity,
            Classification(
                replace(classifier, data=replace(classifier.data, grey_levels=levels)),
                TrainingData(classifier.data, PIXELS, labels=labels),
            ).identity,
        )
        for levels in (None, 17, 25)
    }
    assert len(found) == 1
    longer = replace(denoiser, training=replace(OPTIONS, steps=61))
    assert Denoising(longer, TrainingData(denoiser.data, PIXELS)).identity not in found.pop()
