"""Illegal actions have probability 0 for all kinds of players."""

import gymnasium as gym
import pytest
import torch
from gymnasium import spaces
from torch import nn

import metaduel  # noqa: F401 (registers the games)
from metaduel.agents.objective.config import log_probs
from metaduel.agents.policies.distributions import Categorical
from metaduel.agents.policies.latent import LatentPolicy
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.module import ModulePolicy
from metaduel.agents.policies.recurrent import GRUPolicy, LSTMPolicy
from metaduel.agents.rollout import Learner, Seated, Sitting, rollout
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.players.names import load_player
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.train import train

KINDS = {
    "mlp": lambda d, a, **mask: MLPPolicy(d, a, (8,), **mask),
    "gru": lambda d, a, **mask: GRUPolicy(d, a, 8, **mask),
    "lstm": lambda d, a, **mask: LSTMPolicy(d, a, 8, **mask),
    "memory": lambda d, a, **mask: MemoryPolicy(d, a, 8, **mask),
    "latent": lambda d, a, **mask: LatentPolicy(d, a, a, 8, **mask),
    "module": lambda d, a, **mask: ModulePolicy(lambda: nn.Linear(d, int(a.n)), d, a, **mask),
}


@pytest.mark.parametrize("game", ["KuhnPoker", "LeducPoker"])
def test_the_mask_is_where_the_game_says(game):
    duel = Duel(make_game(find(game)))
    rows = duel.reset(duel.game.params([{}] * 8), torch.arange(8), torch.zeros(8, dtype=torch.int64))
    for _ in range(4):
        legal = duel.legal(rows)
        for seat, seen in enumerate(duel.observe(rows)):
            assert torch.equal(seen[:, duel.game.mask] > 0, legal[seat])
        actions = tuple(mask.float().argmax(1) for mask in legal)
        rows, _ = duel.step(rows, actions)


@pytest.mark.parametrize("game", ["KuhnPoker", "LeducPoker"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["protagonist", "adversary"])
def test_no_rollout_has_an_illegal_action(game, kind, role):
    duel = Duel(make_game(find(game)))
    other = "adversary" if role == "protagonist" else "protagonist"
    size, space = duel.observation_space(role).shape[0], duel.action_space(role)
    unmasked, policy = KINDS[kind](size, space), KINDS[kind](size, space, mask=duel.game.mask)
    generator = torch.Generator().manual_seed(0)
    weights = {k: 2 * torch.randn(3, *w.shape, generator=generator) for k, w in policy.init(0).items()}
    opponent = load_player(duel, other, find(game).opponents[other]["train"][0])

    def illegal(policy):
        seats = [[Sitting(slice(0, 3), Learner(policy, weights))], [Sitting(slice(0, 3), Seated(opponent))]]
        seats = seats if role == "protagonist" else seats[::-1]
        seeds = torch.arange(30)
        data = rollout(duel, duel.game.params([{}] * 30), tuple(seats), 10, seeds, seeds * 0)[role == "adversary"]
        chosen = data.observation[..., duel.game.mask].gather(-1, data.action.unsqueeze(-1)).squeeze(-1)
        return int(((chosen == 0) & (data.alive > 0)).sum()), data

    assert illegal(unmasked)[0] > 0
    count, data = illegal(policy)
    assert count == 0
    likely = log_probs(policy, weights, data)
    assert (likely[data.alive > 0] > -1e6).all()
    waiting = data.observation[..., duel.game.mask].sum(-1) == 1
    assert waiting.any()
    assert (likely[waiting] == 0).all()


def test_second_derivatives_equal_finite_differences():
    torch.set_default_dtype(torch.float64)
    try:
        policy = MLPPolicy(4, spaces.Discrete(3), (5,), mask=slice(1, 4))
        weights = {name: value.unsqueeze(0).double() for name, value in policy.init(1).items()}
        seen = torch.tensor([[[0.3, 1.0, 0.0, 1.0], [-0.2, 1.0, 1.0, 1.0], [0.5, 0.0, 1.0, 0.0]]])
        action = torch.tensor([[2, 1, 1]])
        other = policy({name: value.unsqueeze(0).double() for name, value in policy.init(2).items()}, seen)

        def slope(flat, graph):
            shaped = weights | {"layer1.weight": flat.view(1, 5, 3)}
            d = policy(shaped, seen)
            value = d.log_prob(action).sum() + d.entropy().sum() + d.kl(other).sum() + other.kl(d).sum()
            return torch.autograd.grad(value, flat, create_graph=graph)[0]

        flat = weights["layer1.weight"].flatten().clone().requires_grad_()
        direction = torch.linspace(-1, 1, 15)
        exact = torch.autograd.grad(slope(flat, True) @ direction, flat)[0]
        step = 1e-6
        ends = [slope((flat + sign * step * direction).detach().requires_grad_(), False) for sign in (1, -1)]
        assert torch.allclose(exact, (ends[0] - ends[1]) / (2 * step), atol=1e-6)
        assert torch.isfinite(exact).all()
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_last_action_takes_no_rest_that_is_not_its_own():
    distribution = Categorical(torch.tensor([[0.1, 0.2, -1e9]]).log_softmax(-1))
    almost = torch.nextafter(torch.tensor([[1.0]]), torch.tensor(0.0))
    assert distribution.sample(almost).tolist() == [1]


def test_a_trained_player_of_poker_never_breaks_the_rules(tmp_path):
    config = TrainConfig(game="KuhnPoker").override(
        iterations=1, tasks=2, episodes=2, steps=1, hidden=(8,), validation_tasks=2, normalise_observations=True
    )
    player = train(config, tmp_path / "run", quiet=True).protagonist
    env = gym.make("metaduel/KuhnPoker-v0", opponent=None)  # one environment refuses an illegal action
    player.adapt(env, shots=1, episodes=2)
    observation, done = env.reset(seed=0)[0], False
    while not done:
        action, _ = player.predict(observation)
        observation, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
