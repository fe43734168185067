"""Memories that last over the episodes of a task: played step by step, replayed at once, copied for tests."""

import pytest
import torch
from gymnasium import spaces

from metaduel.agents.policies.base import normalisation, stack
from metaduel.agents.policies.latent import LatentPolicy
from metaduel.agents.policies.memory import MemoryPolicy, join
from metaduel.agents.policies.recurrent import GRUPolicy
from metaduel.agents.rollout import Learner, Seated, Sitting, rollout
from metaduel.agents.trajectories import Carry
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.players.names import load_player

TASKS = 3


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(kind, duel, role="protagonist"):
    size, own = duel.observation_space(role).shape[0], duel.action_space(role)
    if kind is LatentPolicy:
        return LatentPolicy(size, own, duel.action_space("adversary"), units=6)
    return MemoryPolicy(size, own, units=6)


def random_weights(policy, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(n, *w.shape, generator=generator) for k, w in policy.init(0).items()}


def play(duel, policy, weights, episodes, deterministic=False, tasks=TASKS, per_task=1):
    """Episodes in turn on a few tasks, [n, T, tasks / n]; Pursuit's gate makes them end at different times."""
    rows = tasks * per_task
    params = duel.game.params([{}] * rows, torch.float64)
    opponent = load_player(duel, "adversary", duel.spec.opponents["adversary"]["train"][0])
    chain, carry = [], None
    for episode in range(episodes):
        seats = (
            [Sitting(slice(0, tasks), Learner(policy, weights, deterministic, carry))],
            [Sitting(slice(0, tasks), Seated(opponent))],
        )
        seeds = torch.arange(rows)
        chain.append(rollout(duel, params, seats, per_task, seeds, torch.full_like(seeds, episode))[0])
        carry = chain[-1].carry
    return chain


@pytest.mark.parametrize("kind", [MemoryPolicy, LatentPolicy])
@pytest.mark.parametrize("game", ["Pursuit", "RockPaperScissors"])
@pytest.mark.parametrize("stacked", [1, TASKS])
def test_a_chain_played_step_by_step_and_replayed_at_once_are_the_same(kind, game, stacked):
    duel = Duel(make_game(find(game)), 40 if game == "Pursuit" else 5)
    policy = made(kind, duel)
    size = policy.observation_size
    statistics = torch.linspace(-0.2, 0.3, size), torch.linspace(0.5, 2.0, size)
    weights = random_weights(policy, stacked) | stack(normalisation(statistics, torch.float64), stacked)
    chain = play(duel, policy, weights, 3, deterministic=True)
    if game == "Pursuit":
        assert any(data.alive.min() == 0 for data in chain)  # or gaps would not be seen
    prepared = policy.prepare(weights)
    hidden = policy.over_chain(prepared, chain)
    for data, memory in zip(chain, hidden, strict=True):
        mode = policy.head(weights, policy.read(prepared, data.observation.flatten(1, 2), memory.flatten(1, 2))).mode()
        played = data.alive > 0
        torch.testing.assert_close(mode.view_as(data.action)[played], data.action[played])
    # The memory after the last episode, too.
    after = policy.end_episode(prepared, Carry(hidden[-1][:, -1], policy._last(chain[-1])))
    torch.testing.assert_close(after.memory, chain[-1].carry.memory)


def test_the_next_episode_knows_of_the_one_before():
    duel = Duel(make_game(find("RockPaperScissors")), 4)
    policy = made(MemoryPolicy, duel)
    weights = {
        name: value.unsqueeze(0).double() for name, value in policy.init(0).items()
    }  # undecided: each task differs
    chain = play(duel, policy, weights, 2)
    inputs = chain[1].observation[:, 0]
    before = inputs[..., policy.observation_size :]
    assert not before.any()  # nothing of it is in the input
    memory = chain[0].carry.memory
    assert not torch.equal(memory, torch.zeros_like(memory))
    assert (memory[0, 0] - memory[0, 1]).norm() > 0  # each task has its own


def test_an_episode_is_closed_with_its_last_reward():
    policy = MemoryPolicy(2, spaces.Box(-1, 1, (1,)), units=4)
    weights = random_weights(policy, 1)
    cell = GRUPolicy(policy.input_size - 2, spaces.Box(-1, 1, (1,)), units=4)
    before = torch.tensor([[[0.5, 2.0, 0.0]]])
    hidden = torch.full((1, 1, 4), 0.3)
    given = torch.tensor([[[0.0, 0.0, 0.5, 2.0, 1.0]]])
    expected = cell.advance(weights, given, Carry(hidden, before[..., :-1]))[1].memory
    torch.testing.assert_close(policy.end_episode(weights, Carry(hidden, before)).memory, expected)


def test_episodes_start_from_copies_of_a_memory_per_task():
    policy = MemoryPolicy(2, spaces.Discrete(3), units=4)
    per_weights = {"memory.start": torch.arange(8.0).view(2, 4)}
    assert torch.equal(policy.initial_carry(per_weights, 3).memory[1], torch.arange(4.0, 8.0).expand(3, 4))
    one_set = Carry(torch.arange(8.0).view(1, 2, 4), torch.zeros(1, 2, policy.carried[1]))
    rows = one_set.repeated(3).memory[0]
    assert torch.equal(rows[:3], torch.arange(4.0).expand(3, 4))
    assert torch.equal(rows[3:], torch.arange(4.0, 8.0).expand(3, 4))


def test_the_others_actions_are_recorded_as_they_were():
    duel = Duel(make_game(find("RockPaperScissors")), 6)
    policy = made(LatentPolicy, duel)
    data = play(duel, policy, random_weights(policy, 1), 1)[0]
    # What both did is what the next observation shows: one-hot of start and 3 * own + other.
    state = data.observation[:, 1:, :, : policy.observation_size].argmax(-1) - 1
    torch.testing.assert_close(state, 3 * data.action[:, :-1] + data.other[:, :-1])


def test_the_policys_gradient_stops_at_the_belief_and_the_decoders_does_not_reach_the_policy():
    duel = Duel(make_game(find("RockPaperScissors")), 5)
    policy = made(LatentPolicy, duel)
    weights = {name: value.requires_grad_() for name, value in random_weights(policy, 1).items()}
    chain = play(duel, policy, {name: value.detach() for name, value in weights.items()}, 2)
    hidden = policy.over_chain(weights, chain)
    data = join(chain)
    out = policy.read(weights, data.observation.flatten(1, 2), torch.cat(hidden, 1).flatten(1, 2))

    def reached(loss):
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, retain_graph=True)
        return {name for name, g in zip(weights, found, strict=True) if g is not None and g.abs().sum() > 0}

    acts = reached(policy.head(weights, out).log_prob(data.action.flatten(1, 2)).sum())
    assert acts == {"layer.weight", "layer.bias", "output.weight", "output.bias"}
    believes = reached(policy.prediction_loss(weights, chain, hidden, 0))
    assert believes == set(weights) - acts


def test_what_is_known_beforehand_is_decoded_better_after_training():
    # The reward is +1 on one task and -1 on the other: a player that remembers one step knows the task.
    duel = Duel(make_game(find("RockPaperScissors")), 6)
    policy = made(LatentPolicy, duel)
    weights = {name: value.unsqueeze(0).double().requires_grad_() for name, value in policy.init(0).items()}
    chain = play(duel, policy, {name: value.detach() for name, value in weights.items()}, 2, tasks=2)
    sign = torch.tensor([1.0, -1.0]).expand_as(chain[0].reward)
    chain = [data._replace(reward=sign.clone()) for data in chain]
    for data in chain:
        data.observation[..., -2] = torch.cat([torch.zeros_like(sign[:, :1]), sign[:, 1:]], 1)
    optimiser = torch.optim.Adam(list(weights.values()), lr=0.02)
    losses = []
    for step in range(150):
        optimiser.zero_grad()
        loss = policy.prediction_loss(weights, chain, policy.over_chain(weights, chain), step)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < sum(losses[:10]) - 10 * 0.25  # 0.5 is all that the reward is worth


def test_constant_rewards_are_predicted_at_their_own_scale():
    duel = Duel(make_game(find("RockPaperScissors")), 5)
    policy = made(LatentPolicy, duel)
    weights = {name: value.unsqueeze(0).double() for name, value in policy.init(0).items()}
    chain = [data._replace(reward=torch.full_like(data.reward, 100.0)) for data in play(duel, policy, weights, 2)]
    assert policy.prediction_loss(weights, chain, policy.over_chain(weights, chain), 0) < 10
