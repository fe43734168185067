"""Silent faults in an evaluation of users' players: each is refused, or has the effect that it says."""

import random

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.vec_env import VecNormalize

import metaduel
from metaduel.agents.adapters.sb3 import SB3Adapter
from metaduel.agents.rollout import Seated
from metaduel.benchmarks.core.evaluate import EvaluationFailed, evaluate
from metaduel.benchmarks.core.scratch import Scratch
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find

SMALL = {"shots": 1, "episodes": 2, "test_episodes": 2, "task_count": 2, "baselines": False}
SPEC = find("Pursuit")


class Still:
    def begin(self, rows, seat):
        self.rows, self.seat = rows, seat

    def act(self, observation, previous_action, previous_reward, episode_start):
        if self.seat.mask is not None:
            return (observation[:, self.seat.mask] > 0).argmax(1)
        return np.zeros((self.rows, *self.seat.action_space.shape))


class Constant:
    """A player of the core, and an adapter around it, that always answers the same."""

    memory = noise = 0
    adapts = False

    def __init__(self, action):
        self.action = action

    def start(self, seat, rows, seed):
        return Seated(self, recorded=True)

    def act(self, view, memory, noise):
        return self.action(len(view.observation)), memory


def returns(entry, game="Pursuit", **settings):
    return evaluate(entry, game=game, roles="protagonist", **SMALL | settings)["return"]


@pytest.fixture(scope="module")
def remembering(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "rl2"
    small = {"tasks": 4, "episodes": 2, "hidden": (8,), "horizon": 20, "validation_tasks": 2}
    return metaduel.train_meta_adversarial("Pursuit", method="rl2", folder=folder, iterations=1, quiet=True, **small)


def test_actions_outside_the_space_are_cut_as_a_learners_are():
    game = "Navigation"  # which would take a longer step for what it is
    large, most = (returns(Constant(lambda n, size=size: torch.full((n, 2), size)), game) for size in (50.0, 1.0))
    np.testing.assert_array_equal(large, most)


@pytest.mark.parametrize(
    ("game", "action", "message"),
    [
        ("KuhnPoker", lambda n: torch.full((n,), -1), ".*shot 0: its action is -1, must be in 0 to 2"),
        ("KuhnPoker", lambda n: torch.full((n,), 3), ".*shot 0: its action is 3, must be in 0 to 2"),
        ("KuhnPoker", lambda n: torch.zeros(n), "shot 0: its actions are torch.float32"),
        (
            "Pursuit",
            lambda n: torch.full((n, 2), torch.nan),
            "task held_out:0, .*shot 0: its action is .*must be a number",
        ),
        ("Pursuit", lambda n: torch.zeros(n, 3), "shot 0: its actions are torch.float32 of shape"),
        ("Pursuit", lambda n: 1 / 0, "shot 0: its act raises ZeroDivisionError"),
    ],
)
def test_actions_of_adapters_and_of_opponents_are_checked(game, action, message):
    with pytest.raises(EvaluationFailed, match=f"entry odd, protagonist, {message}") as caught:
        returns({"fine": Still(), "odd": Constant(action)}, game)
    assert caught.value.table.values("method") == ["fine"]
    theirs = message.rpartition("its ")[2]
    with pytest.raises(EvaluationFailed, match=f"opponent Constant's {theirs}"):
        returns(Still(), game, opponents=[Constant(action)])


@pytest.mark.parametrize("method", ["begin", "end_of_shot"])
def test_a_learner_that_raises_is_named_and_finished_rows_are_kept(method):
    def broken(*arguments):
        raise RuntimeError("no accelerator")

    odd = type("Odd", (Still,), {method: broken})()
    shot = 0 if method == "begin" else 1
    message = rf"entry odd, protagonist, shot {shot}: its {method} raises RuntimeError: no accelerator \(test_faults.py"
    with pytest.raises(EvaluationFailed, match=message) as caught:
        returns({"fine": Still(), "odd": odd})
    assert caught.value.table.values("method") == ["fine"]


def test_what_an_agent_remembers_goes_with_it(remembering):
    import gymnasium as gym

    agent = remembering.protagonist
    env = gym.make("metaduel/Pursuit-v0", seat="protagonist", opponent="guard", task="held_out:0", horizon=20)
    adapted = agent.adapt(env, shots=1, episodes=2)
    rows = [returns(one, shots=0, opponents=["guard"]) for one in (agent, adapted)]
    assert not np.array_equal(*rows)
    again = adapted.adapt(env, shots=1, episodes=2)
    assert not torch.equal(again.carry.memory, adapted.carry.memory)


def test_opponents_must_fit_their_seat(remembering):
    with pytest.raises(InvalidInputError, match="as the protagonist of metaduel/Pursuit-v0, this is the adv"):
        returns(Still(), opponents=[remembering.protagonist])
    other = PPO("MlpPolicy", metaduel.make_sb3("Sumo"), n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(InvalidInputError, match="PPO: its observation space is Box of shape"):
        returns(Still(), opponents=[other])


def test_schedules_of_a_model_stay_where_training_left_them():
    env = metaduel.make_sb3("RockPaperScissors", horizon=10)
    model = DQN("MlpPolicy", env, learning_starts=0, exploration_final_eps=0.05, seed=0, device="cpu").learn(200)
    assert model.exploration_rate == pytest.approx(0.05)
    seen = []

    class Watched(SB3Adapter):
        def update(self, player, experience):
            after = super().update(player, experience)
            seen.extend(one.exploration_rate for one in after.rows.models)
            return after

    returns(Watched(model), "RockPaperScissors", opponents=["random"])
    assert seen
    assert seen == pytest.approx([0.05] * len(seen))


def test_models_that_would_learn_nothing_or_see_other_numbers_are_refused():
    env = metaduel.make_sb3("Pursuit", horizon=12)
    with pytest.raises(EvaluationFailed, match="shot 1: its learn made no update in a shot of 2 episodes"):
        returns(SAC("MlpPolicy", env, learning_starts=10_000, device="cpu"), opponents=["guard"], task_count=1)
    scaled = PPO("MlpPolicy", VecNormalize(env), n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(InvalidInputError, match="cannot play the protagonist: its model was trained with VecNormalize"):
        returns(scaled)
    with pytest.raises(EvaluationFailed, match="shot 0: its model was trained with VecNormalize"):
        returns(SB3Adapter(scaled))
    with pytest.raises(InvalidInputError, match="VecNormalize"):
        returns(Still(), opponents=[scaled])


def test_trusted_files_touch_no_global_generator(tmp_path):
    path = tmp_path / "model.zip"
    PPO("MlpPolicy", metaduel.make_sb3("Pursuit"), n_steps=8, batch_size=8, seed=7, device="cpu").save(path)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    returns(f"{path}?trust=PPO", task_count=1, opponents=["guard"])
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    for text, message in (
        (f"{path}?trust=PPO&sample=1", "sample has no effect beside trust"),
        (f"{path}?trust=common", "unknown algorithm in trust"),
        (f"{tmp_path / 'none.zip'}?trust=PPO", "PPO.load failed"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            returns(text)


def test_illegal_actions_are_refused():
    class Legal(Still):
        told = []  # noqa: RUF012 - copies write here, too

        def act(self, observation, previous_action, previous_reward, episode_start):
            legal = observation[:, self.seat.mask] > 0
            self.told.append(previous_action.copy())
            return legal.argmax(1)

    returns(Legal(), "KuhnPoker")
    assert Legal.told
    illegal = type("Last", (Still,), {"act": lambda self, o, a, r, s: np.full(len(o), 2)})()
    with pytest.raises(EvaluationFailed, match=r"task held_out:\d, .*shot 0: its action 2 must be legal now: one of"):
        returns(illegal, "KuhnPoker")


def test_a_learner_that_changes_its_space_changes_its_own_alone():
    class Narrow(Still):
        def begin(self, rows, seat):
            super().begin(rows, seat)
            seat.action_space.high[:] = 0.01

    def full(self, observation, *_):
        return np.ones((self.rows, 2))

    wide = type("Wide", (Still,), {"act": full})
    alone = returns(wide())
    table = evaluate({"narrow": Narrow(), "wide": wide()}, game="Pursuit", roles="protagonist", **SMALL)
    np.testing.assert_array_equal(table.filter(method="wide")["return"], alone)


def test_seeds_of_one_learner_are_seeds():
    class Random(Still):
        def begin(self, rows, seat):
            super().begin(rows, seat)
            self.rng = np.random.default_rng(seat.seed)

        def act(self, *_):
            return self.rng.normal(size=(self.rows, 2))

    table = evaluate({"mine": [Random(), Random()]}, game="Pursuit", roles="protagonist", **SMALL)
    first, second = (table.filter(seed=seed)["return"] for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("entries", "settings", "message"),
    [
        (Still(), {"crossed": True}, "crossed has no effect without a run"),
        (Still(), {"ppo": Scratch(1, 1)}, "ppo has no effect without a run"),
        ({"random start": Still()}, {}, "is that of a baseline"),
        ({"SB3 PPO from scratch": Still()}, {}, "is that of a baseline"),
        ({"scripted: flee": Still()}, {}, "is that of a baseline"),
        (Still, {}, r"give Still\(\), an object of it"),
    ],
)
def test_what_has_no_effect_is_refused(entries, settings, message):
    with pytest.raises(InvalidInputError, match=message):
        returns(entries, **settings)


def test_adapting_and_fixed_entries_stand_in_one_report(tmp_path):
    evaluate(
        {"mine": Still(), "other": Still(), "script": "flee"},
        game="Pursuit",
        roles="protagonist",
        out=tmp_path,
        **SMALL,
    )
    text = (tmp_path / "report.md").read_text()
    assert "- Protocol: 1 shots of 2 episodes, 2 test episodes for each of 2 tasks and each opponent" in text
    assert "mine, shot 1 − mine, shot 0" in text
    assert "mine − other, shot 1" in text
    assert "- script: flee" in text
    assert ".Still\n" in text  # the learner's class, and not its address
