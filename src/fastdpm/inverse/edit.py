"""Editing data: noise to a level and back (SDEdit), and painting under a mask.

Painting needs no loop of its own: a denoiser shows the network the known part as the data diffused
to each row's level, with noise of its own, and what a plan makes of the rest is kept. The known
part then pulls only through the network: painted parts follow it less than the exact conditional
distribution would, and more with more rows and with kappa = 1.
Source: Meng et al. 2022, arXiv:2108.01073, algorithm 1, for SDEdit; Lugmayr et al. 2022,
arXiv:2201.09865, section 4.1, for painting (without its resampling).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import ddim_rev
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.condition import ClassLabels
from fastdpm.inverse.batches import batches, check_data, own_condition
from fastdpm.inverse.diffuse import check_level, noised
from fastdpm.models.model import Model
from fastdpm.sampling.network import Network, NoisePredictor, predict_eps, split_variance
from fastdpm.sampling.noise import SampleNoise
from fastdpm.sampling.run import Noise, run
from fastdpm.sampling.state import Callback, after_rows


class KnownPart(NoisePredictor):
    """Show a network the known part of its input as clean data diffused to the input's level.

    Args:
        network: What predicts eps.
        x0: The clean data, shape (batch, ...).
        unknown: True where it is not known, of a shape that broadcasts to that of ``x0``.
        plan: Whose rows ask.
        noise: ``noise(row, x) -> z``; rows from ``plan.num_rows`` on are drawn, which the plan
            leaves free.
    """

    def __init__(
        self,
        network: Network | NoisePredictor,
        x0: Tensor,
        unknown: Tensor,
        plan: Plan,
        noise: Noise,
    ) -> None:
        self.network = network
        self.x0 = x0
        self.unknown = unknown
        self.noise = noise
        self.rows = {float(level): plan.num_rows + i for i, level in enumerate(plan.network_level)}

    def __call__(self, x: Tensor, t: Tensor, level: float) -> Tensor:
        """Predict eps; where the data is known, return the eps that it was noised with."""
        z = self.noise(self.rows[level], x)
        shown = torch.where(self.unknown, x, noised(self.x0, level, z))
        eps, learned = split_variance(predict_eps(self.network, shown, t, level), x)
        eps = torch.where(self.unknown, eps, z)
        return eps if learned is None else torch.cat([eps, learned], dim=1)


@dataclass(frozen=True)
class EditPlan:
    """How data is edited.

    Attributes:
        plan: Samples it back.
        unseen: Whether it starts from pure noise, so that nothing under a mask is seen.
    """

    plan: Plan
    unseen: bool


def plan_edit(
    model: Model,
    *,
    level: float | None = None,
    strength: float | None = None,
    masked: bool = False,
    levels: NoiseLevels | None = None,
    kappa: float | None = None,
) -> EditPlan:
    """The plan of an edit; arguments as in :func:`edit`.

    Raises:
        InvalidArgumentError: If the model is latent, or a choice is out of range.
    """
    if model.decoder is not None:
        raise InvalidArgumentError(
            f"model {model.config.name!r} is latent: edit data of a model of the data itself"
        )
    recipe = model.config.recipe
    whole = recipe.choose_levels(model.schedule) if levels is None else levels
    model.check_plan(whole)
    if strength is None and level is None:
        strength = 1.0 if masked else 0.5
    part = levels_from(whole, model.schedule, level=level, strength=strength)
    plan = ddim_rev(part, recipe.stochasticity if kappa is None else kappa)
    return EditPlan(plan, bool(part.level[0] <= whole.level[0]))


def edit(
    model: Model,
    x: Tensor,
    *,
    level: float | None = None,
    strength: float | None = None,
    mask: Tensor | None = None,
    levels: NoiseLevels | None = None,
    kappa: float | None = None,
    clip: str | None = None,
    seed: int = 0,
    class_labels: ClassLabels | None = None,
    condition: Tensor | None = None,
    batch_size: int | None = None,
    plan: EditPlan | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Noise data to a level and sample it back, everywhere or under a mask only.

    Args:
        model: Not a latent one.
        x: Data in [-1, 1], shape (n, *data shape).
        level: The level to go back to, in [R(T), 1); one that is none of ``levels`` becomes the
            first of those that are cleaner. Or
        strength: The share in (0, 1] of the rows of ``levels`` to run, rounded up; by default
            half of them, or all where there is a mask.
        mask: 1 or True where to paint, 0 elsewhere: shape (n, *data shape) or less, from the
            last axis on, so that (H, W) or (samples,) is one mask for all. Where all rows run,
            nothing of what lies under it is seen.
        levels: The levels to sample over, of the model's schedule; by default the recommended
            recipe's.
        kappa: Stochasticity in [0, 1]; by default the recommended recipe's.
        clip: "none", "x0" or "dynamic"; by default the recommended recipe's.
        seed: Sample i depends on the seed, i and its own data.
        class_labels: Classes of a model that has them, counted from 0: one for all samples, or m
            of them; sample i takes label i mod m.
        condition: What each sample is edited for, number i mod m; by default a vocoder's mel
            spectrogram of the data itself, else the model's own.
        batch_size: Samples at a time.
        plan: Of :func:`plan_edit`, in place of level, strength, levels and kappa.
        callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row.

    Returns:
        Shape of ``x``, float32 in [-1, 1], on the CPU; outside the mask the values of ``x``, to
        the last bit.

    Raises:
        InvalidArgumentError: If the data, the mask, the plan or a choice does not fit.
        SamplingError: If the network returns something unusable.
    """
    if plan is None:
        masked = mask is not None
        plan = plan_edit(
            model, level=level, strength=strength, masked=masked, levels=levels, kappa=kappa
        )
    elif (level, strength, levels, kappa) != (None, None, None, None):
        raise InvalidArgumentError("`plan` leaves no level to choose and no kappa: drop them")
    else:
        model.check_plan(plan.plan)
    check_data(model, x)
    unknown = None if mask is None else check_mask(mask, x)
    condition = own_condition(model, x, condition, class_labels)
    reverse, clip = plan.plan, model.config.recipe.clip if clip is None else clip
    results = []
    for indices, data, chosen in batches(model, x, condition, batch_size):
        noise = SampleNoise(seed, indices)
        z = noise.start(data.shape[1:], dtype=data.dtype, device=data.device)
        start = noised(data, float(reverse.level[0]), z)
        network = model.noise_predictor(chosen, clip=clip)
        if unknown is not None:
            here = unknown.to(data.device).expand(x.shape)[indices.start : indices.stop]
            network = KnownPart(network, data, here, reverse, noise)
            start = torch.where(here, z, start) if plan.unseen else start
        each = after_rows(callback, indices.start, len(x), reverse.num_rows)
        state = run(reverse, network, start, noise=noise, callback=each)
        results.append(model.finished(state).float().cpu())
    found = torch.cat(results)
    if unknown is None:
        return found
    return torch.where(unknown.to(found.device), found, x.float().cpu())


def levels_from(
    levels: NoiseLevels,
    schedule: VarianceSchedule,
    *,
    level: float | None = None,
    strength: float | None = None,
) -> NoiseLevels:
    """The last part of a chain of levels: from a level on, or a share of its rows.

    Args:
        levels: S + 1 levels in sampling order.
        schedule: Whose steps they are.
        level: In [R(T), 1); a level of its own becomes the first. Or
        strength: In (0, 1]; the last ceil(strength S) rows.

    Raises:
        InvalidArgumentError: Unless exactly one is given, in range.
    """
    if (level is None) == (strength is None):
        raise InvalidArgumentError("give either `level` or `strength`, not both and not neither")
    if strength is not None:
        if not 0 < strength <= 1:
            raise InvalidArgumentError(f"`strength` must lie in (0, 1], got {strength:g}")
        rows = math.ceil(strength * levels.num_steps - 1e-9)
        return levels[levels.num_steps - max(rows, 1) :]
    start = float(level or 0)
    step = check_level(schedule, start)
    if start >= levels.level[-1]:
        raise InvalidArgumentError(
            f"the level to go back to must be noisier than {levels.level[-1]:g}, where sampling"
            f" ends, got {start:g}"
        )
    near = np.flatnonzero(np.abs(levels.level[:-1] - start) <= 1e-9 * start)
    if near.size:
        return levels[int(near[0]) :]
    rest = int(np.flatnonzero(levels.level > start)[0])
    label = f"{levels.label}, from level {start:.6g}"
    cleaner = levels.level[rest:]
    t = np.append(step - 1, levels.t[rest:])
    return NoiseLevels(np.append(start, cleaner), t, label, levels.notes)


def check_mask(mask: Tensor, x: Tensor) -> Tensor:
    """A mask as booleans with as many axes as the data, which it broadcasts to.

    Args:
        mask: 1 or True where to paint.
        x: The data, shape (n, *data shape).

    Raises:
        InvalidArgumentError: If it is no tensor of real numbers, has another size or other values,
            or paints nothing or all.
    """
    if not isinstance(mask, Tensor) or mask.is_complex():
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise InvalidArgumentError(f"a mask must be a tensor of 0 and 1, got {found}")
    image = x.ndim == 4
    axes = 2 if image else 1
    fits = axes <= mask.ndim <= x.ndim and mask.shape[-axes:] == x.shape[-axes:]
    pairs = zip(reversed(mask.shape), reversed(x.shape), strict=False)
    if not fits or any(size not in (1, of) for size, of in pairs):
        kind = "pixels (height, width)" if image else "values"
        raise InvalidArgumentError(
            f"the mask has shape {tuple(mask.shape)}, the data {tuple(x.shape[-axes:])}"
            f" {kind}: give a mask of its size"
        )
    if mask.dtype != torch.bool:
        other = mask[(mask != 0) & (mask != 1)]
        if len(other):
            raise InvalidArgumentError(
                f"a mask holds 0 (keep) and 1 (paint) alone, got {float(other[0]):g}"
            )
    unknown = mask.bool()
    if bool(unknown.all()) or not bool(unknown.any()):
        said = "all of the data" if bool(unknown.any()) else "nothing"
        raise InvalidArgumentError(
            f"the mask paints {said}: mark what to paint by 1 (white) and what to keep by 0"
            " (black)"
        )
    return unknown.reshape((1,) * (x.ndim - mask.ndim) + tuple(mask.shape))


def read_mask(path: Path) -> Tensor:
    """Read a mask: a black and white image, or 0 and 1 in a .npy file.

    Returns:
        Booleans, shape (height, width); what a .npy file holds as it is.

    Raises:
        InvalidArgumentError: If there is no such file, or it is no mask.
    """
    if not path.is_file():
        raise InvalidArgumentError(f"no mask at {str(path)!r}: give an image or a .npy file")
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
            return torch.from_numpy(np.ascontiguousarray(values))
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGBA"))
    except (OSError, ValueError, TypeError, EOFError, SyntaxError) as error:
        raise InvalidArgumentError(f"{path} is no mask that can be read: {error}") from None
    other = pixels[(pixels != 0) & (pixels != 255)]
    if other.size or (pixels[..., 3] != 255).any() or np.ptp(pixels[..., :3], axis=-1).any():
        found = f"value {other[0]}" if other.size else "colours or transparent pixels"
        raise InvalidArgumentError(
            f"{path} holds {found}: a mask is white (255) where to paint and black (0) elsewhere,"
            " saved without loss"
        )
    return torch.from_numpy(pixels[..., 0] == 255)


def span_mask(span: tuple[float, float], samples: int, sample_rate: int) -> Tensor:
    """A mask that paints a span of a sound, shape (samples,).

    Args:
        span: Begin and end in seconds.
        samples: Length of the sound.
        sample_rate: In Hz.

    Raises:
        InvalidArgumentError: If the span is empty or leaves the sound.
    """
    places = [second * sample_rate for second in span]
    # What is far outside, infinite or no number cannot be rounded.
    inside = all(0 <= place < samples + 1 for place in places)
    first, last = (round(place) for place in places) if inside else (0, 0)
    if not first < last <= samples:
        raise InvalidArgumentError(
            f"a span must begin before it ends, within the {samples / sample_rate:g} seconds of"
            f" the sound, got {span[0]:g}:{span[1]:g}"
        )
    mask = torch.zeros(samples, dtype=torch.bool)
    mask[first:last] = True
    return mask
