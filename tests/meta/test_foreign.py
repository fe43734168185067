import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from mpe2 import simple_tag_v3
from pettingzoo import ParallelEnv
from pettingzoo.classic import connect_four_v3, rps_v2

from metaduel.agents.adapters.arena import GameArena
from metaduel.agents.adapters.protocol import ShotOver
from metaduel.agents.objective.config import LossConfig, log_probs
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.rollout import Learner, Seated
from metaduel.envs.adapters.parallel import EnvironmentPlayer, ParallelSimulator, as_player, describe
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import other
from metaduel.envs.core.tasks import frozen_tasks, task_rows
from metaduel.envs.repeated_matrix_game import rock_paper_scissors_v0
from metaduel.meta.adaptation.few_shot import adapt_and_test
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.runs.checkpoint import load_checkpoint, read_config
from metaduel.meta.runs.config import ForeignConfig
from metaduel.meta.runs.foreign import ForeignSource
from metaduel.meta.runs.load import load
from metaduel.meta.runs.players import initial_weights
from metaduel.meta.runs.train import TaskList, train_meta_adversarial
from metaduel.meta.runs.trainer import LAST, TrainingStopped

ROLES = ("protagonist", "adversary")
TINY = {
    "tasks": 2, "episodes": 2, "iterations": 2, "steps": 1, "validation_tasks": 2, "validate_every": 2, "hidden": (4,),
    "horizon": 6, "quiet": True,
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


class Seat(gym.Env):
    """The walker's seat, as a Gymnasium environment."""

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
    core = DuelProblem(duel, policies, Matchups(rows, duels=2), episodes, seed, loss)
    simulator = ParallelSimulator(rock_paper_scissors_v0.parallel_env, horizon).with_tasks(values)
    foreign = DuelProblem(simulator, policies, Matchups(simulator.task_rows, duels=2), episodes, seed, loss)
    for shot in (0, 1):
        ours, theirs = core.collect(players, shot), foreign.collect(players, shot)
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


def problem(tasks, episodes=3, make=Guess, horizon=0):
    simulator = ParallelSimulator(make, horizon).with_tasks(tasks)
    size = simulator.observation_space("protagonist").shape[0]
    policies = {role: MLPPolicy(size, spaces.Discrete(3), hidden=()) for role in ROLES}
    players = {
        role: {name: value.expand(len(tasks), *value.shape) for name, value in policy.init(i).items()}
        for i, (role, policy) in enumerate(policies.items())
    }
    matchups = Matchups(simulator.task_rows, duels=len(tasks))
    return DuelProblem(simulator, policies, matchups, episodes, 3, LossConfig("plain")), players


def test_agents_that_leave_at_different_times():
    batch, players = problem([1, 3])
    drawn = batch.draw(players, 0)
    data = drawn.data
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
    assert drawn.environment_steps == 2 * 3 * 5
    # The same if the adversary is the agent that stays.
    batch, players = problem([2, 3], make=lambda: Guess(("watcher", "walker")))
    drawn = batch.draw(players, 0)
    assert drawn.data["protagonist"].alive.sum(1).tolist() == [[2.0] * 3, [3.0] * 3]
    assert drawn.environment_steps == 2 * 3 * 5
    assert len(batch.duel._envs) == 2  # whatever the number of episodes


def test_a_horizon_cuts_episodes_and_joint_losses_take_different_lengths():
    batch, players = problem([1, 3], horizon=2)
    assert batch.collect(players, 0)["protagonist"].alive.shape == (2, 2, 3)
    leaves = {role: {n: v.clone().requires_grad_() for n, v in w.items()} for role, w in players.items()}
    losses = batch.draw(leaves, 0).losses(leaves, joint=True)
    slope = torch.autograd.grad(losses.query["protagonist"].sum(), leaves["adversary"]["layer0.bias"])[0]
    # By hand: the watcher's log-probabilities count while it was there, with the walker's advantages.
    data = batch.collect(leaves, 0)
    advantage = LossConfig("plain").query_advantages(data["protagonist"]) * data["adversary"].alive
    expected = -log_probs(batch.policies["adversary"], leaves["adversary"], data["adversary"]) * advantage
    expected = expected.sum(1).mean(1).sum() / 2  # per step, per episode
    assert torch.allclose(slope, torch.autograd.grad(expected, leaves["adversary"]["layer0.bias"])[0], atol=1e-6)
    assert bool(slope.abs().sum() > 0)


def test_memory_that_an_environment_reuses_is_copied():
    batch, players = problem([3], make=Flat)
    data = batch.collect(players, 0)["protagonist"]
    assert torch.equal(data.observation[0, :, 0, 0], torch.arange(5.0))


def test_an_endless_episode_is_an_error(monkeypatch):
    monkeypatch.setattr("metaduel.envs.adapters.parallel.LIMIT", 4)
    batch, players = problem([1])
    with pytest.raises(InvalidInputError, match="set horizon"):
        batch.collect(players, 0)


def test_training_needs_a_horizon_and_so_does_adapting(tmp_path):
    without = {name: value for name, value in TINY.items() if name != "horizon"}
    with pytest.raises(InvalidInputError, match="horizon=0: give the most steps that an episode of guess_v7 can have"):
        train_meta_adversarial(Guess, folder=tmp_path / "none", **without)
    assert not (tmp_path / "none").exists()
    run = train_meta_adversarial(Guess, folder=tmp_path / "run", **TINY)
    assert run.protagonist.horizon == TINY["horizon"]
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("horizon: 6", "horizon: 0"))  # as runs were that needed none
    old = load(tmp_path / "run", Guess).protagonist
    assert Guess().action_space("walker").contains(old.predict(np.zeros(old.policy.observation_size))[0])
    with pytest.raises(InvalidInputError, match="trained without a horizon"):
        old.adapt(gym.wrappers.FlattenObservation(Seat()), shots=1, episodes=3)


def test_tasks_are_sampled_set_and_repeat():
    def source(seed):
        settings = ForeignConfig(
            **describe(Guess()), tasks=4, validation_tasks=3, episodes=2, hidden=(), seed=seed, horizon=5
        )
        return ForeignSource(Guess, settings)

    first, second = source(0), source(0)
    batches = [[s.problem(i).duel.tasks for i in (3, 4)] for s in (first, second)]
    assert batches[0] == batches[1]
    assert batches[0][0] != batches[0][1]
    batch = first.problem(3)
    weights = {role: policy.init(0) for role, policy in first.policies.items()}
    batch.collect({r: {n: v.expand(4, *v.shape) for n, v in w.items()} for r, w in weights.items()}, 0)
    assert [env.set[-1] for env in batch.duel._envs] == batch.duel.tasks
    assert first._validation.tasks == source(1)._validation.tasks  # does not depend on the run's seed


MEMORIES = [{"network": "gru"}, {"network": "lstm"}, {"method": "rl2"}, {"method": "latent"}]


@pytest.mark.parametrize("kind", [{}, *MEMORIES], ids=str)
def test_resumed_equals_unbroken(kind, tmp_path):
    settings = TINY | {"validate_every": 1, "iterations": 3} | kind
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
    adapted = run.protagonist.adapt(gym.wrappers.FlattenObservation(Seat()), shots=1, episodes=3)
    assert not torch.equal(adapted.weights["layer0.weight"], run.protagonist.weights["layer0.weight"])
    with pytest.raises(InvalidInputError, match="observation space is Box of shape"):
        run.protagonist.adapt(Seat(), shots=1, episodes=3)


class Still:
    """A player of the core that always does the first thing, or nothing."""

    memory = noise = 0

    def __init__(self, space):
        self.space = space

    def act(self, view, memory, noise):
        discrete = isinstance(self.space, spaces.Discrete)
        return torch.zeros(len(view.observation), *self.space.shape, dtype=torch.int64 if discrete else None), memory


class Point(Guess):
    """Guesses by pointing at a number."""

    def __init__(self):
        super().__init__(action=spaces.Box(-1, 1, (1,), np.float64))

    def step(self, actions):
        assert all(self.action_space(a).contains(action) for a, action in actions.items())
        self._spaces["action"] = spaces.Discrete(3)
        try:
            return super().step({agent: np.digitize(action[0], (-0.3, 0.3)) for agent, action in actions.items()})
        finally:
            self._spaces["action"] = spaces.Box(-1, 1, (1,), np.float64)


@pytest.mark.parametrize("kind", MEMORIES, ids=str)
@pytest.mark.parametrize("make", [Point, GAMES["rock-paper-scissors"]], ids=["continuous", "discrete"])
def test_networks_with_a_memory_train_and_adapt(kind, make, tmp_path):
    run = train_meta_adversarial(make, folder=tmp_path / "run", **TINY | kind)
    start = initial_weights({role: run.agent(role).policy for role in ROLES}, run.config.seed)
    for role in ROLES:
        agent = run.agent(role)
        assert any(not torch.equal(value, start[role][key]) for key, value in agent.weights.items())
        opponent = Still(run.simulator.action_space(other(role)))
        simulator = run.simulator.with_tasks([3]) if make is Point else run.simulator
        arena = GameArena(simulator, role, simulator.task_rows, [opponent], 2, 5)
        before = agent.adapter.start(arena.seat, arena.rows, 0)
        after = agent.adapter.update(before, arena.shot(0))
        first, again, then = (arena.test(player) for player in (before, before, after))
        assert torch.equal(first.returns, again.returns)
        assert then.returns.shape == (1, 2)
        if kind.get("method") in ("rl2", "latent"):
            assert not torch.equal(after.carry.memory, before.carry.memory)
        else:
            assert not torch.equal(after.weights["memory.weight"], before.weights["memory.weight"])


def test_a_memory_hears_of_every_episode_while_it_takes_part():
    """The watcher leaves after as many steps as the task's number; its memory stands still from then on."""
    simulator = ParallelSimulator(Guess).with_tasks([1, 3])
    policy = MemoryPolicy(6, spaces.Discrete(3), units=5)
    generator = torch.Generator().manual_seed(0)
    weights = {k: torch.randn(1, *w.shape, generator=generator) for k, w in policy.init(0).items()}
    arena = GameArena(simulator, "adversary", simulator.task_rows, [Still(spaces.Discrete(3))], 2, 7)
    player = Learner(policy, weights, carry=policy.initial_carry(weights, 2))
    episodes = []
    for one in arena.shot(0).one_by_one():
        episodes.append(one.play(player))
        player = Learner(policy, weights, carry=episodes[-1].carry)
    assert [data.alive.sum(1).tolist() for data in episodes] == [[[1.0, 3.0]]] * 2
    for data in episodes:
        assert data.other.shape == (1, 5, 2)
        assert torch.equal(data.observation[0, :, 0, 4:6], torch.tensor([[0.0, -1.0]] + [[0.0, 0.0]] * 4))
    # The memory after both episodes is that of the steps that were played, each episode closed once.
    prepared = policy.prepare(weights)
    played = policy.played(episodes)
    hidden = policy.over_chain(prepared, played)
    last = [int(((played.task == task) & played.last).nonzero()[-1]) for task in (0, 1)]
    assert played.place[last].tolist() == [2, 6]  # 1 + 1 steps and 3 + 3, with an end between
    closed = policy._close(prepared, policy._last(episodes[1]), hidden[:, last])
    torch.testing.assert_close(episodes[1].carry.memory, closed)


class Clock:
    """A player of the environment's own observations: acts by the time in them."""

    def __init__(self, shift=0):
        self.seen, self.shift = [], shift

    def act(self, observation):
        self.seen.append(observation)
        return (int(observation["time"][0]) + self.shift) % 3


def test_scripted_players_of_the_environments_own_observations():
    simulator = ParallelSimulator(Guess).with_tasks([2, 3])
    script = Clock()
    player = as_player(simulator, "protagonist", script)
    assert (player.name, player.memory, player.noise) == ("Clock", 0, 0)
    arena = GameArena(simulator, "adversary", simulator.task_rows, [player], 2, 0)
    policy = MLPPolicy(6, spaces.Discrete(3), ())
    weights = {name: value.unsqueeze(0) for name, value in policy.init(0).items()}
    data = arena.test(Learner(policy, weights))
    assert all(simulator.own_space("protagonist").contains(seen) for seen in script.seen)
    assert len(script.seen) == 2 * 2 * 5  # the walker plays on when the watcher has left
    # It guesses 1, 2, 3, 1, 2; the watcher is paid for wrong guesses while it is there.
    reward = data.reward.view(5, 2, 2)
    assert reward[:, 0].tolist() == [[1.0] * 2, [0.0] * 2, *[[0.0] * 2] * 3]
    assert reward[:, 1].tolist() == [[1.0] * 2, [1.0] * 2, *[[0.0] * 2] * 3]
    core = Still(spaces.Discrete(3))
    assert as_player(simulator, "protagonist", core) is core
    for bad, words in ((object(), "must be an object with act"), (Guess(), "must be an object with act")):
        with pytest.raises(InvalidInputError, match=words):
            as_player(simulator, "protagonist", bad)


@pytest.mark.parametrize("action", [3, -1, 1.0, [0], "left", None])
def test_a_scripted_players_bad_action_is_refused(action):
    simulator = ParallelSimulator(Guess).with_tasks([2])

    class Wrong:
        def act(self, observation):
            return action

    arena = GameArena(simulator, "adversary", simulator.task_rows, [as_player(simulator, "protagonist", Wrong())], 1, 0)
    with pytest.raises(InvalidInputError, match=r"Wrong gives the action .* must be in Discrete") as error:
        arena.test(Seated(Still(spaces.Discrete(3)), recorded=True))
    assert "\n" not in str(error.value)


def test_training_against_scripted_players(tmp_path):
    class Named(Clock):
        name = "late"

    scripts = Clock(), Named(1)
    opponents = {"adversary": list(scripts)}
    settings = TINY | {"tasks": 4, "learned_share": 0.25, "opponents": opponents}
    run = train_meta_adversarial(Guess, folder=tmp_path / "run", **settings)
    assert read_config(tmp_path / "run")["scripted"] == {"adversary": ["Clock", "late"]}
    assert all(script.seen for script in scripts)
    text = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    row = dict(zip(text[0].split(","), text[-1].split(","), strict=True))
    assert {name: float(row[name]) for name in row if "share" in name} == {
        "protagonist/share_learned": 1.0, "protagonist/share_scripted": 0.0,
        "adversary/share_learned": 0.25, "adversary/share_scripted": 0.75,
    }  # fmt: skip
    # Validation by hand: against the scripts, on the environment's own tasks.
    agent, simulator = run.adversary, ForeignSource(Guess, run.config, opponents=opponents)._validation
    found = adapt_and_test(
        simulator, agent.adapter, "adversary", simulator.task_rows, [as_player(simulator, ROLES[0], s) for s in scripts],
        shots=1, episodes=2, test_episodes=2, adapt_seed=derive_seed(0, Purpose.VALIDATION_ADAPT),
        test_seed=derive_seed(0, Purpose.VALIDATION_TEST),
    )  # fmt: skip
    assert found.returns.shape == (2, 2, 2, 2)
    mean = found.returns.mean((1, 2, 3)).tolist()
    assert [float(row[f"adversary/validation_return_{shot}"]) for shot in (0, 1)] == mean
    with pytest.raises(InvalidInputError, match="scripted"):  # resumed with other opponents
        train_meta_adversarial(
            Guess, folder=tmp_path / "run", resume=True, **settings | {"opponents": {"adversary": [Clock()]}}
        )


def test_one_role_learns_alone(tmp_path):
    settings = TINY | {"roles": ("protagonist",), "opponents": {"protagonist": [Clock()]}}
    run = train_meta_adversarial(Guess, folder=tmp_path / "run", **settings)
    assert list(run.agents) == ["protagonist"]
    assert load(tmp_path / "run", Guess).iterations == {"protagonist": 2}


def test_a_game_without_tasks_meets_scripted_players(tmp_path):
    opponents = {role: [Still(spaces.Discrete(3))] for role in ROLES}
    settings = TINY | {"tasks": 3, "opponents": opponents, "learned_share": 0.3}
    run = train_meta_adversarial(GAMES["rock-paper-scissors"], folder=tmp_path / "run", **settings)
    problem = ForeignSource(GAMES["rock-paper-scissors"], run.config, opponents=opponents).problem(0)
    assert problem.tasks == {"protagonist": 3, "adversary": 3}
    assert (problem.matchups.first, problem.duels, problem.matchups.last) == (2, 1, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learned_share": 0.5}, "learned_share=0.5 has no effect"),
        ({"learned_share": 1.5, "opponents": {"protagonist": [Clock()]}}, r"must be in \[0, 1\]"),
        ({"roles": ("protagonist",)}, "the protagonist meets no player"),
        ({"roles": ()}, "roles="),
        ({"roles": ("protagonist",), "opponents": {"adversary": [Clock()]}}, "opponents.'adversary'"),
        ({"roles": ("adversary",), "learned_share": 0.5, "opponents": {"adversary": [Clock()]}}, "has no effect"),
        ({"learned_share": 0.0, "opponents": {"adversary": [Clock()]}}, "the protagonist meets no player"),
        ({"opponents": {"watcher": [Clock()]}}, "opponents.'watcher'"),
        ({"opponents": {"adversary": []}}, "is empty"),
        ({"opponents": {"adversary": "rusher"}}, "must be an object with act"),
        ({"opponents": {"adversary": ["rusher"]}}, "must be an object with act"),
        ({"scripted": {}}, "scripted="),
        ({"method": "self_play", "learned_share": 0.0, "opponents": {r: [Clock()] for r in ROLES}}, "self_play needs"),
        (
            {"method": "meta_mapg", "learned_share": 0.0, "opponents": {r: [Clock()] for r in ROLES}},
            "no opponent learns",
        ),
    ],
)
def test_opponents_that_cannot_be_met_are_refused(settings, words, tmp_path):
    with pytest.raises(InvalidInputError, match=words) as error:
        train_meta_adversarial(Guess, folder=tmp_path / "run", **TINY | settings)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_lists_of_tasks(tmp_path):
    tasks = TaskList(Guess, tasks=[1, 2], validation=[3, 3, 2])
    settings = {name: value for name, value in TINY.items() if name != "validation_tasks"} | {"tasks": 8}
    run = train_meta_adversarial(tasks, folder=tmp_path / "run", **settings)
    config = read_config(tmp_path / "run")
    assert (config["task_list"], config["validation_list"], config["validation_tasks"]) == ([1, 2], [3, 3, 2], 3)
    assert load(tmp_path / "run", Guess).config == run.config
    source = ForeignSource(Guess, run.config, tasks=tasks.tasks, validation=tasks.validation)
    assert source._validation.tasks == [3, 3, 2]
    drawn = [source.problem(i).matchups.tasks.flatten().tolist() for i in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert set(drawn[0]) == {0.0, 1.0}
    train_meta_adversarial(tasks, folder=tmp_path / "run", resume=True, **settings)
    with pytest.raises(InvalidInputError, match="task_list"):
        train_meta_adversarial(TaskList(Guess, [1], [3, 3, 2]), folder=tmp_path / "run", resume=True, **settings)


class Taking(Guess):
    """Takes tasks, and makes none."""

    sample_tasks = None

    def set_task(self, task):
        super().set_task(next(iter(task)))


def test_tasks_of_any_kind_for_an_environment_that_makes_none(tmp_path):
    settings = {name: value for name, value in TINY.items() if name != "validation_tasks"}
    tasks = TaskList(Taking, [{1}, {2}], [{3}])  # sets are no plain values
    run = train_meta_adversarial(tasks, folder=tmp_path / "run", **settings)
    assert read_config(tmp_path / "run")["task_list"] == "2 tasks that are not plain values"
    assert load(tmp_path / "run", Taking).config == run.config


@pytest.mark.parametrize(
    ("tasks", "settings", "words"),
    [
        (TaskList(Guess, []), {}, "at least one task"),
        (TaskList(Guess, [1], []), {}, "validation_tasks=0"),
        (TaskList(Guess, [1], [2]), {"validation_tasks": 2}, "validation_tasks=2"),
        (TaskList(GAMES["rock-paper-scissors"], [1], [2]), {}, "no set_task"),
        (TaskList(Taking, [{1}]), {}, "both sample_tasks"),
        (TaskList("RockPaperScissors", None), {}, "must hold its tasks"),
        (TaskList("RockPaperScissors", [{}], [{}]), {}, "its own frozen tasks"),
        ("RockPaperScissors", {"opponents": {"adversary": [Clock()]}}, "against_protagonist"),
        (TaskList(3, [1]), {}, "must be a game's name"),
    ],
)
def test_lists_of_tasks_that_cannot_be_used_are_refused(tasks, settings, words, tmp_path):
    base = {name: value for name, value in TINY.items() if name != "validation_tasks"}
    with pytest.raises(InvalidInputError, match=words):
        train_meta_adversarial(tasks, folder=tmp_path / "run", **base | settings)
    assert not (tmp_path / "run").exists()


class Moody:
    """A player of the core that remembers, draws numbers and looks at its rewards."""

    memory, noise = 1, 2

    def act(self, view, memory, noise):
        mood = memory[:, 0] + view.reward.abs() + view.observation.sum(1)
        return (mood + 3 * noise[:, 1]).long() % 3, memory + 1


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("episodes", [1, 3])
def test_an_arena_equals_that_of_a_game_of_ours(role, episodes):
    """The same game by both ways, against the same players: all episodes at once, one by one, and one row on its own."""
    spec = find("RockPaperScissors")
    tasks = frozen_tasks(spec, "validation")[:2]
    duel = Duel(make_game(spec), 4)
    opponents = [Still(duel.action_space(other(role))), Moody()]
    foreign = ParallelSimulator(rock_paper_scissors_v0.parallel_env, 4).with_tasks(tasks)
    arenas = (
        GameArena(duel, role, task_rows(spec, tasks, {}), opponents, episodes, 9),
        GameArena(foreign, role, foreign.task_rows, opponents, episodes, 9),
    )
    assert arenas[0].seat[1:2] + arenas[0].seat[3:] == arenas[1].seat[1:2] + arenas[1].seat[3:]
    policy = MemoryPolicy(arenas[0].seat.observation_space.shape[0], spaces.Discrete(3), units=4)
    generator = torch.Generator().manual_seed(1)
    weights = {k: torch.randn(1, *w.shape, generator=generator) for k, w in policy.init(0).items()}
    player = Learner(policy, weights, carry=policy.initial_carry(weights, 4))
    ours, theirs = (arena.shot(1).play(player) for arena in arenas)
    for one, two in zip((*ours[:5], *ours.carry), (*theirs[:5], *theirs.carry), strict=True):
        torch.testing.assert_close(one, two)
    pairs = zip(*(arena.shot(1).one_by_one() for arena in arenas), strict=True)
    for one, two in ((first.play(player), second.play(player)) for first, second in pairs):
        torch.testing.assert_close(one[:5], two[:5])
    shots = [arena.shot(0) for arena in arenas]
    pairs = [[shot.environment(row) for shot in shots] for row in range(4)]  # all rows at once
    for _ in range(episodes):
        steps = []
        for envs in pairs:
            (seen, info), (same, _) = (env.reset() for env in envs)
            assert np.array_equal(seen, same)
            assert info == {}
        for step in range(4):
            for envs in pairs:
                steps.append([env.step(step % 3) for env in envs])
                for one, two in zip(*(part[1:] for part in steps[-1]), strict=True):
                    assert one == pytest.approx(two)
                assert steps[-1][0][3] == (step == 3)
    for envs in pairs:
        for env in envs:
            env.reset()  # as libraries do by themselves
            with pytest.raises(ShotOver):
                env.step(0)


def test_an_arenas_environment_of_masked_actions():
    simulator = ParallelSimulator(Masked)
    other_player = EnvironmentPlayer(simulator, "adversary", FirstLegal())
    env = GameArena(simulator, "protagonist", simulator.task_rows, [other_player], 1, 0).shot(0).environment(0)
    observation, info = env.reset()
    for step in range(6):
        legal = np.arange(3) != step % 3
        assert np.array_equal(info["action_mask"], legal)
        assert {int(env.action_space.sample()) for _ in range(20)} == set(np.flatnonzero(legal))
        with pytest.raises(InvalidInputError, match="must be legal now"):
            env.step(np.int64(step % 3))
        for bad in (3, 0.5, None):
            with pytest.raises(InvalidInputError, match="masked_v0: the protagonist's action"):
                env.step(bad)
        observation, _, terminated, truncated, info = env.step(np.flatnonzero(legal)[0])
        assert (terminated, truncated) == (False, step == 5)
    assert not observation.any()


@pytest.mark.parametrize("how", ["terminations", "truncations"])
def test_an_episode_goes_on_for_the_player_who_stays(how):
    """The opponent leaves first, by whichever end: environment and rollout give the learner all of its five steps."""

    class Leaving(Guess):
        def step(self, actions):
            observations, rewards, terminations, truncations, infos = super().step(actions)
            watcher = {"watcher": terminations.pop("watcher")} if "watcher" in terminations else {}
            ends = {"terminations": dict(terminations), "truncations": dict(truncations)}
            ends[how] |= watcher
            return observations, rewards, ends["terminations"], ends["truncations"], infos

    simulator = ParallelSimulator(Leaving).with_tasks([2])
    arena = GameArena(simulator, "protagonist", simulator.task_rows, [Still(simulator.action_space("adversary"))], 1, 0)
    env = arena.shot(0).environment(0)
    env.reset()
    ends = [env.step(0)[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(True, False)]


class FirstLegal:
    def act(self, observation):
        return np.flatnonzero(observation["action_mask"])[0]


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
        steps=1, validation_tasks=2, hidden=(4,), normalise_observations=True, horizon=6,
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
    train_meta_adversarial("RockPaperScissors", folder=tmp_path / "family", **TINY)
    with pytest.raises(InvalidInputError, match="RockPaperScissors"):
        load(tmp_path / "family", Guess)


def test_nan_rewards_stop_training(tmp_path):
    with pytest.raises(TrainingStopped, match=r"iteration 1: .*reward"):
        train_meta_adversarial(lambda: Guess(reward=float("nan")), folder=tmp_path / "run", **TINY)
