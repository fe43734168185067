"""A loss is per step of the game's horizon: an update of a task is that of the task alone, whatever else is in its batch."""

from dataclasses import replace

import gymnasium as gym
import pytest
import torch

from metaduel.agents.adapters.arena import GameArena
from metaduel.agents.objective.config import LossConfig
from metaduel.agents.objective.losses import SURROGATES, clipped_loss, policy_gradient_loss
from metaduel.agents.policies.base import stack
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import other
from metaduel.envs.core.tasks import sample_tasks, task_rows
from metaduel.envs.players.names import load_player, names
from metaduel.meta.adaptation.adapters import GradientAdapter
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.runs.agent import Agent, EnvironmentExperience

ROLE = "protagonist"


def policy_of(duel, role=ROLE):
    return MLPPolicy(duel.observation_space(role).shape[0], duel.action_space(role), (8,), mask=duel.mask(role))


def first_update(game, role, tasks):
    """The first task's gradient of an update in a batch of ``tasks``, and the number of steps of the batch."""
    spec = find(game)
    duel = Duel(make_game(spec), dtype=torch.float64)
    policy = policy_of(duel, role)
    rows = task_rows(spec, sample_tasks(spec, 60, "train", 5), {})[:tasks]
    opponents = [(load_player(duel, other(role), names(spec, other(role), "train")[0]), tasks)]
    matchups = Matchups(rows, **{f"against_{'adversaries' if role == ROLE else 'protagonists'}": opponents})
    problem = DuelProblem(duel, {role: policy}, matchups, 3, 77, LossConfig(inner_baseline=False))
    start = stack(policy.init(3, torch.float64), tasks)
    players = {role: {name: value.clone().requires_grad_() for name, value in start.items()}}
    drawn = problem.draw(players, 0)
    loss = drawn.losses(players).support[role].sum()
    gradient = torch.autograd.grad(loss, list(players[role].values()))
    return torch.cat([part[0].flatten() for part in gradient]), drawn.data[role].reward.shape[1]


@pytest.mark.parametrize(
    ("game", "role"), [("CartPole", ROLE), ("Pursuit", "adversary"), ("Sumo", ROLE), ("LeducPoker", ROLE)]
)
def test_an_update_does_not_depend_on_the_other_tasks_of_its_batch(game, role):
    (alone, steps), (among, most) = first_update(game, role, 1), first_update(game, role, 60)
    assert steps < most  # the longest episodes differ, and so would the updates
    torch.testing.assert_close(among, alone, rtol=1e-5, atol=1e-12)
    assert float(among.norm() / alone.norm()) == pytest.approx(1.0, rel=1e-5)
    assert float(torch.cosine_similarity(among, alone, 0)) == pytest.approx(1.0, abs=1e-9)


class Recorded:
    """Episodes that were played before, as the first of the rows; the second has a longer episode."""

    episodes, rows = 2, 2

    def __init__(self, data, steps):
        self.data, self.steps = data, steps

    def play(self, player):
        def longer(field):
            both = field.new_zeros(2, self.steps, *field.shape[2:])
            both[:, : field.shape[1]] = field
            return both

        both = self.data.map(longer)
        both.alive[1] = 1.0
        return both


def test_an_agent_adapts_by_the_step_of_an_evaluation(monkeypatch):
    duel = Duel(make_game(find("CartPole")))
    policy = policy_of(duel)
    spaces = duel.observation_space(ROLE), duel.action_space(ROLE)
    loss, rates = LossConfig(inner_baseline=False), torch.tensor([0.5])
    agent = Agent(ROLE, policy, policy.init(0), rates, loss, *spaces, 7)  # trained for another clock
    data, original = [], EnvironmentExperience.play
    monkeypatch.setattr(EnvironmentExperience, "play", lambda *args: data.append(original(*args)) or data[-1])
    env = gym.make("metaduel/CartPole-v0", opponent="idle", task="validation:0")
    adapted = agent.adapt(env, shots=1, episodes=2)
    assert data[0].reward.shape[1] < duel.horizon // 2
    adapter = GradientAdapter(ROLE, policy, agent.weights, rates, loss)
    rows = task_rows(duel.spec, sample_tasks(duel.spec, 2, "train", 5), {})
    arena = GameArena(duel, ROLE, rows, [load_player(duel, "adversary", "idle")], 2, 0)
    after = adapter.update(adapter.start(arena.seat, 2, 0), Recorded(data[0], duel.horizon))
    for name, value in agent.weights.items():
        torch.testing.assert_close(after.weights[name][0] - value, adapted.weights[name] - value, rtol=1e-4, atol=1e-7)
    assert not torch.equal(adapted.weights["layer1.bias"], agent.weights["layer1.bias"])


def test_in_an_environment_of_another_kind_the_horizon_is_that_of_training():
    class Other(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.time = 0
            return self.observation_space.low, {}

        def step(self, action):
            self.time += 1
            return self.observation_space.low, float(action), self.time == 3, False, {}

    policy = MLPPolicy(2, Other.action_space, ())
    agent = Agent(
        ROLE, policy, policy.init(0), torch.tensor([1.0]), LossConfig(), Other.observation_space, Other.action_space, 3
    )
    (own, half) = (
        replace(agent, horizon=horizon).adapt(Other(), shots=1, episodes=4).weights["layer0.bias"] for horizon in (3, 6)
    )
    torch.testing.assert_close(own - agent.weights["layer0.bias"], 2 * (half - agent.weights["layer0.bias"]))
    assert own.abs().sum() > 0
    with pytest.raises(InvalidInputError, match="trained without a horizon"):
        replace(agent, horizon=0).adapt(Other(), shots=1, episodes=4)


def test_steps_after_the_longest_episode_change_no_loss():
    generator = torch.Generator().manual_seed(0)
    log_prob, old, advantage = torch.randn(3, 2, 4, 3, generator=generator, dtype=torch.float64)
    alive = (torch.arange(4).view(1, -1, 1) < torch.tensor([[4, 1, 2], [1, 3, 2]]).unsqueeze(1)).double()

    def losses(n, steps):
        a, b, c, d = (field[n : n + 1, :steps] for field in (log_prob, old, advantage, alive))
        kinds = [policy_gradient_loss(a, c, d, kind, 10) for kind in SURROGATES]
        return torch.cat([*kinds, clipped_loss(a, b, c, d, 0.2, 10)])

    torch.testing.assert_close(losses(1, 3), losses(1, 4))
    # By hand: one step, log-probability -1, advantage 3, of a horizon of 10.
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    assert policy_gradient_loss(-one, 3 * one, one, "plain", 10).item() == pytest.approx(0.3)
