"""What gets installed: the wheel in a fresh environment, the direction of imports, and how light the import is."""

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

import metaduel

ROOT = Path(__file__).parents[1]
ROOMS = ("envs", "agents", "meta", "benchmarks")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
_skip = shutil.ignore_patterns("__pycache__", "*.egg-info")


def run(*command, cwd):
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300)


def python(code, cwd, executable=sys.executable):
    done = run(executable, "-c", code, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory):
    """The interpreter of a fresh environment with the wheel, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("metaduel", *ROOMS):
        shutil.copytree(ROOT / name, source / name, ignore=_skip)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    built = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source, cwd=folder)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("metaduel-*.whl")

    venv.create(folder / "venv", with_pip=False)
    fresh = folder / "venv" / "bin" / "python"
    installed = run(*pip, "--python", fresh, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    assert installed.returncode == 0, installed.stderr
    # A line in a .pth file adds this environment's packages, but not what its own .pth files add: not the checkout.
    here = Path(sysconfig.get_paths()["purelib"])
    there = Path(python("import sysconfig; print(sysconfig.get_paths()['purelib'])", folder, fresh))
    (there / "dependencies.pth").write_text(f"{here}\n")
    assert Path(python("import metaduel; print(metaduel.__file__)", folder, fresh)).is_relative_to(there)
    return fresh


def test_wheel_makes_every_registered_id(wheel_python, tmp_path):
    code = """
import sys, gymnasium, metaduel
from metaduel.envs.core.registry import specs
ids = {name for name in gymnasium.registry if name.startswith("metaduel/")}
assert ids == {spec.id for spec in specs().values()} and "metaduel/Navigation-v0" in ids, ids
for name in sorted(ids):
    env = gymnasium.make(name)
    env.reset(seed=0)
    env.step(env.action_space.sample())
print(len(ids))
"""
    assert int(python(code, tmp_path, wheel_python)) >= 1


def test_wheel_holds_task_lists_and_types(wheel_python, tmp_path):
    code = """
from importlib.resources import files
from metaduel.envs.core.registry import specs
from metaduel.envs.core.tasks import frozen_tasks
for spec in specs().values():
    for split in ("validation", "held_out", "extrapolation"):
        assert len(frozen_tasks(spec, split)) == 100, (spec.name, split)
for room in ("metaduel", "metaduel.envs"):
    assert (files(room) / "py.typed").is_file(), room
"""
    python(code, tmp_path, wheel_python)


def test_wheel_knows_its_version(wheel_python, tmp_path):
    assert python("import metaduel; print(metaduel.__version__)", tmp_path, wheel_python) == VERSION


def test_wheel_has_the_command_line(wheel_python, tmp_path):
    for command in ((wheel_python.parent / "metaduel",), (wheel_python, "-m", "metaduel.cli")):
        done = run(*command, "list", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Navigation" in done.stdout


def test_wheel_has_no_bare_rooms(wheel_python, tmp_path):
    code = "import importlib.util as u; print([r for r in ('envs', 'agents', 'meta', 'benchmarks') if u.find_spec(r)])"
    assert python(code, tmp_path, wheel_python) == "[]"


@pytest.fixture
def clone(tmp_path):
    """A clone's folders."""
    for name in ("metaduel", *ROOMS):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=_skip)
    return tmp_path


def test_a_clones_root_runs_the_clone_where_the_package_is_installed(wheel_python, clone):
    code = """
import metaduel, metaduel.agents, metaduel.benchmarks.core.table, metaduel.cli
from metaduel.envs.core.tasks import frozen_tasks
assert len(metaduel.games()) >= 9 and len(frozen_tasks(metaduel.find("Pursuit"), "held_out")) == 100
print(metaduel.__file__, metaduel.envs.__file__, metaduel.benchmarks.core.table.__file__, metaduel.cli.__file__, sep="\\n")
"""
    files = [Path(line) for line in python(code, clone, wheel_python).splitlines()]
    assert [file.relative_to(clone).parts[0] for file in files] == ["metaduel", "envs", "benchmarks", "metaduel"]


def test_a_part_of_a_clone_says_that_it_hides_the_package(wheel_python, clone):
    for room in ROOMS:
        shutil.rmtree(clone / room)
    done = run(wheel_python, "-c", "import metaduel", cwd=clone)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"ImportError: {clone / 'metaduel'} is a part of metaduel's source and hides the installed package"
    )
    assert "pip install -e ." in last


def test_import_registers_twice_without_a_warning_and_without_torch(tmp_path):
    code = """
import importlib, sys, warnings
warnings.simplefilter("error")
import metaduel
importlib.reload(metaduel)
print("torch" in sys.modules)
"""
    assert python(code, tmp_path) == "False"


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert metaduel.__version__ == "0+unknown"
    assert "__version__" in dir(metaduel)


def test_the_changelog_and_the_citation_are_of_this_version():
    headings = [line.split()[1] for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0] in (VERSION, "Unreleased")
    assert VERSION in headings
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION


@pytest.fixture
def tree(tmp_path):
    """The package as installed, in a folder of its own."""
    package = tmp_path / "metaduel"
    shutil.copytree(ROOT / "metaduel", package, ignore=_skip)
    for room in ROOMS:
        shutil.copytree(ROOT / room, package / room, ignore=_skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(tree):
    return run(Path(sys.executable).parent / "lint-imports", "--no-cache", cwd=tree)


def test_imports_run_one_way(tree):
    done = lint_imports(tree)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_in_the_wrong_direction_is_noticed(tree):
    with (tree / "metaduel" / "envs" / "core" / "errors.py").open("a") as file:
        file.write("\nimport metaduel.agents\n")
    done = lint_imports(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "metaduel.envs.core.errors -> metaduel.agents" in done.stdout


@pytest.mark.parametrize(
    ("importer", "imported", "contract"),
    [
        ("envs.core.errors", "envs.players.play", "envs: core <- players"),
        ("envs.players.names", "envs.render.film", "envs: core <- players"),
        ("envs.core.trees", "envs.sumo.game", "envs: nothing imports a family"),
        ("envs.sumo.game", "envs.pursuit.game", "envs: nothing imports a family"),
        ("agents.policies.base", "agents.rollout", "agents: "),
        ("meta.problems.problem", "meta.learners.maml", "meta: "),
        ("benchmarks.core.table", "benchmarks.tools.panel", "benchmarks: "),
    ],
)
def test_a_wing_that_imports_what_stands_above_it_is_noticed(tree, importer, imported, contract):
    with (tree / "metaduel" / importer.replace(".", "/")).with_suffix(".py").open("a") as file:
        file.write(f"\n\ndef planted():\n    import metaduel.{imported}\n")
    done = lint_imports(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"metaduel.{importer} -> metaduel.{imported}" in done.stdout
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    assert any(line.startswith(contract) for line in broken), broken


def test_a_circle_is_noticed_even_if_it_is_there_for_the_types_alone(tree):
    with (tree / "metaduel" / "envs" / "core" / "errors.py").open("a") as file:
        file.write("\n\nif TYPE_CHECKING:\n    from metaduel.envs.core.spec import GameSpec\n")
    done = lint_imports(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no circles, in any room or wing BROKEN" in done.stdout
    assert "No cycles are allowed in metaduel.envs.core." in done.stdout


@pytest.mark.parametrize("room", ["agents", "meta", "benchmarks"])
def test_a_new_wing_must_say_where_it_stands(tree, room):
    (tree / "metaduel" / room / "planted.py").write_text('"""Planted."""\n')
    done = lint_imports(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"metaduel.{room}.planted" in done.stdout


def test_the_command_line_is_above_everything(tree):
    with (tree / "metaduel" / "benchmarks" / "tools" / "film.py").open("a") as file:
        file.write("\nimport metaduel.cli.games\n")
    done = lint_imports(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "metaduel.benchmarks.tools.film -> metaduel.cli.games" in done.stdout


def test_a_bare_import_of_a_room_is_noticed(tree):
    (tree / "planted.py").write_text('"""Planted."""\n\nfrom envs import spec\n\nprint(spec)\n')
    done = run(Path(sys.executable).parent / "ruff", "check", "--no-cache", "planted.py", cwd=tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "TID251" in done.stdout
