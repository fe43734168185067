"""Public names do not change and are documented; an import of a moved module names the new place.

A change on purpose: ``python tests/test_public.py > tests/public.txt``.
"""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import metaduel
from metaduel.moved import MODULES

ROOT = Path(__file__).parents[1]
ROOMS = ("metaduel", "metaduel.envs", "metaduel.agents", "metaduel.meta", "metaduel.benchmarks")
PACKAGES = {  # a module once, a package now: a name that it held
    "metaduel.envs.core": "Game",
    "metaduel.envs.render": "Canvas",
    "metaduel.agents.policies": "MLPPolicy",
}


def surface():
    """One line for each public name: its kind, and its arguments with their defaults."""
    lines = []
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if inspect.isfunction(value) or (inspect.isclass(value) and "__init__" in vars(value)):
                parameters = inspect.signature(value).parameters.values()
                shown = ", ".join(re.sub(r"<.*", "...", str(p.replace(annotation=p.empty))) for p in parameters)
                lines.append(f"{room}.{name}({shown})")
            else:
                lines.append(f"{room}.{name}")
    return lines


def test_the_public_surface_is_as_written_down():
    assert surface() == (ROOT / "tests" / "public.txt").read_text().splitlines()


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_documented(room):
    module = importlib.import_module(room)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{room}.{name} has no docstring"
            assert value.__module__.startswith("metaduel"), f"{room}.{name} is of {value.__module__}"


def test_rooms_import_no_torch_until_it_is_needed():
    code = f"import sys, {', '.join(ROOMS)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, check=False).returncode == 0


@pytest.mark.parametrize("old", MODULES)
def test_a_module_that_has_gone_says_where_its_things_are(old):
    with pytest.raises(ImportError, match=f"{re.escape(old)} has moved: metaduel"):
        importlib.import_module(old)
    package, _, name = old.rpartition(".")
    if not hasattr(importlib.import_module(package), name):  # metaduel.benchmarks.evaluate is a function now
        with pytest.raises(ImportError, match=f"{re.escape(old)} has moved: metaduel"):
            exec(f"from {package} import {name}")
    for place in re.findall(r"metaduel\.[\w.]+\w", MODULES[old]):
        module, _, name = place.rpartition(".")
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.import_module(place)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_of_a_module_that_became_a_package_says_where_it_is(package):
    with pytest.raises(ImportError, match=rf"{package}\.{PACKAGES[package]} has moved: metaduel"):
        getattr(importlib.import_module(package), PACKAGES[package])
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        importlib.import_module(package).Nothing  # noqa: B018


def test_a_name_that_never_was_is_an_ordinary_error():
    with pytest.raises(ModuleNotFoundError, match=r"No module named .metaduel\.nothing."):
        importlib.import_module("metaduel.nothing")
    with pytest.raises(AttributeError, match="module 'metaduel' has no attribute 'nothing'"):
        metaduel.nothing  # noqa: B018


def test_the_migration_page_has_every_module():
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+) \|$", (ROOT / "docs" / "migration.md").read_text(), re.MULTILINE))
    assert rows == MODULES


if __name__ == "__main__":
    print("\n".join(surface()))
