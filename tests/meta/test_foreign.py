import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from mpe2 import simple_tag_v3
from pettingzoo import ParallelEnv
from pettingzoo.classic import connect_four_v3, rps_v2

from metaduel.agents.objective.config import LossConfig, log_probs
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.repeated_matrix_game import rock_paper_scissors_v0
from metaduel.meta.problems.duels import DuelProblem, Matches
from metaduel.meta.problems.foreign import ForeignProblem, describe
from metaduel.meta.runs.checkpoint import load_checkpoint
from metaduel.meta.runs.config import ForeignConfig
from metaduel.meta.runs.foreign import ForeignSource
from metaduel.meta.runs.load import load
from metaduel.meta.runs.train import train_meta_adversarial
from metaduel.meta.runs.trainer import LAST, TrainingStopped

ROLES = ("protagonist", "adversary")
TINY = {
    "tasks": 2, "episodes": 2, "iterations": 2, "steps": 1, "validation_tasks": 2, "validate_every": 2, "hidden": (4,),
    "quiet": True,
}  # fmt: skip
TAG = functools.partial(simple_tag_v3.parallel_env, num_good=1, num_adversaries=1, num_obstacles=0, max_cycles=6)
GAMES = {
    "tag": TAG,
    "tag, continuous": functools.partial(TAG, continuous_actions=True),
    "rock-paper-scissors": functools.partial(rps_v2.parallel_env, max_cycles=4),
}


class Guess(ParallelEnv):
    """The walker is paid for guessing the task's number (1, 2 or 3), the watcher for the walker's wrong guesses.

    The watcher leaves after ``number`` steps, the walker after five. Observations are a Dict; the tuple is the step.
    """

    metadata = {"name": "guess_v7"}  # noqa: RUF012

    def __init__(self, names=("walker", "watcher"), reward=1.0, **changed_spaces):
        self.possible_agents, self.agents = list(names), []
        self.number, self.reward, self.set = 1, reward, []
        self._rng = np.random.default_rng(0)
        self._buffer = np.zeros(2, np.float64)
        self._spaces = {
            "observation": spaces.Dict({"last": spaces.Discrete(4), "time": spaces.Box(-1, 9, (2,), np.float64)}),
            "action": spaces.Discrete(3),
        } | changed_spaces

    def observation_space(self, agent):
        return self._spaces["observation"]

    def action_space(self, agent):
        return self._spaces["action"]

    def sample_tasks(self, n):
        return [int(number) for number in self._rng.integers(1, 4, n)]

    def set_task(self, task):
        self.set.append(task)
        self.number = task

    def reset(self, seed=None, options=None):
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.agents, self.time, self.last = list(self.possible_agents), 0, 0
        return self._observe(), {agent: {} for agent in self.agents}

    def _observe(self):
        self._buffer[:] = self.time, -1  # the same memory every time, as many environments do
        return {agent: {"last": self.last, "time": self._buffer} for agent in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        assert all(self.action_space(a).contains(action) for a, action in actions.items())
        self.last, self.time = actions["walker"] + 1, self.time + 1
        right = self.last == self.number
        rewards = {"walker": self.reward * right, "watcher": self.reward * (not right)}
        rewards = {agent: rewards[agent] for agent in self.agents}
        ends = {"walker": self.time == 5, "watcher": self.time == self.number}
        ends = {agent: ends[agent] for agent in self.agents}
        self.agents = [agent for agent in self.agents if not ends[agent]]
        return self._observe(), rewards, ends, dict.fromkeys(ends, False), {agent: {} for agent in ends}


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("method", ["maml", "joint", "promp", "maml_trpo"])
def test_other_peoples_games_are_trained_on(name, method, tmp_path):
    run = train_meta_adversarial(GAMES[name], method, tmp_path / "run", **TINY)
    env = GAMES[name]()
    for role, agent in zip(ROLES, env.possible_agents, strict=True):
        player = run.agent(role)
        assert player.role == role
        assert player.action_space == env.action_space(agent)
        observation = spaces.flatten(env.observation_space(agent), env.observation_space(agent).sample())
        action, _ = player.predict(observation)
        assert env.action_space(agent).contains(action)
    last = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[-1].split(",")
    assert last[0] == "2.0"
    assert np.isfinite([float(value) for value in last]).all()
    again = load(tmp_path / "run", GAMES[name])
    assert again.config == run.config
    assert run.config.agents == tuple(env.possible_agents)
    for role in ROLES:
        assert again.iterations == {"protagonist": 2, "adversary": 2}
        for key, value in run.agent(role).weights.items():
            assert torch.equal(value, again.agent(role).weights[key])


def test_equals_the_batched_core_on_a_game_of_ours():
    """The same keys, policies and (noiseless) dynamics: both paths must see the same episodes and losses."""
    spec = find("RockPaperScissors")
    horizon, episodes, seed, loss = 3, 4, 11, LossConfig("dice")
    values = {"rock": 1.5, "paper": 0.75, "scissors": 1.0, "permutation": 2.0}, {"rock": 0.5, "permutation": 5.0}
    duel = Duel(make_game(spec), horizon)
    policies = {role: MLPPolicy(10, duel.action_space(role), hidden=(5,)) for role in ROLES}
    players = {
        role: {
            name: torch.stack([value, policy.init(7)[name]]).mul(3).requires_grad_()
            for name, value in policy.init(5 + i).items()
        }
        for i, (role, policy) in enumerate(policies.items())
    }
    rows = torch.stack(list(duel.game.params(values, torch.float64)), 1)
    core = DuelProblem(duel, policies, Matches(rows, duels=2), episodes, seed, loss)
    envs = [rock_paper_scissors_v0.parallel_env() for _ in values]
    foreign = ForeignProblem(envs, values, policies, episodes, seed, loss, horizon)
    for shot in (0, 1):
        ours, theirs = core.collect(players, shot), foreign.collect(players, shot)[0]
        for role in ROLES:
            for a, b in zip(ours[role][:4], theirs[role][:4], strict=True):
                assert torch.allclose(a, b, atol=1e-6)
        batches = core.draw(players, shot), foreign.draw(players, shot)
        assert [batch.environment_steps for batch in batches] == [2 * episodes * horizon] * 2
        for joint in (False, True):
            a, b = (batch.losses(players, joint).query for batch in batches)
            for role in ROLES:
                assert torch.allclose(a[role], b[role], atol=1e-5)
                slopes = [
                    torch.autograd.grad(
                        x[role].sum(), list(players[ROLES[0]].values()), retain_graph=True, allow_unused=True
                    )
                    for x in (a, b)
                ]
                for one, two in zip(*slopes, strict=True):
                    assert (one is None) == (two is None)
                    assert one is None or torch.allclose(one, two, atol=1e-5)


class Flat(Guess):
    """Sees the same float32 memory at every step, with the time in it."""

    def __init__(self):
        super().__init__(observation=spaces.Box(-1, 9, (2,), np.float32))
        self._buffer = np.zeros(2, np.float32)

    def _observe(self):
        self._buffer[:] = self.time, -1
        return dict.fromkeys(self.agents, self._buffer)


def problem(tasks, episodes=3, make=Guess, **settings):
    envs = [make() for _ in tasks]
    size = spaces.flatdim(envs[0].observation_space("walker"))
    policies = {role: MLPPolicy(size, spaces.Discrete(3), hidden=()) for role in ROLES}
    players = {
        role: {name: value.expand(len(tasks), *value.shape) for name, value in policy.init(i).items()}
        for i, (role, policy) in enumerate(policies.items())
    }
    return ForeignProblem(envs, tasks, policies, episodes, 3, LossConfig("plain"), **settings), players


def test_agents_that_leave_at_different_times():
    batch, players = problem([1, 3])
    data, steps = batch.collect(players, 0)
    walker, watcher = data["protagonist"], data["adversary"]
    assert walker.alive.shape == watcher.alive.shape == (2, 5, 3)
    assert walker.alive.sum(1).tolist() == [[5.0] * 3] * 2
    assert watcher.alive.sum(1).tolist() == [[1.0] * 3, [3.0] * 3]
    assert torch.equal(watcher.reward * watcher.alive, watcher.reward)
    guesses = walker.action + 1
    assert torch.equal(walker.reward, (guesses == torch.tensor([1, 3]).view(2, 1, 1)).float())
    wrong = (guesses != torch.tensor([1, 3]).view(2, 1, 1)).float()
    assert torch.equal(watcher.reward, wrong * watcher.alive)
    # Dict spaces are flattened by key: one-hot of the last guess, then (time, -1); time says that nothing was overwritten.
    assert torch.equal(walker.observation[..., 4], torch.arange(5.0).view(1, 5, 1).expand(2, 5, 3))
    assert torch.equal(walker.observation[:, 1:, :, :4].argmax(-1), guesses[:, :-1])
    assert steps == 2 * 3 * 5


def test_a_horizon_cuts_episodes_and_joint_losses_take_different_lengths():
    batch, players = problem([1, 3], horizon=2)
    assert batch.collect(players, 0)[0]["protagonist"].alive.shape == (2, 2, 3)
    leaves = {role: {n: v.clone().requires_grad_() for n, v in w.items()} for role, w in players.items()}
    losses = batch.draw(leaves, 0).losses(leaves, joint=True)
    slope = torch.autograd.grad(losses.query["protagonist"].sum(), leaves["adversary"]["layer0.bias"])[0]
    # By hand: the watcher's log-probabilities count while it was there, with the walker's advantages.
    data, _ = batch.collect(leaves, 0)
    advantage = LossConfig("plain").query_advantages(data["protagonist"]) * data["adversary"].alive
    expected = -log_probs(batch.policies["adversary"], leaves["adversary"], data["adversary"]) * advantage
    expected = expected.sum(1).mean(1).sum() / 2  # per step, per episode
    assert torch.allclose(slope, torch.autograd.grad(expected, leaves["adversary"]["layer0.bias"])[0], atol=1e-6)
    assert bool(slope.abs().sum() > 0)


def test_memory_that_an_environment_reuses_is_copied():
    batch, players = problem([3], make=Flat)
    data = batch.collect(players, 0)[0]["protagonist"]
    assert torch.equal(data.observation[0, :, 0, 0], torch.arange(5.0))


def test_an_endless_episode_is_an_error(monkeypatch):
    monkeypatch.setattr("metaduel.meta.problems.foreign.LIMIT", 4)
    batch, players = problem([1])
    with pytest.raises(InvalidInputError, match="set horizon"):
        batch.collect(players, 0)


def test_tasks_are_sampled_set_and_repeat():
    def source(seed):
        settings = ForeignConfig(**describe(Guess()), tasks=4, validation_tasks=3, episodes=2, hidden=(), seed=seed)
        return ForeignSource(Guess, settings)

    first, second = source(0), source(0)
    batches = [[s.problem(i)._tasks for i in (3, 4)] for s in (first, second)]
    assert batches[0] == batches[1]
    assert batches[0][0] != batches[0][1]
    batch = first.problem(3)
    weights = {role: policy.init(0) for role, policy in first.policies.items()}
    batch.collect({r: {n: v.expand(4, *v.shape) for n, v in w.items()} for r, w in weights.items()}, 0)
    assert [env.set[-1] for env in first._envs] == batch._tasks
    assert first._validation == source(1)._validation  # does not depend on the run's seed


def test_resumed_equals_unbroken(tmp_path):
    settings = TINY | {"validate_every": 1, "iterations": 3}
    train_meta_adversarial(Guess, folder=tmp_path / "unbroken", **settings)
    made: list[int] = []
    original = ForeignSource.problem

    def stop_at_2(self, iteration):
        made.append(iteration)
        if len(made) == 3:
            raise KeyboardInterrupt
        return original(self, iteration)

    settings["folder"] = tmp_path / "killed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForeignSource, "problem", stop_at_2)
        with pytest.raises(KeyboardInterrupt):
            train_meta_adversarial(Guess, **settings)
    train_meta_adversarial(Guess, resume=True, **settings)
    ours, theirs = (load_checkpoint(tmp_path / name / LAST)[0] for name in ("unbroken", "killed"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_it_learns_the_tasks_number(tmp_path):
    settings = TINY | {"tasks": 4, "episodes": 3, "iterations": 10, "validate_every": 10, "inner_lr": 2.0, "steps": 2}
    run = train_meta_adversarial(Guess, folder=tmp_path / "run", outer_lr=0.05, **settings)
    assert run.iterations["protagonist"] == 10
    text = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    row = dict(zip(text[0].split(","), text[-1].split(","), strict=True))
    assert float(row["protagonist/validation_return_2"]) > float(row["protagonist/validation_return_0"]) + 0.5


def test_agents_adapt_on_a_flattened_gymnasium_env(tmp_path):
    run = train_meta_adversarial(Guess, folder=tmp_path / "run", **TINY)

    class Seat(gym.Env):
        observation_space, action_space = Guess().observation_space("walker"), spaces.Discrete(3)

        def reset(self, seed=None, options=None):
            self.env = Guess()
            self.env.reset(seed)
            return self.env._observe()["walker"], {}

        def step(self, action):
            everyone = {"walker": int(action), "watcher": 0}
            out = self.env.step({agent: everyone[agent] for agent in self.env.agents})
            last = out[0].get("walker", {"last": 0, "time": np.zeros(2)})
            return last, out[1]["walker"], out[2]["walker"], False, {}

    adapted = run.protagonist.adapt(gym.wrappers.FlattenObservation(Seat()), shots=1, episodes=3)
    assert not torch.equal(adapted.weights["layer0.weight"], run.protagonist.weights["layer0.weight"])
    with pytest.raises(InvalidInputError, match="observation_space"):
        run.protagonist.adapt(Seat(), shots=1, episodes=3)


class Masked(ParallelEnv):
    """Two agents; which two of three actions are legal changes from step to step."""

    metadata = {"name": "masked_v0"}  # noqa: RUF012

    def __init__(self):
        self.possible_agents = ["one", "two"]
        self.agents, self.chosen = [], []

    def observation_space(self, agent):
        return spaces.Dict({"observation": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(3)})

    def action_space(self, agent):
        return spaces.Discrete(3)

    def _seen(self):
        self.legal = np.arange(3) != self.time % 3
        each = {"observation": np.zeros(2, np.float32), "action_mask": self.legal.astype(np.int8)}
        return dict.fromkeys(self.agents, each)

    def reset(self, seed=None, options=None):
        self.agents, self.time = list(self.possible_agents), 0
        return self._seen(), {agent: {} for agent in self.agents}

    def step(self, actions):
        assert all(self.legal[action] for action in actions.values())
        self.chosen += actions.values()
        self.time += 1
        over = self.time == 6
        reward = {"one": float(actions["one"] == actions["two"]), "two": float(actions["one"] != actions["two"])}
        seen, infos = self._seen(), {agent: {} for agent in self.agents}
        done = dict.fromkeys(self.agents, over)
        self.agents = [] if over else self.agents
        return seen, reward, dict.fromkeys(done, False), done, infos


def test_masked_actions_are_never_chosen(tmp_path):
    envs = []
    run = train_meta_adversarial(
        lambda: envs.append(Masked()) or envs[-1], folder=tmp_path / "run", quiet=True, iterations=2, tasks=2, episodes=8,
        steps=1, validation_tasks=2, hidden=(4,), normalise_observations=True,
    )  # fmt: skip
    assert len(set(envs[0].chosen + envs[1].chosen)) == 3  # the environment asserts that each was legal
    seen = spaces.flatten(Masked().observation_space("one"), {"observation": np.zeros(2), "action_mask": [0, 0, 1]})
    assert {int(run.protagonist.predict(seen)[0]) for _ in range(20)} == {2}


class Half(Guess):
    set_task = None


def with_mask_in_info():
    env = Guess()
    reset = env.reset
    env.reset = lambda seed=None: (reset(seed)[0], {"walker": {"action_mask": np.ones(3)}})
    return env


def late():
    env = Guess()
    reset = env.reset
    env.reset = lambda seed=None: ({"walker": reset(seed)[0]["walker"]}, {})
    return env


SEEN = spaces.Box(0, 1, (2,))
MASKED = spaces.Dict({"observation": SEEN, "action_mask": spaces.Box(0, 1, (4,), np.int8)})  # of three actions
REFUSED = {
    "three agents": (lambda: Guess(("a", "b", "c")), "3 agents"),
    "AEC": (connect_four_v3.env, "aec_to_parallel"),
    "no environment": (lambda: 3, "int"),
    "mask": (lambda: Guess(observation=MASKED), "must hold one number per action"),
    "mask in info": (with_mask_in_info, "action_mask"),
    "graph": (lambda: Guess(observation=spaces.Graph(spaces.Box(0, 1, (2,)), None)), "flattened"),
    "sequence": (lambda: Guess(observation=spaces.Sequence(spaces.Discrete(2))), "flattened"),
    "two-dimensional actions": (lambda: Guess(action=spaces.Box(-1, 1, (2, 2))), "one-dimensional"),
    "many actions": (lambda: Guess(action=spaces.MultiDiscrete([2, 2])), "one-dimensional"),
    "shifted actions": (lambda: Guess(action=spaces.Discrete(3, start=1)), "from 0"),
    "half a task interface": (Half, "set_task"),
    "late": (late, "not there"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name, tmp_path):
    factory, words = REFUSED[name]
    with pytest.raises(InvalidInputError, match=words) as error:
        train_meta_adversarial(factory, folder=tmp_path / "run", **TINY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("setting", [{"game": "Pursuit"}, {"fixed": {}}, {"agents": ("a", "b")}, {"tasks": "many"}])
def test_settings_of_families_are_refused(setting, tmp_path):
    with pytest.raises(InvalidInputError, match=next(iter(setting))):
        train_meta_adversarial(Guess, folder=tmp_path / "run", **TINY | setting)
    assert not (tmp_path / "run").exists()


def test_loading_needs_the_same_environments(tmp_path):
    folder = tmp_path / "run"
    train_meta_adversarial(Guess, folder=folder, **TINY)
    for factory, words in ((None, "guess_v7"), (TAG, "environment"), (lambda: Guess(("walker", "b")), "agents")):
        with pytest.raises(InvalidInputError, match=words):
            load(folder, factory)
    with pytest.raises(InvalidInputError, match="spaces"):
        load(folder, lambda: Guess(action=spaces.Discrete(4)))
    train_meta_adversarial("RockPaperScissors", folder=tmp_path / "family", horizon=2, **TINY)
    with pytest.raises(InvalidInputError, match="RockPaperScissors"):
        load(tmp_path / "family", Guess)


def test_nan_rewards_stop_training(tmp_path):
    with pytest.raises(TrainingStopped, match=r"iteration 1: .*reward"):
        train_meta_adversarial(lambda: Guess(reward=float("nan")), folder=tmp_path / "run", **TINY)
