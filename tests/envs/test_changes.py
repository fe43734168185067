"""What may change while an environment is in use: opponents, tasks and splits, from each row's next reset on; and that what is
refused changes nothing.
"""

import copy
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecVideoRecorder

import metaduel
from metaduel.envs.adapters.vector import SeatVectorEnv
from metaduel.envs.core import registry, tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES, other
from metaduel.envs.players.names import load_player
from metaduel.envs.players.scripted import scripted
from metaduel.meta.runs.config import TrainConfig

GAME = "Pursuit"
SPEC = registry.find(GAME)
IDLE = np.zeros(2, np.float32)
EVERY = list(registry.specs().values())


def single(**kwargs):
    return gymnasium.make(SPEC.id, horizon=3, **kwargs)


def vector(n=4, mode="SameStep", **kwargs):
    return SeatVectorEnv(GAME, n, horizon=3, autoreset_mode=mode, **kwargs)


def vec_env(n=4, **kwargs):
    return metaduel.make_sb3(GAME, n, horizon=3, seed=0, **kwargs)


def names_of(infos):
    return [info["opponent"] for info in infos]


# Changes hold from each row's next reset on


def test_an_opponent_set_in_a_callback_meets_every_later_episode():
    class Swap(BaseCallback):
        met: list[str]

        def _on_training_start(self):
            self.met = []

        def _on_step(self):
            for info, done in zip(self.locals["infos"], self.locals["dones"], strict=True):
                if done:
                    self.met.append(info["opponent"])
            if self.n_calls == 10:
                self.before = len(self.met)
                self.training_env.set_options({"opponent": "guard"})
                self.playing = self.training_env.get_attr("opponent")
            return True

    swap = Swap()
    model = PPO(
        "MlpPolicy", metaduel.make_sb3(GAME, 4, seed=0), n_steps=64, batch_size=256, n_epochs=1, seed=0, device="cpu"
    )
    model.learn(1_000, callback=swap)
    assert swap.playing == ["chase"] * 4  # not within an episode
    old, new = swap.met[: swap.before], swap.met[swap.before :]
    assert set(old) <= {"chase"}
    assert new.count("chase") <= 4  # the episodes that were being played
    assert new.count("guard") == len(new) - new.count("chase") > 12


@pytest.mark.parametrize("way", ["method", "env_method", "options"])
def test_rows_of_a_vec_env_change_with_their_next_episode(way):
    env = vec_env()
    env.reset()
    wanted = ["guard", "lead", "chase", "guard"]
    if way == "method":
        env.set_opponent(wanted)
        env.set_split(["train", "held_out", "validation", "train"])
        env.set_task([None, None, None, "held_out:4"])
    elif way == "env_method":
        for row, name in enumerate(wanted):
            env.env_method("set_opponent", name, indices=row)
        env.env_method("set_split", split="held_out", indices=[1])
        env.env_method("set_split", "validation", indices=[2])
        env.env_method("set_task", "held_out:4", indices=[3])
    else:
        options = [{"opponent": name} for name in wanted]
        options[1]["split"], options[2]["split"], options[3]["task"] = "held_out", "validation", "held_out:4"
        env.set_options(options)
    played = []
    for _ in range(7):
        played.append(names_of(env.step(np.stack([IDLE] * 4))[3]))
    assert played == [["chase"] * 4] * 3 + [wanted] * 4
    assert env.get_attr("opponent") == wanted
    assert env.get_attr("split")[1:3] == ["held_out", "validation"]
    now = env.env_method("get_task")
    assert now[1] in tasks.frozen_tasks(SPEC, "held_out")
    assert now[2] in tasks.frozen_tasks(SPEC, "validation")
    assert now[3] == tasks.find_task(SPEC, "held_out:4") == env.get_attr("task")[3]
    assert env.get_attr("task")[0] is None
    assert now[0] not in [task for split in ("held_out", "validation") for task in tasks.frozen_tasks(SPEC, split)]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_rows_of_a_vector_environment_change_with_their_next_episode(mode):
    env, plain = vector(mode=mode), vector(mode=mode)
    env.reset(seed=3)
    plain.reset(seed=3)
    env.set_opponent(["guard", "lead", "chase", "guard"])
    env.call("set_split", "held_out")
    for _ in range(3):
        ours, expected = env.step(np.stack([IDLE] * 4)), plain.step(np.stack([IDLE] * 4))
        if not ours[3].any():
            assert np.array_equal(ours[0], expected[0])
    assert ours[3].all()
    if mode == "NextStep":
        ours = env.step(np.stack([IDLE] * 4))
    infos = env.reset(options={"reset_mask": ours[3]})[1] if mode == "Disabled" else ours[-1]
    assert infos["opponent"].tolist() == ["guard", "lead", "chase", "guard"]
    assert all(task in tasks.frozen_tasks(SPEC, "held_out") for task in env.call("get_task"))
    assert env.get_attr("split") == ("held_out",) * 4


def test_a_row_that_changed_equals_an_environment_made_with_what_it_changed_to():
    env = vector(mode="Disabled", n=3)
    env.reset(seed=5)
    env.set_opponent([None, "guard", "lead"])
    env.set_split("validation")
    env.reset(seed=7)
    fresh = vector(mode="Disabled", n=3, opponent=[None, "guard", "lead"], split="validation")
    fresh.reset(seed=7)
    for _ in range(3):
        ours, expected = env.step(np.stack([IDLE] * 3)), fresh.step(np.stack([IDLE] * 3))
        assert np.array_equal(ours[0], expected[0])
        assert ours[-1]["task"].tolist() == expected[-1]["task"].tolist()


def test_a_single_environment_changes_with_its_next_episode():
    env = single()
    env.reset(seed=0)
    inner = env.unwrapped
    inner.set_opponent("guard")
    inner.set_split("held_out")
    assert env.step(IDLE)[-1]["opponent"] == inner.opponent == "chase"
    assert env.reset()[1]["opponent"] == inner.opponent == "guard"
    assert inner.get_task() in tasks.frozen_tasks(SPEC, "held_out")
    inner.set_opponent(None)
    assert env.reset(options={"split": "validation"})[1]["opponent"] == "chase"
    assert inner.get_task() in tasks.frozen_tasks(SPEC, "validation")
    assert inner.split == "validation"


def test_an_opponent_with_a_memory_comes_and_goes():
    """Rows keep their own opponent's memory while others change theirs."""

    def who(memory):
        return next(name for name, one in scripted(spec, "adversary").items() if bool(one.memory) is memory)

    spec = next(s for s in EVERY if {bool(one.memory) for one in scripted(s, "adversary").values()} == {True, False})
    forgets, remembers = who(False), who(True)
    env = SeatVectorEnv(spec, 3, horizon=6, opponent=[remembers, forgets, forgets], autoreset_mode="Disabled")
    alone = SeatVectorEnv(spec, 1, horizon=6, opponent=remembers, autoreset_mode="Disabled")
    env.reset(seed=[1, 2, 3])
    alone.reset(seed=1)
    for step in range(6):
        if step == 3:
            env.reset(
                options={"reset_mask": np.array([False, True, True]), "opponent": [remembers, remembers, forgets]}
            )
        action = np.stack([SPEC_ACTION(spec)] * 3)
        ours, expected = env.step(action), alone.step(action[:1])
        assert np.array_equal(ours[0][0], expected[0][0])


def SPEC_ACTION(spec):
    space = spec.action_spaces["protagonist"]
    return np.int64(0) if isinstance(space, gymnasium.spaces.Discrete) else np.zeros(space.shape, np.float32)


def test_sb3s_own_vectoriser_changes_opponents_by_env_method():
    env = make_vec_env(SPEC.id, 2, env_kwargs={"horizon": 3})
    env.reset()
    env.env_method("set_opponent", "guard", indices=[1])
    infos = [env.step(np.stack([IDLE] * 2))[3] for _ in range(4)]
    assert names_of(infos[2]) == ["chase", "chase"]
    assert names_of(infos[3]) == ["chase", "guard"]


# What has no effect is refused by name


@pytest.mark.parametrize("name", ["opponent", "task", "split", "horizon", "informed", "seat", "render_mode", "oponent"])
def test_attributes_without_effect_are_refused(name):
    env, rows, sb3 = single(), vector(), vec_env()
    gymnasiums_own = SyncVectorEnv([single])
    refusals = [
        lambda: setattr(env.unwrapped, name, "guard"),
        lambda: setattr(rows, name, "guard"),
        lambda: rows.set_attr(name, "guard"),
        lambda: sb3.set_attr(name, "guard"),
        lambda: sb3.set_attr(name, "guard", indices=[1]),
        lambda: setattr(sb3.unwrapped, name, "guard"),
    ]
    # Gymnasium sets what nothing has on the outermost wrapper, and refuses a render mode itself.
    if name not in ("oponent", "render_mode"):
        refusals += [
            lambda: env.set_wrapper_attr(name, "guard"),
            lambda: gymnasiums_own.set_attr(name, ["guard"]),
        ]
    for refused in refusals:
        with pytest.raises(InvalidInputError, match=f"{name}='guard' has no effect") as caught:
            refused()
        if name in ("opponent", "task", "split"):
            assert f"set_{name}" in str(caught.value)
    assert (rows.get_attr("opponent"), sb3.get_attr("opponent")) == (("chase",) * 4, ["chase"] * 4)


def test_options_without_effect_are_refused():
    env, rows, sb3 = single(), vector(), vec_env()
    for options in ({"oponent": "guard"}, {"horizon": 9}, {"reset_mask": None}):
        key = next(iter(options))
        for refused in (env.reset, rows.reset) if key != "reset_mask" else (env.reset,):
            with pytest.raises(InvalidInputError, match=f"option '{key}'"):
                refused(options=options)
        with pytest.raises(InvalidInputError, match=f"option '{key}'"):
            sb3.set_options(options)
    for refused in (env.reset, rows.reset):
        with pytest.raises(InvalidInputError, match="options="):
            refused(options=["guard"])
    for wrong in ("guard", [{}] * 3, [{}, {}, {}, "guard"]):
        with pytest.raises(InvalidInputError, match="options="):
            sb3.set_options(wrong)
    with pytest.raises(InvalidInputError, match="one environment takes one opponent"):
        sb3.env_method("set_opponent", ["guard"] * 4)
    with pytest.raises(InvalidInputError, match="one environment takes one opponent"):
        env.reset(options={"opponent": ["guard"]})
    with pytest.raises(AttributeError, match="set_horizon"):
        sb3.env_method("set_horizon", 9)


# A refused call changes nothing

BAD_RESETS = [
    {"seed": -1, "options": {"opponent": "guard", "task": "held_out:1", "split": "held_out"}},
    {"seed": "1", "options": {"opponent": "guard"}},
    {"seed": 1.5},
    {"seed": True},
    {"seed": 1 << 63},
    {"seed": 9, "options": {"opponent": "guard", "task": "held_out:1000"}},
    {"seed": 9, "options": {"opponent": "guard", "split": "heldout"}},
    {"seed": 9, "options": {"task": "held_out:1", "opponent": "nobody"}},
    {"seed": 9, "options": {"split": "held_out", "opponent": object()}},
    {"seed": 9, "options": {"opponent": "guard", "nothing": 1}},
    {"seed": 9, "options": 7},
]


def in_step(play, ours, untouched, refused):
    """Whether an environment plays on as one in which nothing was refused."""
    for _ in range(2):
        assert play(ours) == play(untouched)
    with pytest.raises(InvalidInputError) as caught:
        refused(ours)
    assert "\n" not in str(caught.value)
    for _ in range(5):
        assert play(ours) == play(untouched)


def play_single(env):
    observation, reward, terminated, truncated, info = env.step(IDLE)
    again = env.reset() if terminated or truncated else (observation, info)
    drawn = env.unwrapped.sample_tasks(1)
    return observation.tolist(), reward, again[0].tolist(), again[1], drawn, float(env.unwrapped.np_random.random())


@pytest.mark.parametrize("wrong", BAD_RESETS)
def test_a_refused_reset_changes_nothing(wrong):
    ours, untouched = single(), single()
    for env in (ours, untouched):
        env.reset(seed=4)
    in_step(play_single, ours, untouched, lambda env: env.reset(**wrong))


@pytest.mark.parametrize("wrong", [*BAD_RESETS, {"seed": [1, 2, 3]}, {"seed": [1, 2, 3, -4]}])
def test_a_refused_reset_of_rows_changes_nothing(wrong):
    def play(env):
        observation, *_, infos = env.step(np.stack([IDLE] * 4))
        now = (infos["task"].tolist(), infos["opponent"].tolist(), env.call("sample_tasks", 1), env.np_random.random())
        return (observation.tolist(), *now)

    ours, untouched = vector(), vector()
    for env in (ours, untouched):
        env.reset(seed=4)
    in_step(play, ours, untouched, lambda env: env.reset(**wrong))


def test_a_refused_first_reset_changes_nothing():
    env = vector()
    mask = np.array([True, False, False, False])
    with pytest.raises(gymnasium.error.ResetNeeded, match="all rows"):
        env.reset(seed=3, options={"reset_mask": mask, "opponent": "guard", "task": "held_out:1"})
    fresh = vector()
    assert env.reset(seed=1)[1]["opponent"].tolist() == fresh.reset(seed=1)[1]["opponent"].tolist()
    assert env.call("get_task") == fresh.call("get_task")


@pytest.mark.parametrize(
    "refused",
    [
        lambda env: env.set_options({"opponent": "guard", "task": "held_out:1000"}),
        lambda env: env.set_options([{"opponent": "guard"}] * 3 + [{"task": "held_out:1000"}]),
        lambda env: env.set_opponent(["guard", "guard", "guard", "nobody"]),
        lambda env: env.env_method("set_opponent", "nobody"),
        lambda env: env.set_task(["held_out:1"] * 3 + [{"nothing": 0.0}]),
        lambda env: env.set_split(["held_out", "held_out", "held_out", "elsewhere"]),
        lambda env: env.seed(-1),
        lambda env: env.seed("1"),
        lambda env: env.step(np.full((4, 2), np.nan)),
        lambda env: env.env_method("sample_tasks", 0),
    ],
)
def test_a_refused_change_of_a_vec_env_changes_nothing(refused):
    def play(env):
        observation, reward, done, infos = env.step(np.stack([IDLE] * 4))
        return observation.tolist(), reward.tolist(), done.tolist(), names_of(infos), env.env_method("sample_tasks", 1)

    ours, untouched = vec_env(), vec_env()
    for env in (ours, untouched):
        env.reset()
    in_step(play, ours, untouched, refused)
    assert ours.reset().tolist() == untouched.reset().tolist()


@pytest.mark.parametrize(
    "refused",
    [
        lambda env: env.unwrapped.set_opponent("nobody"),
        lambda env: env.unwrapped.set_opponent(["guard"]),
        lambda env: env.unwrapped.set_task("held_out:1000"),
        lambda env: env.unwrapped.set_split("elsewhere"),
        lambda env: env.unwrapped.sample_tasks(0),
        lambda env: env.unwrapped.sample_tasks(1, seed=-1),
        lambda env: env.unwrapped.step(np.full(2, 7.0)),
        lambda env: setattr(env.unwrapped, "opponent", "guard"),
    ],
)
def test_a_refused_change_changes_nothing(refused):
    ours, untouched = single(disable_env_checker=True), single(disable_env_checker=True)
    for env in (ours, untouched):
        env.reset(seed=4)
    in_step(play_single, ours, untouched, refused)


@pytest.mark.parametrize("number", [np.int64(6), np.int32(6), np.uint8(6)])
def test_seeds_of_numpy_are_seeds(number):
    assert np.array_equal(single().reset(seed=number)[0], single().reset(seed=6)[0])
    assert np.array_equal(vector().reset(seed=number)[0], vector().reset(seed=6)[0])
    assert np.array_equal(vector().reset(seed=np.arange(6, 10))[0], vector().reset(seed=[6, 7, 8, 9])[0])
    first, second = vec_env(), vec_env()
    first.seed(number)
    second.seed(6)
    assert np.array_equal(first.reset(), second.reset())
    env = single().unwrapped
    assert env.sample_tasks(2, seed=number) == env.sample_tasks(2, seed=6)


# Masks, clocks, frame rates


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.name)
def test_action_masks(spec):
    env, rows = gymnasium.make(spec.id).unwrapped, SeatVectorEnv(spec, 3)
    sb3 = metaduel.make_sb3(spec, 3)
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
        for refused in (env.action_masks, rows.action_masks, lambda: sb3.env_method("action_masks")):
            with pytest.raises(InvalidInputError, match="continuous"):
                refused()
        return
    for early in (env.action_masks, rows.action_masks, lambda: sb3.env_method("action_masks")):
        with pytest.raises(gymnasium.error.ResetNeeded, match="action_masks"):
            early()
    info, infos = env.reset(seed=3)[1], rows.reset(seed=3)[1]
    sb3.reset()
    n = int(env.action_space.n)
    expected = info.get("action_mask", np.ones(n)).astype(bool).tolist()
    masks = rows.action_masks()
    assert masks.dtype == np.bool_
    assert masks.shape == (3, n)
    assert env.action_masks().tolist() == masks[0].tolist() == expected
    assert masks.tolist() == infos.get("action_mask", np.ones((3, n))).astype(bool).tolist()
    assert np.stack(rows.call("action_masks")).tolist() == masks.tolist()
    assert np.stack(sb3.env_method("action_masks")).shape == sb3.action_masks().shape == (3, n)


def test_specs_tell_the_horizon_in_force():
    assert gymnasium.spec(SPEC.id).max_episode_steps is None  # or a TimeLimit would be wrapped
    env = gymnasium.make(SPEC.id)
    assert "TimeLimit" not in str(env)
    assert env.spec.max_episode_steps == env.unwrapped.spec.max_episode_steps == SPEC.horizon
    assert single().spec.max_episode_steps == 3
    assert (
        gymnasium.make_vec(SPEC.id, 2, vectorization_mode="vector_entry_point", horizon=7).spec.max_episode_steps == 7
    )
    timed = gymnasium.wrappers.TimeAwareObservation(single(), normalize_time=True)
    observation, _ = timed.reset(seed=0)
    assert observation[-1] == 0
    assert timed.step(IDLE)[0][-1] == pytest.approx(1 / 3)
    again = gymnasium.make(single().spec)
    again.reset(seed=0)
    assert [again.step(IDLE)[3] for _ in range(3)] == [False, False, True]
    copied = copy.deepcopy(env)
    assert copied.spec == env.spec


def test_videos_of_a_vec_env_run_at_the_games_rate(tmp_path):
    for name in ("KuhnPoker", "Navigation"):
        spec = registry.find(name)
        env = metaduel.make_sb3(name, 2)
        assert env.unwrapped.metadata["render_fps"] == spec.fps
    pytest.importorskip("pygame")
    env = metaduel.make_sb3("KuhnPoker", 1, render_mode="rgb_array")
    try:
        recorder = VecVideoRecorder(env, str(tmp_path), lambda step: False)
    except (ImportError, gymnasium.error.DependencyNotInstalled):
        pytest.skip("moviepy is not installed")
    assert recorder.frames_per_sec == registry.find("KuhnPoker").fps == 2


# Copies, pickles, players of other families


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.name)
def test_seats_with_any_scripted_opponent_are_pickled(spec):
    for seat in ROLES:
        names = [name for split in OPPONENT_SPLITS for name in spec.opponents[other(seat)][split]]
        names.append(f"{names[0]}(noise=0.2)")
        env = SeatVectorEnv(spec, len(names), seat, opponent=names)
        env.reset(seed=0)
        again = pickle.loads(pickle.dumps(env))
        twin = copy.deepcopy(env)
        action = np.stack([env.single_action_space.sample() for _ in names])
        expected = env.step(action)[0]
        assert np.array_equal(again.step(action)[0], expected)
        assert np.array_equal(twin.step(action)[0], expected)


def test_copies_of_a_vec_env_play_on_alike():
    env = vec_env(opponent=["guard", "lead", "chase", None])
    env.reset()
    env.env_method("set_opponent", "goalie", indices=[2])
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        mine = copy.deepcopy(env)
        for _ in range(7):
            ours, theirs = twin.step(np.stack([IDLE] * 4)), mine.step(np.stack([IDLE] * 4))
            assert np.array_equal(ours[0], theirs[0])
            assert names_of(ours[3]) == names_of(theirs[3])
        assert twin.get_attr("opponent") == ["guard", "lead", "goalie", "chase"]


class Steady:
    """A player of the core that does one thing."""

    memory = noise = 0

    def __init__(self, x):
        self.x = x

    def act(self, view, memory, noise):
        return torch.full_like(view.observation[:, :2], self.x), memory


def test_an_object_that_is_made_after_a_copy_is_not_taken_for_one_before():
    """Wherever it lies in memory: players are told apart by what they are, not by addresses that a copy brings along."""
    first = Steady(0.5)
    env = copy.deepcopy(SeatVectorEnv("Navigation", 2, opponent=first))
    env.reset(seed=0)
    inner = env._seat._opponents
    second = Steady(-0.5)
    env.set_opponent([inner._sitting[0].player, second])
    env.reset(seed=0)
    assert [group.player.x for group in inner._groups] == [0.5, -0.5]
    assert all(one.key == id(one.player) for one in inner._sitting)


def test_scripted_players_of_another_family_or_seat_are_refused():
    cycle = load_player(Duel(make_game(registry.find("RockPaperScissors"))), "adversary", "always_rock")
    with pytest.raises(
        InvalidInputError, match="always_rock plays metaduel/RockPaperScissors-v0, not metaduel/Matching"
    ):
        metaduel.make_sb3("MatchingPennies", 1, opponent=cycle)
    with pytest.raises(InvalidInputError, match="always_rock plays the adversary, not the protagonist"):
        metaduel.make_sb3("RockPaperScissors", 1, "adversary", opponent=cycle)
    noisy = load_player(Duel(make_game(registry.find("RockPaperScissors"))), "adversary", "always_rock(noise=0.2)")
    with pytest.raises(InvalidInputError, match="plays metaduel/RockPaperScissors-v0"):
        metaduel.make_sb3("MatchingPennies", 1, opponent=noisy)


def test_the_monitor_of_make_sb3_refuses_attributes_too():
    env = vec_env()
    with pytest.raises(InvalidInputError, match="opponent='guard' has no effect: call set_opponent"):
        env.opponent = "guard"
    with pytest.raises(InvalidInputError, match="oponent='guard' has no effect: nothing"):
        env.oponent = "guard"
    env.reset()
    for _ in range(4):
        infos = env.step(np.stack([IDLE] * 4))[3]
    assert env.episode_count == 4
    assert infos[0].get("episode") is None


@pytest.mark.parametrize("seed", [3.7, -1, "3", True, 1 << 63])
def test_seeds_are_whole_numbers_everywhere(seed):
    calls = (
        lambda: metaduel.sample_tasks(GAME, 2, seed=seed),
        lambda: metaduel.sample_opponents(GAME, 2, seed=seed),
        lambda: vec_env().seed(seed),
        lambda: single().unwrapped.sample_tasks(2, seed=seed),
    )
    for call in calls:
        with pytest.raises(InvalidInputError, match="seed="):
            call()


def test_whole_numbers_may_be_numpys():
    two, three = np.int64(2), np.int32(3)
    assert metaduel.sample_opponents(GAME, two, seed=three) == metaduel.sample_opponents(GAME, 2, seed=3)
    assert metaduel.sample_tasks(GAME, two, seed=three) == metaduel.sample_tasks(GAME, 2, seed=3)
    assert gymnasium.make(SPEC.id, horizon=three).unwrapped.horizon == 3
    assert SeatVectorEnv(GAME, two).num_envs == 2
    assert TrainConfig(game=GAME).override(seed=three, iterations=two, outer_lr=np.float32(0.5)).seed == 3
