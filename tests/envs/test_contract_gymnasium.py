"""What every registered family must keep through Gymnasium and Stable-Baselines3. Lists no family: it finds them."""

import json
import shutil
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

import metaduel
from metaduel.envs.adapters.seat import Seat
from metaduel.envs.adapters.vector import SeatVectorEnv
from metaduel.envs.core import noise, registry, tasks
from metaduel.envs.core.duel import Duel, Transition
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.spec import FROZEN_SPLITS, OPPONENT_SPLITS, ROLES
from metaduel.envs.players import scripted as opponents

SPECS = list(registry.specs().values())
every_family = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
every_seat = pytest.mark.parametrize("seat", ROLES)
every_mode = pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)


def scripted(spec, seat):
    """All scripted opponents of the learner in ``seat``."""
    other = ROLES[1 - ROLES.index(seat)]
    return [name for split in OPPONENT_SPLITS for name in metaduel.opponents(spec, role=other, split=split)]


def actions(spec, seat, steps, rows, seed=0):
    """Random actions: an array [steps, rows, ...]."""
    space, rng = spec.action_spaces[seat], np.random.default_rng(seed)
    if isinstance(space, gymnasium.spaces.Discrete):
        return rng.integers(space.start, space.start + space.n, (steps, rows))
    return rng.uniform(space.low, space.high, (steps, rows, *space.shape)).astype(np.float32)


def allowed(action, masks):
    """The actions, with those that a turn-based game's masks forbid replaced by legal ones; ``masks`` may be None."""
    if masks is None:
        return action
    legal = [np.flatnonzero(mask) for mask in masks]
    chosen = [a if a in row else row[a % len(row)] for a, row in zip(action, legal, strict=True)]
    return np.array(chosen, action.dtype)


def only(action, info):
    """As ``allowed``, for one environment's action and info."""
    mask = info.get("action_mask")
    return allowed(np.asarray(action)[None], None if mask is None else mask[None])[0]


def make_vec(spec, **kwargs):
    return gymnasium.make_vec(spec.id, vectorization_mode="vector_entry_point", **kwargs)


def same(first, second):
    """Equal to the bit, in tuples and nested dictionaries of arrays too."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, tuple) or (isinstance(first, np.ndarray) and first.dtype == object):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return type(first) is type(second) and np.array_equal(first, second)


# Gymnasium's and Stable-Baselines3's own checks


@every_family
@every_seat
@pytest.mark.parametrize("informed", [False, True], ids=["plain", "informed"])
def test_gymnasium_check_env(spec, seat, informed):
    env = gymnasium.make(spec.id, seat=seat, informed=informed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)


@every_family
def test_rendering_passes_gymnasiums_check(spec, monkeypatch):
    pytest.importorskip("pygame", reason="the render extra is not installed")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gymnasium.make(spec.id, render_mode="rgb_array").unwrapped
    with pytest.raises(ResetNeeded, match="reset"):
        env.render()
    info = env.reset(seed=0)[1]
    first = env.render()
    for action in actions(spec, "protagonist", 3, 1):
        info = env.step(only(action[0], info))[-1]
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert not np.array_equal(first, env.render())
    window = gymnasium.make(spec.id, render_mode="human")
    window.reset(seed=0)
    assert window.render() is None
    window.close()
    window.close()


@every_family
@every_seat
def test_stable_baselines3_check_env(spec, seat):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(gymnasium.make(spec.id, seat=seat).unwrapped)


# Rows of a batch and single environments


@every_family
@every_seat
@every_mode
def test_rows_equal_single_environments(spec, seat, mode):
    """Rows against all scripted opponents, over at least two autoresets: bits, infos and all, as Gymnasium's own
    vectoriser gives them from single environments.
    """
    names, horizon = scripted(spec, seat), min(spec.horizon, 5)
    names.append(names[0])  # one opponent in rows that are apart
    kwargs = {"seat": seat, "horizon": horizon}
    native = make_vec(spec, num_envs=len(names), opponent=names, autoreset_mode=mode.value, **kwargs)
    makers = [lambda name=name: gymnasium.make(spec.id, opponent=name, **kwargs) for name in names]
    singles = SyncVectorEnv(makers, autoreset_mode=mode)
    assert native.metadata["autoreset_mode"] is mode
    assert native.action_space == singles.action_space
    assert native.observation_space == singles.observation_space
    started = native.reset(seed=5)
    assert same(started, singles.reset(seed=5))
    ended, infos = np.zeros(len(names), int), started[1]
    for action in actions(spec, seat, 3 * horizon + 3, len(names)):
        action = allowed(action, infos.get("action_mask"))
        ours = native.step(action)
        infos = ours[-1]
        assert same(ours, singles.step(action))
        done = ours[2] | ours[3]
        ended += done
        if mode is AutoresetMode.DISABLED and done.any():
            again = native.reset(options={"reset_mask": done})
            expected = singles.reset(options={"reset_mask": done})
            assert np.array_equal(again[0], expected[0])
            assert same(again[1], expected[1])
            if "action_mask" in infos:
                infos["action_mask"][done] = again[1]["action_mask"][done]
    assert (ended >= 2).all()


@every_family
@every_seat
def test_whole_episodes_of_a_row_do_not_depend_on_the_batch(spec, seat):
    """The family's own horizon, sampled tasks, 37 rows that share one opponent at a time."""
    for name in scripted(spec, seat):
        batch, chosen = Seat(spec, 37, seat, name), 23
        alone = gymnasium.make(spec.id, seat=seat, opponent=name).unwrapped
        for row in range(37):
            batch.reseed(row, 100 + row)
        batch.reset()
        observation, _ = alone.reset(seed=100 + chosen)
        for action in actions(spec, seat, min(spec.horizon, 25), 37, seed=1):
            action = allowed(action, batch.action_masks())
            assert np.array_equal(observation, batch.observation()[chosen])
            reward, terminated, truncated = batch.step(torch.from_numpy(action))
            observation, *rest, _ = alone.step(action[chosen])
            assert rest == [float(reward[chosen]), bool(terminated[chosen]), bool(truncated[chosen])]
            if rest[1] or rest[2]:
                break


@every_family
@every_seat
def test_heterogeneous_rows_equal_single_environments(spec, seat):
    names = scripted(spec, seat)[-2:] * 2
    given = [*metaduel.sample_tasks(spec, 2, seed=3), "held_out:7", None]
    env = make_vec(spec, num_envs=4, seat=seat, task=given, opponent=names, split="validation")
    first, infos = env.reset(seed=9)
    action = allowed(actions(spec, seat, 1, 4)[0], infos.get("action_mask"))
    second = env.step(action)
    for row in range(4):
        single = gymnasium.make(spec.id, seat=seat, task=given[row], opponent=names[row], split="validation")
        observation, info = single.reset(seed=9 + row)
        assert np.array_equal(observation, first[row])
        assert same(info, {key: values[row] for key, values in infos.items() if not key.startswith("_")})
        assert {"task", "opponent"} <= set(info)
        assert np.array_equal(single.step(action[row])[0], second[0][row])
    played = env.call("get_task")
    assert [tasks.task_id(task) for task in played] == infos["task"].tolist()
    assert list(played[:3]) == [*given[:2], tasks.find_task(spec, "held_out:7")]
    assert played[3] in tasks.frozen_tasks(spec, "validation")


@every_family
def test_stable_baselines3_rows_equal_its_own_vectoriser(spec):
    kwargs = {"seat": "adversary", "horizon": min(spec.horizon, 5)}
    ours = metaduel.make_sb3(spec.name, num_envs=3, seed=4, **kwargs).unwrapped
    theirs = DummyVecEnv([lambda: gymnasium.make(spec.id, **kwargs) for _ in range(3)])
    theirs.seed(4)
    assert np.array_equal(ours.reset(), theirs.reset())
    assert all(same(mine, other) for mine, other in zip(ours.reset_infos, theirs.reset_infos, strict=True))
    truncated, infos = 0, ours.reset_infos
    for action in actions(spec, "adversary", 12, 3):
        # Where an episode has ended, the mask is the new one's.
        infos = [ours.reset_infos[i] if "terminal_observation" in info else info for i, info in enumerate(infos)]
        action = np.stack([only(one, info) for one, info in zip(action, infos, strict=True)])
        (observation, reward, done, infos), expected = ours.step(action), theirs.step(action)
        assert same(observation, expected[0])
        assert same(reward, expected[1])
        assert same(done, expected[2])
        assert all(same(mine, other) for mine, other in zip(infos, expected[3], strict=True))
        truncated += sum(info["TimeLimit.truncated"] for info in infos)
    assert all(same(mine, other) for mine, other in zip(ours.reset_infos, theirs.reset_infos, strict=True))
    assert truncated or not done.any()


@every_family
def test_seeds_reproduce_and_resets_move_on(spec):
    env = gymnasium.make(spec.id)
    runs = []
    for _ in range(2):
        played = [env.reset(seed=11)[1]["task"]]
        drawn = env.unwrapped.sample_tasks(2)
        played += [env.reset()[1]["task"] for _ in range(3)]
        runs.append((played, drawn, env.unwrapped.sample_tasks(2)))
    assert runs[0] == runs[1]
    assert len(set(runs[0][0])) == 4
    assert runs[0][1] != runs[0][2]
    other = gymnasium.make(spec.id)
    assert other.reset(seed=12)[1]["task"] not in runs[0][0]
    assert (
        gymnasium.make(spec.id).reset()[1]["task"] != gymnasium.make(spec.id).reset()[1]["task"]
    )  # unseeded: never the same


# Tasks, splits, contexts


@every_family
def test_splits_are_disjoint_through_make(spec):
    seen = {}
    for split in ("train", *FROZEN_SPLITS):
        env = make_vec(spec, num_envs=300, split=split)
        env.reset(seed=0)
        seen[split] = {tuple(task.items()) for task in env.call("get_task")}
        env.reset()
        seen[split] |= {tuple(task.items()) for task in env.call("get_task")}
        if split in FROZEN_SPLITS:
            assert seen[split] <= {tuple(task.items()) for task in tasks.frozen_tasks(spec, split)}
            assert len(seen[split]) > 90  # 600 draws of 100
        else:
            assert len(seen[split]) > 590
    pairs = [(a, b) for a in seen for b in seen if a < b]
    assert len(pairs) == 6
    for first, second in pairs:
        assert not seen[first] & seen[second], (first, second)
    # Few draws of continuous numbers never meet by chance: what keeps them apart is the lattice of the first one.
    column = next(i for i, context in enumerate(spec.contexts) if not context.integer)
    low, high = spec.contexts[column].train
    for split, residues in {"train": {0, 2}, "validation": {1}, "held_out": {3}}.items():
        points = {round((task[column][1] - low) / (high - low) * 2**20) % 4 for task in seen[split]}
        assert points == residues, split
    outside = [(i, c.train) for i, c in enumerate(spec.contexts) if c.extrapolation]
    assert outside
    for task in seen["extrapolation"]:
        assert all(not low < task[i][1] < high for i, (low, high) in outside)
    single = gymnasium.make(spec.id, split="held_out").unwrapped
    single.reset(seed=0)
    assert single.get_task() in tasks.frozen_tasks(spec, "held_out")


@every_family
def test_every_context_changes_a_trajectory(spec):
    """From the default task, each context moved inside its bounds, under some pair of random or scripted players."""
    default = {c.name: c.default for c in spec.contexts}
    game = make_game(spec)
    for context in spec.contexts:
        changed = []
        for value in {*context.train, *(end for ends in context.extrapolation for end in ends)} - {context.default}:
            task = {**default, context.name: int(value) if context.integer else value}
            try:
                game.check(task)
            except InvalidInputError:
                continue  # contradicts the other defaults
            changed.append(any_difference(spec, default, task))
        assert any(changed), f"{spec.name}: {context.name} changes nothing"


def any_difference(spec, first, second):
    for seat in ROLES:
        for name in scripted(spec, seat):
            rows = 8
            env = Seat(spec, 2 * rows, seat, name, [first] * rows + [second] * rows)
            for row in range(2 * rows):
                env.reseed(row, row % rows)
            env.reset()
            for action in actions(spec, seat, min(spec.horizon, 60), rows):
                reward, *_ = env.step(torch.from_numpy(np.concatenate([action, action])))
                for tensor in (reward, *env.observations):
                    if not torch.equal(tensor[:rows], tensor[rows:]):
                        return True
    return False


@every_family
def test_task_interface(spec):
    env = gymnasium.make(spec.id, split="held_out").unwrapped
    with pytest.raises(ResetNeeded, match="set_task"):
        env.get_task()
    wanted = env.sample_tasks(3)
    assert all(task in tasks.frozen_tasks(spec, "held_out") for task in wanted)
    env.set_task(wanted[1])
    assert env.get_task() == wanted[1]
    for _ in range(2):
        assert env.reset()[1]["task"] == tasks.task_id(wanted[1])
    assert env.reset(options={"task": "validation:4"})[1]["task"] == tasks.task_id(
        tasks.find_task(spec, "validation:4")
    )
    env.set_task(None)
    assert len({env.reset()[1]["task"] for _ in range(5)}) > 1
    name = metaduel.opponents(spec, split="held_out")[-1]
    assert env.reset(options={"opponent": name})[1]["opponent"] == name
    assert env.reset()[1]["opponent"] == name


@every_family
def test_info_tells_no_hidden_value(spec):
    env = gymnasium.make(spec.id)
    _, info = env.reset(seed=0)
    stepped = env.step(only(actions(spec, "protagonist", 1, 1)[0][0], info))[4]
    if spec.turn_based:
        for mask in (info.pop("action_mask"), stepped.pop("action_mask")):
            assert mask.dtype == np.int8
            assert mask.shape == (spec.action_spaces["protagonist"].n,)
            assert set(mask.tolist()) == {0, 1}
    assert info == stepped
    assert set(info) == {"task", "opponent"}
    assert all(isinstance(value, str) for value in info.values())


@every_family
def test_what_was_returned_is_the_callers(spec):
    """Writing into it changes nothing that comes later."""
    env, untouched = make_vec(spec, num_envs=3), make_vec(spec, num_envs=3)
    returned = [env.reset(seed=1)[0]]
    untouched.reset(seed=1)
    for action in actions(spec, "protagonist", 4, 3):
        for array in returned:
            array[...] = 0
        *returned, _ = env.step(action)
        *expected, _ = untouched.step(action)
        assert same(tuple(returned), tuple(expected))


# Libraries around it


@every_family
def test_specs_survive_json(spec):
    env = gymnasium.make(
        spec.id, seat="adversary", task="held_out:3", opponent=scripted(spec, "adversary")[-1], horizon=9
    )
    again = gymnasium.make(type(env.spec).from_json(env.spec.to_json()))
    assert same(env.reset(seed=2)[0], again.reset(seed=2)[0])
    assert again.unwrapped.horizon == 9
    assert again.unwrapped.get_task() == env.unwrapped.get_task()
    assert "TimeLimit" not in str(env)
    env = make_vec(spec, num_envs=2, task=["held_out:3", metaduel.sample_tasks(spec, 1)[0]], autoreset_mode="SameStep")
    assert json.loads(env.spec.to_json())["kwargs"]["autoreset_mode"] == "SameStep"


@every_mode
def test_episode_statistics_wrapper(mode):
    env = RecordEpisodeStatistics(make_vec(SPECS[0], num_envs=3, horizon=4, autoreset_mode=mode))
    plain = make_vec(SPECS[0], num_envs=3, horizon=4, autoreset_mode=mode)
    env.reset(seed=0)
    plain.reset(seed=0)
    total, episodes = np.zeros(3), 0
    for action in actions(SPECS[0], "protagonist", 13, 3):
        *_, infos = env.step(action)
        _, reward, terminated, truncated, _ = plain.step(action)
        total += reward
        done = terminated | truncated
        for row in np.flatnonzero(done):
            assert infos["episode"]["r"][row] == pytest.approx(total[row])
            assert infos["episode"]["l"][row] <= 4
        total[done] = 0
        episodes += done.sum()
        if mode is AutoresetMode.DISABLED and done.any():
            env.reset(options={"reset_mask": done})
            plain.reset(options={"reset_mask": done})
    assert episodes >= 6
    assert env.episode_count == episodes


def test_ppo_learns_and_is_evaluated():
    spec = SPECS[0]
    env = metaduel.make_sb3(spec.name, num_envs=8, horizon=10, seed=0)
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=64, n_epochs=1, seed=0, device="cpu").learn(256)
    assert len(model.ep_info_buffer) >= 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, _ = evaluate_policy(model, env, n_eval_episodes=8)
    assert np.isfinite(mean)
    assert env.env_method("get_task")[2] == env.env_method("get_task", indices=2)[0]
    env.env_method("set_task", "held_out:1")
    name = scripted(spec, "protagonist")[1]
    env.set_options({"opponent": name})
    env.reset()
    assert env.get_attr("opponent") == [name] * 8
    assert env.env_method("get_task") == [tasks.find_task(spec, "held_out:1")] * 8


def test_import_registers_twice_without_a_warning_and_without_torch():
    code = """
import sys, warnings
warnings.simplefilter("error")
import metaduel, importlib
importlib.reload(metaduel)
import gymnasium, pettingzoo
assert metaduel.games() and all(metaduel.opponents(game, role="protagonist", split="held_out") for game in metaduel.games())
metaduel.sample_tasks(metaduel.games()[0], 2, split="held_out")
assert sum(id.startswith("metaduel/") for id in gymnasium.registry) == len(metaduel.games())
assert "torch" not in sys.modules, "import metaduel imports torch"
assert "make_sb3" in dir(metaduel)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_make_imports_the_package_by_itself():
    code = f"import gymnasium; print(gymnasium.make('metaduel:{SPECS[0].id}').reset(seed=0)[1]['opponent'])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == scripted(SPECS[0], "protagonist")[0]


def test_public_names_exist():
    assert all(hasattr(metaduel, name) for name in metaduel.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        metaduel.nothing  # noqa: B018


# Compiled


@pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="torch.compile needs a C++ compiler"
)
def test_compiled_equals_eager_with_its_noise():
    """One step of one family with the dynamics' and a scripted player's noise in the graph; tolerance 1e-5.

    Whole episodes would tell how chaotic a game is, not whether the compiler is right.
    """
    spec = max(SPECS, key=lambda s: make_game(s).step_noise)
    duel = Duel(make_game(spec))
    name, player = max(opponents.scripted(spec, "adversary").items(), key=lambda item: item[1].noise)
    env = Seat(spec, 64, "protagonist", name)
    for row in range(64):
        env.reseed(row, row)
    env.reset()
    for action in actions(spec, "protagonist", 3, 64):
        env.step(torch.from_numpy(action), env.done)
    own = torch.from_numpy(actions(spec, "protagonist", 1, 64, seed=1)[0])
    other = torch.from_numpy(actions(spec, "adversary", 1, 64, seed=2)[0])

    def step(rows, own, other):
        numbers = noise.uniform(rows.key, rows.step, noise.SEAT[1], max(player.noise, 1))
        after, outcome = duel.step(rows, (own, other))
        return numbers, duel.observe(after), outcome

    eager, compiled = step(env.rows, own, other), torch.compile(step)(env.rows, own, other)
    assert torch.equal(eager[0], compiled[0])
    for first, second in zip(eager[1], compiled[1], strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)
    for first, second in zip(Transition(*eager[2]), Transition(*compiled[2]), strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


# Bad input


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"seat": "protagonits"}, "role 'protagonits'.*did you mean 'protagonist'"),
        ({"opponent": "nobody"}, "opponent.*'nobody'.*known: "),
        ({"opponent": 3}, "opponent=3"),
        ({"split": "heldout"}, "split 'heldout'.*did you mean 'held_out'"),
        ({"task": {"nothing": 1.0}}, "context.*'nothing'.*known: "),
        ({"task": "held_out:100"}, "SPLIT:INDEX.*below 100"),
        ({"task": ["held_out:1"]}, "one environment takes one task"),
        ({"horizon": 0}, "horizon=0"),
        ({"informed": "yes"}, "informed='yes'"),
        ({"render_mode": "ansi"}, "render_mode 'ansi'.*rgb_array"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*render_mode='ansi'")
def test_bad_arguments(kwargs, words):
    with pytest.raises(InvalidInputError, match=words) as caught:
        gymnasium.make(SPECS[0].id, **kwargs)
    assert "\n" not in str(caught.value)


@every_family
def test_bad_context_values(spec):
    env = gymnasium.make(spec.id)
    context = spec.contexts[0]
    for value in (float("nan"), "1", context.bounds[1] + 1):
        with pytest.raises(InvalidInputError, match=f"context {context.name}=.*must be"):
            env.reset(options={"task": {context.name: value}})


@every_family
def test_bad_actions(spec):
    for seat in ROLES:
        env = gymnasium.make(spec.id, seat=seat, disable_env_checker=True)
        rows = make_vec(spec, num_envs=3, seat=seat)
        with pytest.raises(ResetNeeded):
            rows.step(actions(spec, seat, 1, 3)[0])
        info = env.reset(seed=0)[1]
        rows.reset(seed=0)
        good = actions(spec, seat, 1, 3)[0]
        wrong = [good[:2], good[None], np.full_like(good, 99), "left"]
        wrong += [np.full(good.shape, np.nan), good.astype(float) + 0.5] if good.dtype.kind == "i" else []
        wrong += (
            [np.where(np.arange(good.size).reshape(good.shape) == 1, np.nan, good)] if good.dtype.kind == "f" else []
        )
        for value in wrong:
            with pytest.raises(InvalidInputError, match=f"{spec.id}: the {seat}'s action .* must"):
                rows.step(value)
        for value in (good, "left", np.full_like(good[0], 99), np.full(good[0].shape, np.nan)):
            with pytest.raises(InvalidInputError, match=f"{spec.id}: the {seat}'s action .* must"):
                env.step(value)
        env.step(only(good[0], info))  # none of that did any harm


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.turn_based], ids=lambda spec: spec.name)
def test_illegal_actions_of_a_turn_based_game(spec):
    """One environment names what is legal; a batch takes something legal instead, which leaves nothing to chance."""
    for seat in ROLES:
        env, rows = gymnasium.make(spec.id, seat=seat), make_vec(spec, num_envs=2, seat=seat)
        info = env.reset(seed=3)[1]
        rows.reset(seed=[3, 3])
        refused = 0
        for _ in range(spec.horizon):
            legal = np.flatnonzero(info["action_mask"])
            for action in set(range(spec.action_spaces[seat].n)) - set(legal.tolist()):
                words = " or ".join(rf"{a} \({spec.action_names[a]}\)" for a in legal)
                named = rf"action {action} \({spec.action_names[action]}\)"
                with pytest.raises(InvalidInputError, match=f"the {seat}'s {named} must be legal now: {words}$"):
                    env.step(action)
                refused += 1
            sampled = {int(env.action_space.sample()) for _ in range(60)}
            assert sampled == set(legal.tolist())
            _, _, *done, info = env.step(legal[0])
            rows.step(np.array([legal[0]] * 2))
            if any(done):
                break
        assert refused > 3
        illegal = 0 if seat == "protagonist" else 1
        reset = rows.reset(seed=[3, 3])[1]
        assert not reset["action_mask"][0, illegal]
        played = rows.step(np.array([illegal] * 2))
        assert same(played[0][0], played[0][1])


def test_bad_vector_arguments():
    spec = SPECS[0]
    cases = [
        ({"num_envs": 0}, "num_envs=0"),
        ({"num_envs": 2, "autoreset_mode": "nextstep"}, "autoreset_mode 'nextstep'.*did you mean 'NextStep'"),
        ({"num_envs": 2, "task": ["held_out:1"] * 3}, "task: a list of 3 .* 2 rows"),
        ({"num_envs": 2, "opponent": [None]}, "opponent: a list of 1 .* 2 rows"),
        ({"num_envs": 2, "render_mode": "human"}, "render_mode .*'human'"),
        ({"num_envs": 2, "horizon": 3, "max_episode_steps": 4}, "give one"),
    ]
    for kwargs, words in cases:
        with pytest.raises(InvalidInputError, match=words):
            make_vec(spec, **kwargs)
    env = SeatVectorEnv(spec.name, 3, autoreset_mode="Disabled", horizon=2)
    with pytest.raises(ResetNeeded, match="all rows"):
        env.reset(options={"reset_mask": np.array([True, False, False])})
    env.reset(seed=0)
    for mask in ([True] * 3, np.ones(2, bool), np.ones(3), np.zeros(3, bool)):
        with pytest.raises(InvalidInputError, match=r"reset_mask.* NumPy array of bool and shape \(3,\)"):
            env.reset(options={"reset_mask": mask})
    for seed in (-1, "0", [1, 2], [1, 2, -3], 1.5):
        with pytest.raises(InvalidInputError, match="seed"):
            env.reset(seed=seed)
    before = env.call("get_task")
    for options, words in [
        ({"tsk": {}}, "reset option 'tsk'.*did you mean 'task'"),
        ({"task": "held_out:1", "opponent": "x"}, "'x'"),
    ]:
        with pytest.raises(InvalidInputError, match=words):
            env.reset(options=options)
    assert env.call("get_task") == before
    while not (done := np.logical_or(*env.step(actions(spec, "protagonist", 1, 3)[0])[2:4])).any():
        pass
    with pytest.raises(ResetNeeded, match="rows"):
        env.step(actions(spec, "protagonist", 1, 3)[0])
    env.reset(options={"reset_mask": done})
    single = gymnasium.make(spec.id, horizon=1)
    single.reset(seed=0)
    single.step(actions(spec, "protagonist", 1, 1)[0][0])
    with pytest.raises(ResetNeeded, match="over"):
        single.step(actions(spec, "protagonist", 1, 1)[0][0])
    with pytest.raises(InvalidInputError, match="reset option 'reset_mask'"):
        single.reset(options={"reset_mask": done})
