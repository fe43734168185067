"""Tasks: splits that cannot overlap, frozen lists that cannot change unnoticed, and a message for every bad input."""

import dataclasses
import hashlib
import json
import math
import re
from importlib.resources import files

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metaduel.envs.core import tasks
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find, specs
from metaduel.envs.core.spec import FROZEN_SPLITS, ROLES, SPLITS, Context

FAMILIES = list(specs().values())
NAVIGATION = find("Navigation")
each_family = pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: spec.name)


def lattice(spec, task):
    """Residue class and number of the lattice point of the first continuous context."""
    context = next(c for c in spec.contexts if not c.integer)
    low, high = context.train
    return round((task[context.name] - low) / (high - low) * (1 << 20))


@each_family
def test_splits_are_disjoint_by_residue(spec):
    for split, residues in {"train": {0, 2}, "validation": {1}, "held_out": {3}}.items():
        drawn = [t for seed in (0, 1, 12345) for t in tasks.generate(spec, split, 300, seed)]
        assert {lattice(spec, task) % 4 for task in drawn} == residues


@each_family
def test_neighbouring_lattice_points_stay_apart_in_single_precision(spec):
    context = next(c for c in spec.contexts if not c.integer)
    low, high = context.train
    assert (high - low) / (1 << 20) > 2 * np.finfo(np.float32).eps * max(abs(low), abs(high))


@each_family
def test_drawn_tasks_fill_their_ranges(spec):
    for split in ("train", "validation", "held_out", "extrapolation"):
        drawn = tasks.generate(spec, split, 500, seed=5)
        for context in spec.contexts:
            values = [task[context.name] for task in drawn]
            outside = split == "extrapolation" and context.extrapolation
            ranges = context.extrapolation if outside else (context.train,)
            assert all(any(low <= v <= high for low, high in ranges) for v in values)
            for low, high in ranges:
                inside = [v for v in values if low <= v <= high]
                assert len(inside) > 0.8 * 500 / len(ranges) - 20
                if not context.integer:
                    assert max(inside) - min(inside) > 0.95 * (high - low)
            assert all(tasks.check_task(spec, task) == task for task in drawn)


@each_family
def test_frozen_lists_are_what_their_generator_makes(spec):
    path = files(spec.package) / "tasks" / f"{spec.name}-v{spec.version}.json"
    assert path.read_text() == tasks.frozen_json(spec)
    for split in FROZEN_SPLITS:
        frozen = tasks.frozen_tasks(spec, split)
        assert len(frozen) == len({tasks.task_id(t) for t in frozen}) == 100
        assert [list(t) for t in frozen] == [list(spec.context_names)] * 100


def test_frozen_lists_of_navigation_are_those_of_version_0():
    # A change of sampler, numpy or torch that moves the lists needs a new version, not a new hash here.
    content = json.loads((files(NAVIGATION.package) / "tasks" / "Navigation-v0.json").read_text())
    assert [content[split]["sha256"][:12] for split in FROZEN_SPLITS] == [
        "0e26158b91fc",
        "6750f4e19287",
        "459df34790af",
    ]
    text = json.dumps(content["held_out"]["tasks"], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == content["held_out"]["sha256"]


def test_frozen_tasks_are_copies():
    tasks.frozen_tasks(NAVIGATION, "held_out")[0]["push"] = 99.0
    assert tasks.frozen_tasks(NAVIGATION, "held_out")[0]["push"] != 99.0


@pytest.fixture
def family(tmp_path, monkeypatch):
    """Navigation's contexts in a package whose task file a test may spoil."""
    folder = tmp_path / "spoilt_family"
    (folder / "tasks").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    path = folder / "tasks" / "Navigation-v0.json"
    path.write_text(tasks.frozen_json(NAVIGATION))
    monkeypatch.syspath_prepend(tmp_path)
    tasks._frozen.cache_clear()
    yield dataclasses.replace(NAVIGATION, package="spoilt_family"), path
    tasks._frozen.cache_clear()


def test_a_changed_list_is_refused(family):
    spec, path = family
    assert tasks.frozen_tasks(spec, "held_out") == tasks.frozen_tasks(NAVIGATION, "held_out")
    content = json.loads(path.read_text())
    content["held_out"]["tasks"][3]["push"] += 1e-9
    path.write_text(json.dumps(content))
    tasks._frozen.cache_clear()
    with pytest.raises(InvalidInputError, match="frozen held_out list does not match its hash"):
        tasks.frozen_tasks(spec, "held_out")


def test_sampling_from_train_is_a_function_of_the_seed():
    first = tasks.sample_tasks(NAVIGATION, 20, seed=4)
    assert first == tasks.sample_tasks(NAVIGATION, 20, seed=4)
    assert first == tasks.sample_tasks(NAVIGATION, 40, seed=4)[:20]
    assert not {tasks.task_id(t) for t in first} & {
        tasks.task_id(t) for t in tasks.sample_tasks(NAVIGATION, 20, seed=5)
    }


@pytest.mark.parametrize("split", FROZEN_SPLITS)
def test_sampling_from_a_frozen_split_takes_distinct_tasks_of_its_list(split):
    ids = [tasks.task_id(t) for t in tasks.sample_tasks(NAVIGATION, 100, split, seed=2)]
    frozen = [tasks.task_id(t) for t in tasks.frozen_tasks(NAVIGATION, split)]
    assert sorted(ids) == sorted(frozen)
    assert ids != frozen
    assert ids[:7] == [tasks.task_id(t) for t in tasks.sample_tasks(NAVIGATION, 7, split, seed=2)]


def test_extrapolation_lies_outside_the_training_ranges():
    for task in tasks.frozen_tasks(NAVIGATION, "extrapolation"):
        assert all(not c.train[0] < task[c.name] < c.train[1] for c in NAVIGATION.contexts)


def test_integer_contexts_take_every_whole_number_equally():
    count = Context("count", "1", 2, (2, 5), "how many", integer=True)
    spec = dataclasses.replace(NAVIGATION, contexts=(count, *NAVIGATION.contexts))
    values = [task["count"] for task in tasks.generate(spec, "train", 4000, seed=1)]
    assert set(values) == {2.0, 3.0, 4.0, 5.0}
    assert all(abs(values.count(k) - 1000) < 4 * math.sqrt(4000 * 0.25 * 0.75) for k in (2, 3, 4, 5))
    # The lattice is then on the first continuous context.
    assert {lattice(spec, task) % 4 for task in tasks.generate(spec, "held_out", 200, seed=1)} == {3}


def test_a_family_without_a_continuous_context_is_refused():
    count = Context("count", "1", 2, (2, 5), "how many", integer=True)
    with pytest.raises(TypeError, match="needs a continuous context"):
        tasks.generate(dataclasses.replace(NAVIGATION, contexts=(count,)), "train", 1, seed=0)


def test_task_id_hides_values_and_ignores_order():
    task = {"goal_x": 0.25, "goal_y": 0.5, "push": 0.03}
    name = tasks.task_id(task)
    assert name == tasks.task_id(dict(reversed(task.items())))
    assert re.fullmatch("t[0-9a-f]{10}", name)
    assert name != tasks.task_id({**task, "push": 0.030001})


@each_family
def test_no_frozen_id_looks_like_a_number_and_none_is_there_twice(spec):
    ids = [tasks.task_id(task) for split in FROZEN_SPLITS for task in tasks.frozen_tasks(spec, split)]
    assert len(ids) == len(set(ids)) == 300
    for name in ids:
        for kind in (int, float):
            with pytest.raises(ValueError, match=name):
                kind(name)


def test_ids_of_earlier_versions_are_read():
    assert tasks.read_task_id("0526144824") == "t0526144824"
    assert tasks.read_task_id("457e695297") == "t457e695297"
    for name in ("t0526144824", "held_out:3", "LOLA's payoffs", "0526144824a", "held_out:0526144824"):
        assert tasks.read_task_id(name) == name


def test_check_task_fills_in_defaults_and_makes_plain_floats():
    checked = tasks.check_task(NAVIGATION, {"push": np.float32(0.0625)})
    assert checked == {"goal_x": 0.3, "goal_y": 0.3, "push": 0.0625}
    assert {type(v) for v in checked.values()} == {float}


COUNT = Context("count", "1", 2, (2, 5), "how many", bounds=(1, 9), integer=True)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: tasks.check_split("heldout"), "unknown split 'heldout' (did you mean 'held_out'?)"),
        (lambda: tasks.check_task(NAVIGATION, [1, 2]), "task=[1, 2] must map context names to numbers"),
        (lambda: tasks.check_task(NAVIGATION, {"goalx": 1}), "'goalx' (did you mean 'goal_x'?); known: goal_x, goal_y"),
        (
            lambda: tasks.check_task(NAVIGATION, {"push": "1"}),
            "push='1' must be a finite number in [0, 0.1] m/step, not str",
        ),
        (lambda: tasks.check_task(NAVIGATION, {"push": True}), "not bool"),
        (lambda: tasks.check_task(NAVIGATION, {"push": None}), "not NoneType"),
        (lambda: tasks.check_task(NAVIGATION, {"push": torch.tensor(0.1)}), "not Tensor"),
        (lambda: tasks.check_task(NAVIGATION, {"push": math.nan}), "push=nan must be a finite number"),
        (lambda: tasks.check_task(NAVIGATION, {"goal_x": -math.inf}), "goal_x=-inf must be a finite number"),
        (lambda: tasks.check_task(NAVIGATION, {"push": 0.11}), "push=0.11 must be a finite number in [0, 0.1]"),
        (lambda: COUNT.check(2.5, "Any"), "count=2.5 must be a whole number in [1, 9]"),
        (lambda: tasks.sample_tasks(NAVIGATION, 0), "n=0 must be a whole number of at least 1 task"),
        (lambda: tasks.sample_tasks(NAVIGATION, True), "n=True must be"),
        (lambda: tasks.sample_tasks(NAVIGATION, 2.0), "n=2.0 must be"),
        (lambda: tasks.sample_tasks(NAVIGATION, 101, "held_out"), "n=101: the held_out list of Navigation holds 100"),
        (lambda: tasks.sample_tasks(NAVIGATION, 1, "test"), "unknown split 'test'"),
        (lambda: tasks.frozen_tasks(NAVIGATION, "train"), "split='train' has no frozen list"),
        (lambda: tasks.find_task(NAVIGATION, "held_out"), "must be SPLIT:INDEX"),
        (lambda: tasks.find_task(NAVIGATION, "held_out:-1"), "must be SPLIT:INDEX"),
        (lambda: tasks.find_task(NAVIGATION, "held_out:100"), "an index below 100"),
        (lambda: tasks.find_task(NAVIGATION, "train:0"), "must be SPLIT:INDEX with a frozen split"),
        (lambda: make_game(NAVIGATION).params([{"push": -1}]), "push=-1 must be a finite number"),
        (lambda: NAVIGATION.check_role("attacker"), "unknown role 'attacker'"),
        (lambda: find("navigation"), "unknown game 'navigation' (did you mean 'Navigation'?)"),
    ],
)
def test_bad_input_says_what_would_be_right(act, message):
    with pytest.raises(InvalidInputError) as error:
        act()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_find_task_and_find_game_take_names():
    assert tasks.find_task(NAVIGATION, "held_out:3") == tasks.frozen_tasks(NAVIGATION, "held_out")[3]
    assert find("metaduel/Navigation-v0") is find("Navigation") is find(NAVIGATION)


@each_family
def test_spec_is_consistent(spec):
    assert set(SPLITS) == {"train", "validation", "held_out", "extrapolation"}
    for c in spec.contexts:
        low, high = c.bounds
        for start, end in (c.train, *c.extrapolation, (c.default, c.default)):
            assert low <= start <= end <= high
        assert all(end <= c.train[0] or start >= c.train[1] for start, end in c.extrapolation)
    assert any(c.extrapolation for c in spec.contexts)
    for role in ROLES:
        for informed in (False, True):
            space = spec.observation_space(role, informed)
            assert isinstance(space, spaces.Box)
            assert space is spec.observation_space(role, informed)
            width = sum(spec.contexts[i].width for i in spec.shown(role, informed))
            assert space.shape[0] == spec.observation_spaces[role].shape[0] + width
