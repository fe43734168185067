"""Families from other packages: a package with a family, its errors, and runs on an unregistered family."""

import dataclasses
import importlib
import json
import os
import runpy
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from pettingzoo.env_registry.registration import aec_registry, parallel_registry

import metaduel
from metaduel.envs import check_game
from metaduel.envs.adapters.gymnasium import SeatEnv
from metaduel.envs.adapters.pettingzoo import parallel_env
from metaduel.envs.adapters.vector import SeatVectorEnv
from metaduel.envs.contract import ContractBroken
from metaduel.envs.core import registry, tasks
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import FROZEN_SPLITS, ROLES, Context
from metaduel.envs.core.validation import check_spec

NAVIGATION = registry.find("Navigation")
SHORT = {"iterations": 2, "tasks": 2, "episodes": 2, "validation_tasks": 2, "quiet": True}

# A whole family: {package} is its package's name.
CHASE = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "chase-game"
version = "0"
[project.entry-points."metaduel.games"]
chase = "{package}:SPECS"
[tool.setuptools]
packages = ["{package}"]
package-data = {{ "*" = ["tasks/*.json", "measured/*.json"] }}
""",
    "{package}/__init__.py": '''
"""Run from a chaser along a line in a wind that no player sees."""
import numpy as np
from gymnasium import spaces
from metaduel.envs import ROLES, Context, GameSpec

line, step = spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32)
wind = Context("wind", "m/step", 0.0, (-0.05, 0.05), "carries the runner", ((0.05, 0.08),), (-0.1, 0.1))
players = {{
    "protagonist": {{"train": ("flee",), "held_out": ("sway",)}},
    "adversary": {{"train": ("still",), "held_out": ("hunt",)}},
}}
SPECS = (
    GameSpec(
        "Chase", 0, "run from a chaser along a windy line", "{package}", "Chase", 12, (wind,), dict.fromkeys(ROLES, line),
        dict.fromkeys(ROLES, step), players, namespace="myteam",
    ),
)
''',
    "{package}/game.py": '''
"""Chase's rules."""
from typing import NamedTuple
import torch
from torch import Tensor
from metaduel.envs import Game, Outcome

class Params(NamedTuple):
    wind: Tensor  # [B] m/step

class State(NamedTuple):
    runner: Tensor  # [B] m
    chaser: Tensor  # [B] m

class Chase(Game[Params, State]):
    params_type = Params
    init_noise = 2

    def init(self, params, noise):
        return State(*(noise * 2 - 1).unbind(1))

    def observe(self, params, state):
        seen = torch.stack([state.runner, state.chaser], 1)
        return seen, seen

    def step(self, params, state, actions, noise):
        runner = (state.runner + 0.1 * actions[0][:, 0] + params.wind).clamp(-1, 1)
        chaser = (state.chaser + 0.1 * actions[1][:, 0]).clamp(-1, 1)
        gap = (runner - chaser).abs()
        return State(runner, chaser), Outcome(torch.stack([gap, -gap], 1), gap < 0.01)
''',
    "{package}/opponents.py": '''
"""Chase's scripted players."""
import torch
from metaduel.envs import Scripted

def away(view, memory, noise):
    return torch.sign(view.state.runner - view.state.chaser).unsqueeze(1), memory

def sway(view, memory, noise):
    return torch.sin(view.step.to(view.observation)).unsqueeze(1), memory

def still(view, memory, noise):
    return torch.zeros_like(view.state.runner).unsqueeze(1), memory

PLAYERS = (
    Scripted("flee", "protagonist", "train", "runs away", away),
    Scripted("sway", "protagonist", "held_out", "runs to and fro", sway),
    Scripted("still", "adversary", "train", "stands still", still),
    Scripted("hunt", "adversary", "held_out", "runs after it", away),
)
''',
    "{package}/viewer.py": '''
"""Chase's picture."""
def draw(canvas, params, states):
    canvas.view(-1, 1, -1, 1)
    canvas.circle((states[-1].runner[0], 0), 0.1, "#0b66c3")
    canvas.circle((states[-1].chaser[0], 0), 0.1, "#d9480f")
''',
    "{package}/cases.py": '''
"""Chase's golden transitions."""
from metaduel.envs import Golden

CASES = (
    # 0 + 0.1 * 1 + 0.05 and 0.5 - 0.1 * 1: 0.25 apart
    Golden("run into each other", {{"wind": 0.05}}, {{"runner": 0.0, "chaser": 0.5}}, ([1.0], [-1.0]),
           {{"runner": 0.15, "chaser": 0.4}}, (0.25, -0.25)),
)
''',
}  # fmt: skip


def write(folder, package="chase_game", *changes):
    """Write the family's package; ``changes``: (file, old, new)."""
    texts = {name.format(package=package): text.format(package=package) for name, text in CHASE.items()}
    for file, old, new in changes:
        name = f"{package}/{file}"
        assert texts[name].count(old) == 1, old
        texts[name] = texts[name].replace(old, new)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (spec,) = runpy.run_path(str(folder / package / "__init__.py"))["SPECS"]
    (folder / package / "tasks").mkdir()
    (folder / package / "tasks" / "Chase-v0.json").write_text(tasks.frozen_json(spec))
    return folder


def python(code, cwd, *path):
    """What another process prints; its warnings go to the error stream."""
    own = os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": own, "SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """The registry as it is, put back afterwards; ``tmp_path`` is on the path."""
    monkeypatch.setattr(registry, "_registered", dict(registry.specs()))
    monkeypatch.setattr(registry, "_used", {})
    monkeypatch.setattr(registry, "_failed", [])
    monkeypatch.syspath_prepend(tmp_path)
    known = [(table, dict(table)) for table in (gymnasium.registry, aec_registry, parallel_registry)]
    modules = set(sys.modules)
    yield
    for table, before in known:
        table.clear()
        table.update(before)
    for name in set(sys.modules) - modules:
        if name.startswith("chase"):
            del sys.modules[name]
    tasks._frozen.cache_clear()


def variant(spec=NAVIGATION, **changes):
    """A family of another name, with the code and tasks of ``spec``."""
    own = {"name": f"My{spec.name}", "namespace": "my-team", "task_file": spec.frozen_file}
    return dataclasses.replace(spec, **{**own, **changes})


# A package of its own


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the family's package, as pip installs it."""
    folder = tmp_path_factory.mktemp("installed")
    source = write(tmp_path_factory.mktemp("source"))
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--target", str(folder))
    command = [*pip, "--no-deps", "--no-build-isolation", "--no-index", str(source)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def test_an_installed_package_brings_its_family(installed, tmp_path):
    code = f"""
import importlib, sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("error")
    import metaduel
    importlib.reload(metaduel)
assert "torch" not in sys.modules
assert "Chase" in metaduel.games()
assert metaduel.find("Chase") is metaduel.find("myteam/Chase-v0")
assert metaduel.opponents("Chase") == ("still",)
assert len(metaduel.sample_tasks("Chase", 3, "held_out")) == 3
from metaduel.envs.core import registry
assert registry.families()["chase_game"] == [metaduel.find("Chase")]
assert "Chase" not in registry.builtin()
from metaduel.envs.core.measured import measured
assert measured(metaduel.find("Chase")) == {{}}

import gymnasium, pettingzoo
env = gymnasium.make("myteam/Chase-v0", opponent="hunt", task="held_out:3", render_mode="rgb_array")
env.reset(seed=0)
env.step(env.action_space.sample())
assert env.render().ndim == 3
native = {{"num_envs": 3, "vectorization_mode": "vector_entry_point"}}
rows = gymnasium.make_vec("myteam/Chase-v0", opponent="chase:hunt(noise=0.1)", **native)
assert rows.reset(seed=0)[0].shape == (3, 2)
for api in ("parallel", "aec"):
    pettingzoo.make(api, "myteam/Chase-v0").reset(seed=0)

from metaduel.envs import check_game
from metaduel.envs.adapters.gymnasium import SeatEnv
from metaduel.envs.adapters.pettingzoo import parallel_env
from metaduel.envs.adapters.vector import SeatVectorEnv
assert not [name for name in check_game("Chase") if "left out" in name]
metaduel.train_meta_adversarial("Chase", folder="run", **{SHORT})
run = metaduel.load("run")
assert run.config.game == "Chase"
assert run.protagonist.adapt(env, shots=1, episodes=1).predict(env.reset()[0])[0].shape == (1,)
table = metaduel.evaluate("run", out="table", shots=1, episodes=2, test_episodes=2, task_count=2)
print(set(table.values("family")))
"""
    assert python(code, tmp_path, installed)[0] == "{'Chase'}"


def test_a_package_that_is_imported_before_ours_is_found_once_it_is_there(installed, tmp_path):
    code = """
import warnings
warnings.simplefilter("error")
import chase_game, metaduel, gymnasium
assert metaduel.find("Chase") is chase_game.SPECS[0]
print(gymnasium.make("myteam/Chase-v0").reset(seed=0)[1]["opponent"])
"""
    assert python(code, tmp_path, installed)[0] == "still"


def test_the_command_line_lists_and_describes_it(installed, tmp_path):
    code = "from metaduel.cli import main; import sys; sys.argv = ['metaduel', 'info', 'Chase']; main()"
    assert "myteam/Chase-v0: run from a chaser along a windy line" in python(code, tmp_path, installed)[0]


@pytest.mark.parametrize(
    ("value", "content", "reason"),
    [
        ("not_there:SPECS", None, "ModuleNotFoundError: No module named 'not_there'"),
        ("broken_game:SPEC", "SPECS = ()", "AttributeError: module 'broken_game' has no attribute 'SPEC'"),
        ("broken_game:SPECS", "1 / 0", "ZeroDivisionError: division by zero"),
        ("broken_game:SPECS", "SPECS = 3", "TypeError: 'int' object is not iterable"),
        ("broken_game:SPECS", "SPECS = ['Chase']", "InvalidInputError: spec='Chase' must be a GameSpec"),
    ],
)
def test_a_broken_entry_point_warns_once_and_is_told_when_a_game_is_not_found(tmp_path, value, content, reason):
    information = tmp_path / "broken_game-0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-game\nVersion: 0\n")
    (information / "entry_points.txt").write_text(f"[metaduel.games]\nbroken = {value}\n")
    if content is not None:
        (tmp_path / "broken_game.py").write_text(content)
    code = """
import importlib, metaduel
importlib.reload(metaduel)
from metaduel.envs.core.registry import builtin
assert metaduel.games() == tuple(builtin())
try:
    metaduel.find("Broken")
except ValueError as error:
    print(error)
"""
    said, warned = python(code, tmp_path, tmp_path)
    assert warned.count("UserWarning") == 1
    assert f"entry point 'broken' of metaduel.games brought no family: {value}: {reason}" in warned
    assert said.startswith("unknown game 'Broken'")
    assert said.endswith(f"failed to load: broken ({value}): {reason}")
    assert "\n" not in said


def test_the_families_of_other_entry_points_survive_a_broken_one(fresh, tmp_path, monkeypatch):
    write(tmp_path, "chase_found")
    waiting = [EntryPoint("a", "not_there:SPECS", registry.GROUP), EntryPoint("b", "chase_found:SPECS", registry.GROUP)]
    monkeypatch.setattr(registry, "_entry_points", lambda: waiting)
    with pytest.warns(UserWarning, match="'a' of metaduel.games"):
        assert "Chase" in metaduel.games()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "Chase" in metaduel.games()


# Registering by hand


def test_register_makes_a_family_known_everywhere(fresh):
    spec = variant()
    metaduel.register(spec)
    metaduel.register(spec)
    metaduel.register(dataclasses.replace(spec))  # the same again, as a module that is loaded again makes it
    assert metaduel.games() == tuple(sorted(metaduel.games()))
    assert metaduel.find("MyNavigation") is metaduel.find("my-team/MyNavigation-v0") is spec
    assert gymnasium.make(spec.id).unwrapped.get_wrapper_attr("horizon") == spec.horizon
    assert spec.id in parallel_registry
    assert spec.id in aec_registry
    assert registry.families()[spec.package] == [spec, NAVIGATION]
    importlib.reload(metaduel)
    assert metaduel.find("MyNavigation") is spec


def test_another_family_of_the_same_name_or_id_is_refused(fresh, tmp_path):
    write(tmp_path, "chase_one")
    write(tmp_path, "chase_two")
    one, two = (importlib.import_module(f"chase_{name}").SPECS[0] for name in ("one", "two"))
    metaduel.register(one)
    before = metaduel.games(), set(gymnasium.registry)
    words = "name='Chase' of package chase_two is that of another family, of package chase_one: give each a name"
    with pytest.raises(InvalidInputError, match=words):
        metaduel.register(two)
    with pytest.raises(InvalidInputError, match=words):
        metaduel.register(dataclasses.replace(two, namespace="other", version=3, task_file="Chase-v0.json"))
    words = "name='Pursuit' of package chase_one is that of another family, of package metaduel.envs.pursuit"
    with pytest.raises(InvalidInputError, match=words):
        metaduel.register(dataclasses.replace(one, name="Pursuit", task_file="Chase-v0.json"))
    assert (metaduel.games(), set(gymnasium.registry)) == before
    assert metaduel.find("Chase") is one


def test_an_id_that_gymnasium_knows_from_elsewhere_is_refused(fresh):
    gymnasium.register("my-team/MyNavigation-v0", entry_point="elsewhere:Env")
    with pytest.raises(InvalidInputError, match="id='my-team/MyNavigation-v0' is taken in Gymnasium's registry"):
        metaduel.register(variant())
    assert "MyNavigation" not in metaduel.games()


@pytest.mark.parametrize(
    ("game", "hint"),
    [
        ("PURSUIT", "did you mean 'Pursuit'"),
        ("metaduel/pursuit-v0", "did you mean 'metaduel/Pursuit-v0'"),
        ("mynavigation", "did you mean 'MyNavigation'"),
        ("my-team/MyNavigaton-v0", "did you mean 'my-team/MyNavigation-v0'"),
    ],
)
def test_what_is_not_found_is_told_the_nearest(fresh, game, hint):
    metaduel.register(variant())
    with pytest.raises(InvalidInputError, match=hint):
        metaduel.find(game)


BOX = NAVIGATION.observation_spaces["protagonist"]
X = NAVIGATION.contexts[0]


def contexts(**changes):
    return (dataclasses.replace(X, **changes), *NAVIGATION.contexts[1:])


def both(space):
    return dict.fromkeys(ROLES, space)


def players(train, held_out):
    return {"opponents": {**NAVIGATION.opponents, "adversary": {"train": train, "held_out": held_out}}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "My Game"}, "name='My Game' must be letters"),
        ({"namespace": "my/team"}, "namespace='my/team' must be letters"),
        ({"namespace": ""}, "namespace='' must be letters"),
        ({"version": -1}, "version=-1 must be a whole number of at least 0"),
        ({"horizon": 0}, "horizon=0 must be a whole number of at least 1"),
        ({"horizon": 2.5}, "horizon=2.5 must be a whole number"),
        ({"fps": True}, "fps=True must be a whole number"),
        ({"contexts": [X]}, "must be a tuple of Contexts"),
        ({"contexts": ()}, "at least one must be continuous"),
        ({"contexts": (X, X)}, "context goal_x is there 2 times; every name must be unique"),
        ({"contexts": contexts(name="goal x")}, "context name 'goal x' must be letters"),
        ({"contexts": contexts(train=(0.5, -0.5))}, "train=(0.5, -0.5) must be finite, in order and within bounds"),
        ({"contexts": contexts(train=(0.25, 0.25))}, "train=(0.25, 0.25) must have a width"),
        ({"contexts": contexts(default=99.0)}, "default=99 must be finite, in order and within bounds"),
        ({"contexts": contexts(extrapolation=((0.0, np.inf),))}, "extrapolation=(0, inf) must be finite"),
        ({"contexts": contexts(visible_to=("runner",))}, "visible_to=('runner',) must be roles: protagonist, adversary"),
        ({"contexts": contexts(shown_as="category")}, "shown_as='category' must be number, angle, or category where"),
        ({"contexts": (Context("n", "1", 2, (2, 5), "how many", integer=True),)}, "at least one must be continuous"),
        ({"observation_spaces": {"protagonist": BOX}}, "observation_spaces['adversary']=None must be a Box"),
        ({"observation_spaces": both(spaces.Box(0, 1, (2, 2)))}, "must be a Box of shape (d,)"),
        ({"action_spaces": both(spaces.Box(-np.inf, 1, (2,)))}, "or a bounded Box"),
        ({"action_spaces": both(spaces.Discrete(2, start=1))}, "must start at 0"),
        ({"turn_based": True}, "must be Discrete in a turn-based game"),
        ({"turn_based": True, "action_spaces": both(spaces.Discrete(2))}, "must name the 2 actions"),
        ({"opponents": {}}, "opponents['protagonist']['train']=None must be a tuple"),
        (players((), ("idle",)), "opponents['adversary']['train']=() must be a tuple of at least one"),
        (players("idle", ("chase",)), "opponents['adversary']['train']='idle' must be a tuple"),
        (players(("idle",), ("idle",)), "every name must be there once"),
        (players(("idle(noise=1)",), ("chase",)), "must be a tuple of at least one scripted player's name"),
        ({"package": "not_there"}, "package='not_there' cannot be imported as a package (ModuleNotFoundError"),
        ({"package": "json.tool"}, "package='json.tool' cannot be imported as a package"),
        ({"package": "json"}, "package='json' must have a module game.py"),
        ({"package": "../json"}, "package='../json' must be the name of a package"),
        ({"task_file": ""}, "metaduel.envs.navigation/tasks/MyNavigation-v0.json is missing: write"),
        ({"task_file": "../cases.py"}, "task_file='../cases.py' must be the name of a .json file"),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_work_is_refused_in_one_line(fresh, changes, words):
    before = metaduel.games()
    with pytest.raises(InvalidInputError) as error:
        metaduel.register(variant(**changes))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert metaduel.games() == before


@pytest.mark.parametrize("spec", registry.builtin().values(), ids=lambda spec: spec.name)
def test_every_family_of_ours_would_be_registered(spec):
    check_spec(spec)


def test_a_frozen_file_is_looked_at_when_it_is_used(fresh, tmp_path):
    write(tmp_path, "chase_lists")
    file = tmp_path / "chase_lists" / "tasks" / "Chase-v0.json"
    spec = importlib.import_module("chase_lists").SPECS[0]
    file.write_text(file.read_text().replace("0.0", "0.1", 1))
    metaduel.register(spec)
    with pytest.raises(InvalidInputError, match="does not match its hash: reinstall chase_lists"):
        metaduel.sample_tasks("Chase", 1, "validation")
    tasks._frozen.cache_clear()
    file.write_text("{}")
    with pytest.raises(InvalidInputError, match=r"chase_lists/tasks/Chase-v0.json must be what .*frozen_json gives"):
        metaduel.sample_tasks("Chase", 1, "validation")
    strange = variant(
        task_file="Navigation-v0.json", contexts=(dataclasses.replace(X, name="far"), *NAVIGATION.contexts[1:])
    )
    with pytest.raises(
        InvalidInputError, match=r"Navigation-v0\.json has contexts goal_x, goal_y, push, not far, goal_y, push"
    ):
        metaduel.sample_tasks(strange, 1, "validation")


# Training on a family that is not registered


def test_a_spec_is_trained_on_as_it_is_and_found_again_by_its_name(fresh, tmp_path):
    spec = variant(name="ShortNavigation", horizon=7)
    before, folder = metaduel.games(), tmp_path / "run"
    run = metaduel.train_meta_adversarial(spec, folder=folder, **SHORT)
    assert run.duel.spec is spec
    assert run.duel.horizon == 7
    assert yaml.safe_load((folder / "config.yaml").read_text())["game"] == "ShortNavigation"
    assert metaduel.load(folder).duel.spec is spec
    table = metaduel.evaluate(folder, out=tmp_path / "out", shots=1, episodes=2, test_episodes=2, task_count=2)
    assert table.values("family") == ["ShortNavigation"]
    assert "ShortNavigation-v0" in (tmp_path / "out" / "report.md").read_text()
    assert metaduel.games() == before
    assert spec.id not in gymnasium.registry

    listed = metaduel.TaskList(dataclasses.replace(spec), [{"push": 0.05}, {"push": 0.0}])
    assert metaduel.train_meta_adversarial(listed, folder=tmp_path / "list", **SHORT).duel.spec is spec

    registry._used.clear()  # as in another process
    with pytest.raises(InvalidInputError) as error:
        metaduel.load(folder)
    assert f"{folder} was trained on a family that is not registered here (unknown game 'ShortNavigation'" in str(
        error.value
    )
    assert str(error.value).endswith(
        "install its package, call metaduel.register(spec) first, or load(folder, game=spec)"
    )
    with pytest.raises(InvalidInputError, match=f"game=Pursuit: {folder} was trained on the family ShortNavigation"):
        metaduel.load(folder, game=metaduel.find("Pursuit"))
    assert metaduel.load(folder, game=spec).duel.spec is spec
    registry._used.clear()
    metaduel.register(spec)
    assert metaduel.load(folder).duel.spec is spec


def test_training_refuses_a_spec_with_the_name_of_another_family(fresh, tmp_path):
    words = "name='Navigation' of package metaduel.envs.navigation is that of another family"
    with pytest.raises(InvalidInputError, match=words):
        metaduel.train_meta_adversarial(dataclasses.replace(NAVIGATION, horizon=7), folder=tmp_path / "run", **SHORT)
    assert not (tmp_path / "run").exists()
    registry.use(variant())
    with pytest.raises(InvalidInputError, match="name='MyNavigation'"):
        metaduel.register(variant(horizon=7))
    metaduel.register(variant())
    assert "MyNavigation" in metaduel.games()


def test_environments_take_a_spec_as_it_is(fresh):
    spec = dataclasses.replace(NAVIGATION, horizon=7)
    assert metaduel.make_sb3(spec, num_envs=2).get_attr("horizon") == [7, 7]
    assert SeatEnv(spec).horizon == 7
    assert SeatVectorEnv(spec, 2).call("horizon") == (7, 7)
    assert parallel_env(spec).max_cycles == 7
    assert metaduel.find("Navigation") is NAVIGATION


# The contract


@pytest.mark.parametrize("spec", registry.builtin().values(), ids=lambda spec: spec.name)
def test_our_families_keep_the_contract_under_any_name(spec):
    passed = check_game(variant(spec))
    assert len(passed) == 13
    assert [name.partition(" (")[0] for name in passed if "left out" in name] == [
        "golden transitions"
    ]  # they have their own


def test_what_is_not_there_is_left_out(fresh, tmp_path):
    write(tmp_path, "chase_bare")
    for name in ("viewer.py", "cases.py"):
        (tmp_path / "chase_bare" / name).unlink()
    passed = check_game(importlib.import_module("chase_bare").SPECS[0])
    assert passed[-2:] == (
        "the viewer draws (left out: chase_bare has no viewer.py)",
        "golden transitions (left out: chase_bare has no cases.py)",
    )


STEP = "0.1 * actions[0][:, 0] + params.wind"
BROKEN = {
    "torch": [("__init__.py", "import numpy", "import torch, numpy")],
    "unnamed": [("opponents.py", '"hunt"', '"hound"')],
    "too_far": [("opponents.py", "torch.sign(", "2 * torch.sign(")],
    "flat": [("opponents.py", "zeros_like(view.state.runner).unsqueeze(1)", "zeros_like(view.state.runner)")],
    "batch": [("game.py", STEP, f"{STEP} + 0.01 * state.runner.mean()")],
    "random": [("game.py", "noise * 2 - 1", "torch.rand_like(noise)")],
    "writes": [("game.py", "runner = (state.runner +", "runner = (state.runner.mul_(0.9) +")],
    "outside": [("game.py", "[state.runner, state.chaser]", "[2 * state.runner, state.chaser]")],
    "not_zero_sum": [("game.py", "[gap, -gap]", "[gap, gap]")],
    "clock": [
        ("game.py", "    chaser: Tensor", "    age: Tensor\n    chaser: Tensor"),
        ("game.py", "State(*(noise * 2 - 1).unbind(1))", "State(noise[:, 0], 0 * noise[:, 0], noise[:, 1])"),
        ("game.py", "State(runner, chaser)", "State(runner, state.age + 1, chaser)"),
        ("game.py", "gap < 0.01", "state.age + 1 >= 12"),
    ],
    "leak": [("game.py", "[state.runner, state.chaser]", "[-10 * params.wind, state.chaser]")],
    "no_wind": [("game.py", " + params.wind", "")],
    "refuses": [("game.py", "    def init", "    def check(self, task):\n        assert task['wind'] < 0.04\n\n    def init")],
    "blank": [("viewer.py", 'canvas.circle((states[-1].runner[0], 0), 0.1, "#0b66c3")', ""),
              ("viewer.py", 'canvas.circle((states[-1].chaser[0], 0), 0.1, "#d9480f")', "")],
    "wrong_case": [("cases.py", "0.15", "0.16")],
    "odd_case": [("cases.py", '{"runner": 0.15', '{"walker": 0.15')],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("torch", ["the package imports no torch: importing chase_torch imports torch: leave that to its modules"]),
        (
            "unnamed",
            ["scripted players are playable: the spec names ['hunt'] for the adversary, held_out; opponents.py has"],
        ),
        (
            "too_far",
            ["scripted players are playable: the protagonist flee: its action at step 0 must be in Box(-1.0, 1.0"],
        ),
        (
            "flat",
            ["scripted players are playable: the adversary still: actions of torch.float32 and shape (8,) must be"],
        ),
        ("batch", ["rows are independent: row 0 of 8 plays otherwise alone (flee against still)"]),
        ("random", ["episodes repeat: two episodes of one seed differ", "Gymnasium's check: AssertionError"]),
        ("writes", ["steps are pure: a step or a player writes into what it was given"]),
        (
            "outside",
            ["observations and rewards fit: step 0: number 0 of the protagonist's observation must be in [-1, 1]"],
        ),
        ("not_zero_sum", ["observations and rewards fit: step 1: rewards must add up to zero in a zero-sum game"]),
        ("clock", ["rules and clock end apart: the rules end every episode at step 12, the horizon"]),
        ("leak", ["hidden contexts stay hidden: the protagonist's first observation tells wind"]),
        ("no_wind", ["every context matters: wind changes nothing that scripted players do or get in 20 steps"]),
        ("refuses", ["splits are whole and disjoint: AssertionError"]),
        ("blank", ["the viewer draws: the picture must change from step to step"]),
        ("wrong_case", ["golden transitions: 'run into each other': runner is 0.1"]),
        ("odd_case", ["golden transitions: InvalidInputError: 'run into each other': State has no field 'walker'"]),
    ],
)
def test_a_family_that_breaks_the_contract_is_told_where(fresh, tmp_path, name, lines):
    write(tmp_path, f"chase_{name}", *BROKEN[name])
    with pytest.raises(ContractBroken) as error:
        check_game(importlib.import_module(f"chase_{name}").SPECS[0])
    report = str(error.value).splitlines()
    assert report[0].startswith(f"myteam/Chase-v0 (chase_{name}) breaks {len(report) - 1} of 13 checks:")
    for line in lines:
        assert any(one.startswith(f"- {line}") for one in report[1:]), report


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (
            lambda lists: lists["validation"].update(lists["held_out"]),
            "the validation list must be what frozen_json makes",
        ),
        (lambda lists: lists["held_out"]["tasks"].pop(), "the held_out list must hold 100 tasks, each once"),
        (
            lambda lists: lists["extrapolation"]["tasks"][0].update(wind=0.0),
            "extrapolation: wind must be in (0.05, 0.08)",
        ),
    ],
)
def test_spoilt_lists_break_the_contract(fresh, tmp_path, spoil, line):
    write(tmp_path, "chase_spoilt")
    file = tmp_path / "chase_spoilt" / "tasks" / "Chase-v0.json"
    lists = json.loads(file.read_text())
    spoil(lists)
    for split in FROZEN_SPLITS:
        lists[split]["sha256"] = tasks.digest(lists[split]["tasks"])
    file.write_text(json.dumps(lists))
    with pytest.raises(ContractBroken, match="splits are whole and disjoint: ") as error:
        check_game(importlib.import_module("chase_spoilt").SPECS[0])
    assert line in str(error.value)


def test_the_contract_refuses_an_unknown_game_and_a_spec_that_cannot_work(fresh):
    with pytest.raises(InvalidInputError, match="unknown game 'Chase'"):
        check_game("Chase")
    with pytest.raises(InvalidInputError, match="horizon=0"):
        check_game(variant(horizon=0))
