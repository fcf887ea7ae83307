"""Dataclasses from JSON and TOML take what fits their types, and name whatever does not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from fastdpm import InvalidArgumentError
from fastdpm.core.structure import build, changed, plain
from tests.messages import tells


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...]
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise InvalidArgumentError(f"rate must be above 0, got {self.rate}")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    other: Inner | None = None
    count: int = 0
    flag: bool = False
    scales: tuple[float, ...] | None = None
    free: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Licensed:
    license: str


GOOD: dict[str, Any] = {"name": "x", "inner": {"sizes": [1, 2]}}


def test_what_fits_becomes_what_the_dataclass_says():
    free = {"a": [1, {"b": None}], "c": (2,)}
    values = {"other": {"sizes": (3,), "rate": 2}, "scales": [1, 0.5], "free": free, "flag": True}
    made = build(Outer, GOOD | values, "x")
    assert made == Outer(
        "x", Inner((1, 2)), Inner((3,), 2.0), flag=True, scales=(1.0, 0.5), free=free
    )
    assert made.other is not None
    assert isinstance(made.other.rate, float)
    assert made.scales is not None
    assert [type(scale) for scale in made.scales] == [float, float]
    assert build(Outer, GOOD | {"other": None, "scales": None}, "x") == build(Outer, GOOD, "x")


def test_plain_values_are_read_back():
    made = Outer("x", Inner((1, 2)), scales=(0.5,), free={"a": 1})
    values = plain(made)
    assert values["inner"] == {"sizes": [1, 2], "rate": 1.0}
    assert "other" not in values
    assert build(Outer, values, "x") == made


@pytest.mark.parametrize(
    ("change", "place", "parts"),
    [
        ({"count": "3"}, "count", ["int", "'3'"]),
        ({"count": 3.0}, "count", ["int", "3.0"]),
        ({"count": True}, "count", ["int", "True"]),
        ({"count": None}, "count", ["int", "None"]),
        ({"flag": 1}, "flag", ["bool", "1"]),
        ({"flag": "true"}, "flag", ["bool", "'true'"]),
        ({"name": 3}, "name", ["str", "3"]),
        ({"scales": [1.0, "2"]}, "scales", ["float", "'2'"]),
        ({"scales": [True]}, "scales", ["float", "True"]),
        ({"scales": 2.0}, "scales", ["list", "2.0"]),
        ({"inner": {"sizes": "12"}}, "inner.sizes", ["list", "'12'"]),
        ({"inner": {"sizes": {"1": 2}}}, "inner.sizes", ["list", "{'1': 2}"]),
        ({"inner": {"sizes": [1.0]}}, "inner.sizes", ["int", "1.0"]),
        ({"inner": [["sizes", [1]]]}, "inner", ["dict", "[['sizes', [1]]]"]),
        ({"inner": None}, "inner", ["dict", "None"]),
        ({"other": {"sizes": [1], "rate": "2"}}, "other.rate", ["float", "'2'"]),
        ({"other": {}}, "other.sizes", []),
        ({"other": {"sizes": [1], "rat": 2}}, "other", ["rat", "sizes, rate"]),
        ({"other": {"sizes": [1], "rate": -1}}, "other", ["rate", "-1.0"]),
        ({"free": [["a", 1]]}, "free", ["dict", "[['a', 1]]"]),
    ],
)
def test_an_error_names_the_place_and_the_expected_value(change, place, parts):
    with pytest.raises(InvalidArgumentError) as caught:
        build(Outer, GOOD | change, "x")
    said = str(caught.value)
    assert re.match(rf"x: {re.escape(place)}[ :\[]", said), said
    assert all(part in said for part in parts), said
    assert "\n" not in said


@pytest.mark.parametrize("data", [None, [], "name", 3])
def test_what_is_no_table_is_refused(data):
    with pytest.raises(InvalidArgumentError, match=tells("x:", "dict", repr(data))):
        build(Outer, data, "x")


def test_all_errors_are_reported_at_once():
    with pytest.raises(InvalidArgumentError) as caught:
        build(Outer, {"inner": {"rate": "fast"}, "colour": 1}, "x")
    for part in ("name ", "inner.sizes ", "inner.rate ", "'fast'", "colour"):
        assert part in str(caught.value)


def test_a_key_under_its_old_and_its_new_name_is_refused():
    with pytest.raises(InvalidArgumentError, match=tells("x:", "licence", "license")):
        build(Licensed, {"license": "MIT", "licence": "MIT"}, "x")
    assert build(Licensed, {"licence": "MIT"}, "x") == Licensed("MIT")


def test_values_that_differ_are_named_by_their_place():
    before = {"a": 1, "b": {"x": 1, "y": [2]}, "c": {"k": 1}}
    now = {"a": 1, "b": {"x": 3, "z": 4}, "c": {"k": 2}, "d": None}
    found = list(changed(before, now, whole=["c"]))
    differ = [("b.x", 1, 3), ("b.y", [2], None), ("b.z", None, 4), ("c", {"k": 1}, {"k": 2})]
    assert found == differ
