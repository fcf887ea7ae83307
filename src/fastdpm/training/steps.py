"""The distribution of the steps, and so of the noise levels, that a network is trained at."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdpm.core.schedule import VarianceSchedule

_POINTS_PER_STEP = 20


class TrainingSteps:
    """Draws zero-based steps in [0, T - 1] with their noise levels.

    A batch is stratified: the same expected loss with less variance.

    Args:
        schedule: The schedule of the model.
        device: Where steps are drawn.
        real: Draw real-valued steps. If False, steps are whole, and uniform.
        uniform_share: Fraction of a batch that is uniform over steps, in [0, 1]. For the others,
            log sigma is normal, where sigma = sqrt(1 - r^2) / r for a level r, clipped to the
            range of the schedule.
        log_sigma: Mean and standard deviation of log sigma.

    Source of the normal distribution: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    def __init__(
        self,
        schedule: VarianceSchedule,
        device: torch.device,
        *,
        real: bool = True,
        uniform_share: float = 1.0,
        log_sigma: tuple[float, float] = (-1.0, 1.3),
    ) -> None:
        self.real, self.uniform_share, self.log_sigma = real, uniform_share, log_sigma
        self.last = schedule.num_train_steps - 1
        points = _POINTS_PER_STEP * self.last + 1 if real else self.last + 1
        t = torch.linspace(0, self.last, points, dtype=torch.float64)
        levels = torch.as_tensor(schedule.R(t.numpy() + 1))
        log_ratio = 0.5 * ((1 - levels**2) / levels**2).log()
        self._levels = levels.float().to(device)
        self._log_sigma = log_ratio.float().to(device)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Steps and their levels, both of shape (count,), float32."""
        device = self._levels.device
        offset = torch.rand(1, generator=generator, device=device)
        share = (offset + torch.arange(count, device=device) / count) % 1
        if not self.real:
            t = (share * len(self._levels)).long().clamp_max(self.last)
            return t.float(), self._levels[t]
        uniform = round(self.uniform_share * count)
        position = share * (len(self._levels) - 1)
        if uniform < count:
            normal = (torch.arange(count - uniform, device=device) + offset) / (count - uniform)
            position[uniform:] = self._of_log_sigma(normal)
        if 0 < uniform < count:
            position[:uniform] = (torch.arange(uniform, device=device) + offset) / uniform
            position[:uniform] *= len(self._levels) - 1
        low = position.long().clamp_max(len(self._levels) - 2)
        level = torch.lerp(self._levels[low], self._levels[low + 1], position - low)
        return position / _POINTS_PER_STEP, level

    def _of_log_sigma(self, share: Tensor) -> Tensor:
        """Positions in the table at quantiles of log sigma, shape (n,)."""
        mean, deviation = self.log_sigma
        wanted = mean + deviation * torch.special.ndtri(share.clamp(1e-6, 1 - 1e-6))
        table = self._log_sigma
        above = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        position: Tensor = above - 1 + ((wanted - low) / (high - low)).clamp(0, 1)
        return position
