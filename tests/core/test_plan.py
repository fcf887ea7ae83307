"""A plan checks itself, survives JSON and is known by its fingerprint."""

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdpm import InvalidArgumentError, Plan, VarianceSchedule, ddim_rev, levels_step, levels_var
from fastdpm.core import NoiseLevels, dpmpp_2m, standard
from tests.messages import tells

CHOICES: list[Callable[..., NoiseLevels]] = [levels_step, levels_var]
DDPM = VarianceSchedule.linear()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.floats(0, 1), st.sampled_from(CHOICES))
def test_a_plan_survives_json_to_the_last_bit(num_steps, kappa, choose):
    plan = ddim_rev(choose(DDPM, num_steps), kappa)
    again = Plan.from_json(plan.to_json())
    for name in ("level", "t", "a", "b", "c"):
        np.testing.assert_array_equal(getattr(again, name), getattr(plan, name))
    assert (again.label, again.notes, again.fingerprint) == (
        plan.label,
        plan.notes,
        plan.fingerprint,
    )


def test_the_fingerprint_ignores_the_last_bits_and_sees_the_twelfth_digit():
    plan = ddim_rev(levels_step(DDPM, 10))
    assert plan.fingerprint == _scaled_t(plan, 1 + 1e-15).fingerprint
    assert plan.fingerprint != _scaled_t(plan, 1 + 1e-11).fingerprint


def test_the_fingerprint_is_the_same_on_every_machine():
    assert ddim_rev(levels_step(DDPM, 10)).fingerprint == "57f7b541f25e0d79"


def _scaled_t(plan: Plan, factor: float) -> Plan:
    return Plan(plan.level, plan.t * factor, plan.a, plan.b, plan.c)


def test_a_row_that_misses_its_level_is_named():
    plan = ddim_rev(levels_step(DDPM, 20))
    a = plan.a.copy()
    a[13] *= 0.9
    with pytest.raises(InvalidArgumentError, match=tells("row 13 of 20", 0.6298, 0.6998)):
        Plan(plan.level, plan.t, a, plan.b, plan.c)


def test_a_row_without_its_history_is_named():
    plan = dpmpp_2m(levels_step(DDPM, 6))
    b = plan.b.copy()
    b[0, 1] = 0.1
    with pytest.raises(InvalidArgumentError, match=tells("row 0 of 6", "b[0, 1]")):
        Plan(plan.level, plan.t, plan.a, b, plan.c)


@pytest.mark.parametrize(
    ("name", "value", "values"),
    [
        ("c", np.full(5, -0.1), ["c", 0, -0.1]),
        ("c", np.zeros(4), ["c", "(5,)", "(4,)"]),
        ("b", np.full((5, 1), np.nan), ["b"]),
        ("b", np.zeros((5, 0)), ["b", "(5, 0)"]),
        ("level", np.array([0.1, 0.3, 0.2, 0.5, 0.7, 1.0]), ["level 2", 0.2, 0.3]),
    ],
)
def test_broken_tables_are_refused(name, value, values):
    plan = ddim_rev(levels_step(DDPM, 5))
    tables = {n: getattr(plan, n) for n in ("level", "t", "a", "b", "c")} | {name: value}
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        Plan(**tables)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (lambda d: d.pop("b"), ["b"]),
        (lambda d: d.update(format="other"), ["format", "fastdpm-plan"]),
        (lambda d: d.update(t=["x"]), ["plan"]),
        (lambda d: d.update(a=1.0), ["a", "(5, columns)", "()"]),
        (lambda d: d.update(b=None), ["b", "(5, columns)", "()"]),
        (lambda d: d.update(notes=5), ["notes", 5]),
        (lambda d: d.update(version=9), ["version", 1, 9]),
        (lambda d: d["t"].__setitem__(0, 900.0), ["fingerprint", "b9e586ca6d36447b"]),
    ],
)
def test_a_damaged_plan_file_is_refused(change, values):
    data = json.loads(ddim_rev(levels_step(DDPM, 5)).to_json())
    change(data)
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        Plan.from_json(json.dumps(data))
    with pytest.raises(InvalidArgumentError, match=tells("plan", "line 1", "column 2")):
        Plan.from_json("{")


def test_a_printed_plan_shows_every_row_and_note():
    text = str(ddim_rev(levels_var(DDPM, 10, "quadratic"), 0.5))
    lines = text.splitlines()
    assert "10 network evaluations," in lines[0]
    assert "1 network evaluation," in str(ddim_rev(levels_var(DDPM, 1)))
    assert lines[1].startswith("note: ")
    assert len(lines) == 3 + 10
    assert lines[2].split() == ["row", "t", "level", "->", "level", "a0", "b0", "c"]


def test_a_learned_variance_survives_json_and_counts_in_the_fingerprint():
    plan = standard(VarianceSchedule.linear(50), "learned")
    again = Plan.from_json(plan.to_json())
    assert again.log_variance is not None
    assert plan.log_variance is not None
    np.testing.assert_array_equal(again.log_variance, plan.log_variance)
    assert again.fingerprint == plan.fingerprint
    assert plan.fingerprint != standard(VarianceSchedule.linear(50), "small").fingerprint
    assert "c min" in str(plan)


def test_bounds_of_a_learned_variance_have_two_columns():
    plan = standard(VarianceSchedule.linear(50))
    with pytest.raises(InvalidArgumentError, match=tells("log_variance", "(50, 2)", "(50, 1)")):
        dataclasses.replace(plan, log_variance=np.zeros((50, 1)))
