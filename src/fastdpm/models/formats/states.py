"""Finding the weights in a checkpoint, averaged ones first.

A set of weights is a mapping that contains the marker tensor of a format, possibly behind a prefix
("module.", "model.", "ema_model.module.", ...). Names under the prefix are those of the network.
Averaged weights also come as a list of tensors in the order of the network's parameters
(``shadow_params`` of the score_sde code, torch-ema and diffusers), or under names without dots
(``LitEma`` of latent-diffusion).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fastdpm.core.errors import ModelError

State = Mapping[str, Tensor]
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_AVERAGED = re.compile(r"ema|averag|shadow|swa|polyak")
_CURRENT = re.compile(r"online|current|backup|collected")
_COUNTER = "n_averaged"  # of torch's AveragedModel
_CURRENT_STATE = "current_model_state"  # of Lightning, whose "state_dict" is then averaged
_MAX_DEPTH = 6


@dataclass(frozen=True)
class Weights:
    """A set of weights in a checkpoint.

    Attributes:
        place: Where it is: keys of the container and the prefix of the names, such as
            "ema.ema_model"; empty for names at the top of the file.
        tensors: The weights by the names of the network.
        averaged: Whether they are an average over training steps.
        beside: Other tensors of the same mapping, such as the buffers of a diffusion process.
        entry: Number of the mapping in a list of states, or None.
    """

    place: str
    tensors: State
    averaged: bool = False
    beside: State = field(default_factory=dict)
    entry: int | None = None


def choose_weights(path: Path, content: Any, mark: str) -> tuple[Weights, tuple[str, ...]] | None:
    """Choose the weights of a network: averaged ones if there are any, else the largest set.

    In a list of states, the last one is the averaged one, as in files of the DDIM code.

    Args:
        path: The file, for messages.
        content: What the file contains.
        mark: Name of a tensor that every set of weights of the format contains.

    Returns:
        The weights and notes for the user; None if no set contains ``mark``.

    Raises:
        ModelError: If several sets come into question, or averaged weights cannot be matched to
            the network.
    """
    places = _places(content)
    sets = [each for place in places for each in _sets(place, mark)]
    if not sets:
        return None
    largest = max(len(each.tensors) for each in sets)
    sets = [each for each in sets if 2 * len(each.tensors) > largest]
    current = [each for each in sets if not each.averaged]
    averaged = [each for each in sets if each.averaged]
    for place in places:
        if _is_averaged(place.keys) and place.listed:
            averaged += _from_list(path, place, current, largest)
    if not averaged and len(current) > 1:
        last = max(current, key=lambda each: -1 if each.entry is None else each.entry)
        averaged = [last] if all(each.entry is not None for each in current) else []
    if not averaged:
        _check_none_lost(path, places, largest)
        return _one_of(path, current), _beside(path)
    chosen = _one_of(path, averaged)
    unused = ", ".join(repr(each.place) for each in current if each is not chosen and each.place)
    rest = f", not {unused}" if unused else ""
    return chosen, (f"{path.name}: the averaged weights {chosen.place!r} are used{rest}",)


def check_readable(path: Path, content: Any) -> None:
    """Raise ModelError if the content has averaged weights without names, and nothing else."""
    _check_none_lost(path, _places(content), 0)


@dataclass(frozen=True)
class _Place:
    """A mapping or a list of tensors in the content of a file, and the keys that lead to it."""

    keys: tuple[str, ...]
    named: State = field(default_factory=dict)
    listed: Sequence[Tensor] = ()
    entry: int | None = None  # its number, if it is an entry of a list

    def __len__(self) -> int:
        return len(self.named) + len(self.listed)


def _places(content: Any) -> list[_Place]:
    """Every mapping and every list that holds tensors; one that occurs twice is listed once."""
    found: list[_Place] = []
    seen: set[int] = set()
    rest: list[tuple[tuple[str, ...], Any, int | None]] = [((), content, None)]
    while rest:
        keys, value, entry = rest.pop()
        if len(keys) > _MAX_DEPTH or id(value) in seen:
            continue
        if isinstance(value, Mapping | list | tuple):
            seen.add(id(value))
        if isinstance(value, Mapping):
            state = {str(name): each for name, each in value.items() if isinstance(each, Tensor)}
            found += [_Place(keys, named=state, entry=entry)] if state else []
            rest += [((*keys, _key(name, value)), child, None) for name, child in value.items()][
                ::-1
            ]
        elif isinstance(value, list | tuple):
            if value and all(isinstance(each, Tensor) for each in value):
                found.append(_Place(keys, listed=value, entry=entry))
            else:
                rest += [((*keys, str(i)), child, i) for i, child in enumerate(value)][::-1]
    return found


def _key(name: object, container: Mapping[Any, Any]) -> str:
    """A key of a container, marked where the container says that the weights are averaged."""
    averaged = name == "state_dict" and _CURRENT_STATE in container
    return f"averaged {name}" if averaged else str(name)


def _sets(place: _Place, mark: str) -> Iterator[Weights]:
    """The sets of weights in a mapping, one for each prefix of the marker tensor."""
    state = {unwrapped(name): tensor for name, tensor in place.named.items()}
    ends = [name.removesuffix(mark) for name in state if name.endswith(mark)]
    prefixes = [end for end in ends if not end or end.endswith(".")]
    counted = any(name.endswith(_COUNTER) for name in state)
    for prefix in prefixes:
        nested = [other for other in prefixes if other != prefix and other.startswith(prefix)]
        own = {
            name.removeprefix(prefix): tensor
            for name, tensor in state.items()
            if name.startswith(prefix) and not name.startswith(tuple(nested))
        }
        beside = {n: t for n, t in state.items() if not n.startswith(tuple(prefixes))}
        keys = (*place.keys, prefix.rstrip(".")) if prefix else place.keys
        averaged = _is_averaged(keys) or (counted and bool(prefix))
        yield Weights(".".join(keys), own, averaged, beside, place.entry)
        yield from _without_dots(state, own, mark, place.keys)


def _without_dots(state: State, own: State, mark: str, keys: tuple[str, ...]) -> Iterator[Weights]:
    """Averaged weights under the names of ``own`` without their dots, behind a prefix."""
    end = mark.replace(".", "")
    for name in state:
        head = name.removesuffix(end)
        if head == name or not _is_averaged((*keys, head)):
            continue
        tensors = {n: state[f"{head}{n.replace('.', '')}"] for n in own
                   if f"{head}{n.replace('.', '')}" in state}  # fmt: skip
        yield Weights(".".join((*keys, head)), tensors, averaged=True)


def _from_list(
    path: Path, place: _Place, current: list[Weights], largest: int
) -> Iterator[Weights]:
    """Averaged weights that are listed in the order of the weights beside them."""
    tensors = place.listed
    if 2 * len(tensors) <= largest:
        return
    name = ".".join(place.keys)
    for each in current:
        if [t.shape for t in each.tensors.values()] == [t.shape for t in tensors]:
            named = dict(zip(each.tensors, tensors, strict=True))
            yield Weights(name, named, averaged=True, beside=each.beside)
            return
    raise _unusable(path, name, len(tensors))


def _check_none_lost(path: Path, places: list[_Place], largest: int) -> None:
    """Raise ModelError if a place looks like averaged weights that were not recognized."""
    for place in places:
        if _is_averaged(place.keys) and 2 * len(place) > largest:
            raise _unusable(path, ".".join(place.keys), len(place))


def _unusable(path: Path, name: str, count: int) -> ModelError:
    return ModelError(
        f"{path} holds averaged weights, {name!r}, but its {count} tensors cannot be matched to"
        " the network: save them under the network's names, with"
        " torch.save(averaged_network.state_dict(), FILE)"
    )


def _one_of(path: Path, sets: list[Weights]) -> Weights:
    """The largest set; raises ModelError if there are several in different places."""
    largest = max(len(each.tensors) for each in sets)
    candidates = [each for each in sets if len(each.tensors) == largest]
    if len(candidates) > 1:
        names = ", ".join(repr(each.place) for each in candidates)
        raise ModelError(
            f"{path} holds several sets of weights, {names}: save one of them to a file of its own"
        )
    return candidates[0]


def _beside(path: Path) -> tuple[str, ...]:
    """A note if averaged weights are in another file, as guided-diffusion and NeMo save them."""
    number = re.fullmatch(r"model(\d+)", path.stem)
    others = sorted(path.parent.glob(f"ema_*_{number[1]}{path.suffix}")) if number else []
    others += [p for p in [path.with_name(f"{path.stem}-EMA{path.suffix}")] if p.is_file()]
    if not others:
        return ()
    return (f"{path.name} is not averaged: {others[-1].name} beside it holds averaged weights",)


def _is_averaged(keys: Sequence[str]) -> bool:
    """Whether the last of the keys that say so names averaged weights."""
    for word in reversed([word for key in keys for word in key.split(".")]):
        if _CURRENT.search(word.lower()):
            return False
        if _AVERAGED.search(word.lower()):
            return True
    return False


def unwrapped(name: str) -> str:
    """A name without the parts that torch.compile and FSDP insert."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name
