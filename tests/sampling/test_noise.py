"""Noise belongs to (seed, sample, row) and to nothing else."""

import pytest
import torch

from fastdpm import InvalidArgumentError, SampleNoise
from tests.messages import tells


def test_a_sample_keeps_its_noise_in_any_batch():
    x = torch.zeros(3, 2, 5)
    batch = SampleNoise(7, [4, 0, 9])
    alone = SampleNoise(7, [9])
    torch.testing.assert_close(batch.start((2, 5))[2:], alone.start((2, 5)), rtol=0, atol=0)
    torch.testing.assert_close(batch(3, x)[2:], alone(3, x[2:]), rtol=0, atol=0)


def test_rows_can_be_drawn_in_any_order():
    x = torch.zeros(1, 8)
    noise = SampleNoise(0, [0])
    first = [noise(row, x) for row in (0, 1, 2)]
    second = [noise(row, x) for row in (2, 1, 0)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_seeds_samples_and_rows_are_independent():
    x = torch.zeros(1, 4000, dtype=torch.float64)
    draws = [
        SampleNoise(seed, [sample])(row, x)[0]
        for seed in (0, 1)
        for sample in (0, 1)
        for row in (0, 1)
    ]
    draws.append(SampleNoise(0, [0]).start((4000,), dtype=torch.float64)[0])
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws), dtype=torch.float64)
    assert float(correlation.abs().max()) < 5 / 4000**0.5


def test_noise_is_standard_normal():
    values = SampleNoise(3, range(100)).start((1000,), dtype=torch.float64).flatten()
    n = values.numel()
    assert abs(float(values.mean())) < 5 / n**0.5
    assert abs(float(values.var()) - 1) < 5 * (2 / n) ** 0.5
    assert abs(float((values**4).mean()) - 3) < 5 * (96 / n) ** 0.5


def test_large_seeds_and_indices_stay_apart():
    def drawn(seed: int, sample: int) -> torch.Tensor:
        return SampleNoise(seed, [sample]).start((8,))

    assert not torch.equal(drawn(2**63, 0), drawn(2**63 + 1, 0))
    assert not torch.equal(drawn(0, 2**64 - 2), drawn(0, 2**64 - 1))


def test_both_types_draw_the_same_numbers():
    noise = SampleNoise(1, [5])
    double = noise.start((100,), dtype=torch.float64)
    torch.testing.assert_close(noise.start((100,)), double.float(), rtol=0, atol=0)


def test_impossible_seeds_and_batches_are_refused():
    with pytest.raises(InvalidArgumentError, match=tells("seed", -1)):
        SampleNoise(-1, [0])
    with pytest.raises(InvalidArgumentError, match=tells("samples", 2**64)):
        SampleNoise(0, [2**64])
    with pytest.raises(InvalidArgumentError, match=tells(2)):
        SampleNoise(0, [0])(0, torch.zeros(2, 3))
