"""What can be imported from where, and that names which moved still work, with a warning."""

import subprocess
import sys
from importlib import import_module

import pytest

import fastdpm

MOVED: dict[str, str] = vars(fastdpm)["_MOVED"]


@pytest.mark.parametrize("name", sorted(MOVED))
def test_a_name_that_moved_still_works_and_says_where_it_is(name):
    package, _, new = MOVED[name].partition(".")
    with pytest.warns(DeprecationWarning, match=rf"fastdpm\.{package}\.{new or name}\b"):
        found = getattr(fastdpm, name)
    assert found is getattr(import_module(f"fastdpm.{package}"), new or name)


@pytest.mark.parametrize(
    "package", ["core", "data", "sampling", "models", "inverse", "evaluation"]
)
def test_a_package_offers_every_name_that_it_lists(package):
    room = import_module(f"fastdpm.{package}")
    assert room.__all__
    for name in room.__all__:
        assert callable(getattr(room, name)), name


def test_a_verb_is_the_same_function_in_its_package_and_at_the_top_level():
    packages = {
        "evaluation": ["compare", "evaluate", "reconstruct"],
        "inverse": ["encode", "decode", "edit", "diffuse", "interpolate"],
        "sampling": ["run"],
        "models": ["convert"],
    }
    for package, verbs in packages.items():
        for verb in verbs:
            found = getattr(import_module(f"fastdpm.{package}"), verb)
            assert found is getattr(fastdpm, verb)
            assert callable(found)


def test_the_top_level_lists_what_it_offers():
    for name in dir(fastdpm):
        assert getattr(fastdpm, name) is not None
    assert not set(vars(fastdpm)["__all__"]) & set(MOVED)
    with pytest.raises(AttributeError, match="nothing"):
        import_module("fastdpm").nothing  # noqa: B018


def test_a_star_import_needs_no_extra():
    code = (
        "import sys; sys.modules['diffusers'] = None\nfrom fastdpm import *\nprint(compare, run)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
