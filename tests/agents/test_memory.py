"""Memories that last over the episodes of a task: played step by step, replayed at once, copied for tests."""

import pytest
import torch
from gymnasium import spaces

from metaduel.agents.policies.base import normalisation, reward_scale, stack
from metaduel.agents.policies.latent import LATENT, PAST, STEPS, LatentPolicy
from metaduel.agents.policies.memory import MemoryPolicy, join
from metaduel.agents.policies.recurrent import GRUPolicy, affine
from metaduel.agents.rollout import Learner, Seated, Sitting, rollout
from metaduel.agents.trajectories import Carry
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.players.names import load_player

TASKS = 3
DEVIATIONS = torch.tensor(0.02, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)  # of rewards


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
def test_a_chain_played_step_by_step_and_replayed_at_once_are_the_same(kind, game):
    duel = Duel(make_game(find(game)), 40 if game == "Pursuit" else 5)
    policy = made(kind, duel)
    size = policy.observation_size
    statistics = torch.linspace(-0.2, 0.3, size), torch.linspace(0.5, 2.0, size)
    fixed = normalisation(statistics, torch.float64) | reward_scale(DEVIATIONS, torch.float64)
    weights = random_weights(policy, 1) | stack(fixed, 1)
    chain = play(duel, policy, weights, 3, deterministic=True)
    if game == "Pursuit":
        assert any(data.alive.min() == 0 for data in chain)  # or gaps would not be seen
    prepared, played, data = policy.prepare(weights), policy.played(chain), join(chain)
    mode = policy.head(weights, policy.read(prepared, played.given[None], policy.over_chain(prepared, played))).mode()
    steps = ~played.ends
    torch.testing.assert_close(mode[0, steps], played.pick(data.action)[steps])
    # The memory after the last episode, too.
    after = policy.end_episode(prepared, Carry(over_steps(policy, prepared, chain)[:, -1], policy._last(chain[-1])))
    torch.testing.assert_close(after.memory, chain[-1].carry.memory)


def over_steps(policy, prepared, chain):
    """The memory [1, T, M, units] at every step of a chain, by a loop over steps, those that were not played included."""
    hidden, kept = policy.initial_carry(prepared, chain[0].reward.shape[2]).memory, []
    for data in chain:
        for given, alive in zip(data.observation.unbind(1), data.alive.unbind(1), strict=True):
            after = policy.advance(prepared, given, Carry(hidden, given[..., policy.observation_size :]))[1].memory
            hidden = torch.where(alive.unsqueeze(-1) > 0, after, hidden)
            kept.append(hidden)
        hidden = policy.end_episode(prepared, Carry(hidden, policy._last(data))).memory
    return torch.stack(kept, 1)


def learned(kind, precision=torch.float64):
    """A policy, weights that require gradients, normalisation, and a chain whose episodes end at different times."""
    duel = Duel(make_game(find("Pursuit")), 40)
    policy = made(kind, duel)
    weights = {name: value.requires_grad_() for name, value in random_weights(policy, 1).items()}
    own = normalisation((torch.linspace(-0.2, 0.3, policy.observation_size), torch.ones(policy.observation_size)))
    own |= reward_scale(DEVIATIONS)
    fixed = {name: value.double() for name, value in stack(own, 1).items()}
    chain = play(duel, policy, {name: value.detach() for name, value in weights.items()} | fixed, 3)
    assert any(data.alive.min() == 0 for data in chain)
    cast = [
        data._replace(**{f: getattr(data, f).to(precision) for f in ("observation", "reward", "alive")})
        for data in chain
    ]
    leaves = {name: value.detach().to(precision).requires_grad_() for name, value in weights.items()}
    return policy, leaves, {name: value.to(precision) for name, value in fixed.items()}, cast


def gradient(loss, weights):
    return torch.autograd.grad(loss, list(weights.values()), retain_graph=True, materialize_grads=True)


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_memory_of_the_played_steps_and_its_gradient_equal_those_of_a_loop_over_all(precision, tolerance):
    policy, weights, fixed, chain = learned(MemoryPolicy, precision)
    prepared, played = policy.prepare(weights | fixed), policy.played(chain)
    steps = ~played.ends
    found = policy.over_chain(prepared, played)[0, steps]
    expected = played.pick(over_steps(policy, prepared, chain))[steps]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    scale = torch.linspace(-1, 1, found.numel(), dtype=precision).view_as(found)
    for name, one, other in zip(
        weights, gradient((found * scale).sum(), weights), gradient((expected * scale).sum(), weights), strict=True
    ):
        size = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * size)
        assert size > 0 or name not in ("memory.start", "memory.weight", "input.weight")


def bound(policy, prepared, chain, seed):
    """The prediction loss, over all pairs of moments and steps, those that were not played included."""
    data, hidden = join(chain), over_steps(policy, prepared, chain)
    generator = torch.Generator().manual_seed(seed)
    _, steps, rows = data.reward.shape
    mean, log_std = affine(prepared, "belief", hidden.flatten(1, 2)).view(1, steps, rows, -1).chunk(2, -1)
    moments = torch.randint(steps, (PAST,), generator=generator)
    noise = torch.randn(1, PAST, rows, LATENT, generator=generator)
    at = torch.randint(steps, (STEPS,), generator=generator)
    z = mean[:, moments] + torch.exp(log_std[:, moments]) * noise
    known = torch.cat([data.observation[..., : policy.observation_size], policy.clip(data.action)], -1)[:, at]
    shape = (1, PAST, STEPS, rows)
    given = torch.cat([known.unsqueeze(1).expand(*shape, -1), z.unsqueeze(2).expand(*shape, -1)], -1)
    out = affine(prepared, "decoded", torch.tanh(affine(prepared, "decoder", given.flatten(1, 3)))).view(*shape, -1)
    # Rewards that end an episode are told apart.
    ends = (
        torch.cat(
            [one.alive - torch.cat([one.alive[:, 1:], torch.zeros_like(one.alive[:, :1])], 1) for one in chain], 1
        )
        > 0
    )
    kinds = [ends, (data.alive > 0) & ~ends]
    target = sum(torch.where(kind, data.reward, 0.0) / data.reward[kind].square().mean().sqrt() for kind in kinds)
    low, high = torch.from_numpy(policy.other_space.low), torch.from_numpy(policy.other_space.high)
    other = 2 * (data.other[:, at].unsqueeze(1) - low) / (high - low) - 1
    wrong = (out[..., 0] - target[:, at].unsqueeze(1)) ** 2 + ((out[..., 1:] - other) ** 2).sum(-1)
    counted = data.alive[:, moments].unsqueeze(2) * data.alive[:, at].unsqueeze(1)
    old_mean, old_log_std = (torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1) for x in (mean, log_std))
    normal = torch.distributions.Normal
    moved = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(old_mean, old_log_std.exp())).sum(-1)
    moved = (moved * data.alive).sum() / data.alive.sum()
    return 0.5 * (wrong * counted).sum() / counted.sum() + moved / steps


def test_the_prediction_loss_and_its_gradient_equal_those_over_all_steps():
    policy, weights, fixed, chain = learned(LatentPolicy)
    prepared, played = policy.prepare(weights | fixed), policy.played(chain)
    found = policy.prediction_loss(prepared, join(chain), played, policy.over_chain(prepared, played), 3)
    expected = bound(policy, prepared, chain, 3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for one, other in zip(gradient(found, weights), gradient(expected, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12 * float(other.abs().max()))


def test_rows_hold_every_step_once_and_are_spread_again():
    policy, _, _, chain = learned(MemoryPolicy)
    played, data = policy.played(chain), join(chain)
    torch.testing.assert_close(played.spread(played.pick(data.reward), data.reward), data.reward * data.alive)
    steps = ~played.ends
    torch.testing.assert_close(played.pick(data.observation)[steps], played.given[steps])
    assert int(played.last.sum()) == TASKS * len(chain)
    assert int(played.ends.sum()) == TASKS * (len(chain) - 1)
    assert sum(played.sizes) == len(played.given)
    assert played.sizes == sorted(played.sizes, reverse=True)


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_segments_with_the_memories_before_them_are_the_whole_chain(length):
    policy, weights, fixed, chain = learned(MemoryPolicy)
    prepared, whole = policy.prepare(weights | fixed), policy.played(chain)
    hidden = policy.over_chain(prepared, whole)[0]
    cut, rows = whole.cut(length)
    carries = torch.cat([hidden, hidden[:1]])[cut.before].detach()
    torch.testing.assert_close(policy.over_chain(prepared, cut, carries)[0], hidden[rows])
    torch.testing.assert_close(cut.given, whole.given[rows])
    assert len(cut.sizes) == min(length, len(whole.sizes))
    # No gradient goes back beyond a segment.
    reached = torch.autograd.grad(policy.over_chain(prepared, cut, carries)[0][cut.place == length], weights["memory.start"],
                                  torch.ones_like(hidden[whole.place == length]), allow_unused=True)[0]  # fmt: skip
    assert reached is None or not reached.any()


def test_some_tasks_of_a_chain_are_what_they_are_among_all():
    policy, weights, fixed, chain = learned(MemoryPolicy)
    prepared, whole = policy.prepare(weights | fixed), policy.played(chain)
    hidden = policy.over_chain(prepared, whole)[0]
    some, rows, _ = whole.of(torch.tensor([2, 0]))
    assert set(some.task.tolist()) == {0, 2}
    torch.testing.assert_close(policy.over_chain(prepared, some)[0], hidden[rows])


def test_rewards_are_scaled_within_episodes_and_at_their_ends():
    """A policy on rewards divided by their deviations is the policy with ``fixed.reward`` on the rewards themselves."""
    policy = MemoryPolicy(2, spaces.Box(-1, 1, (1,)), units=4)
    weights = random_weights(policy, 1)
    scaled = weights | stack(reward_scale(DEVIATIONS, torch.float64), 1)
    before, hidden = torch.tensor([[[0.5, 0.01, 0.0]]]), torch.full((1, 1, 4), 0.3)
    observation = torch.tensor([[[0.1, 0.2]]])

    def after(own, factor):
        prepared, carry = policy.prepare(own), Carry(hidden, before * torch.tensor([1.0, factor, 1.0]))
        return policy.advance(prepared, policy.input(observation, carry), carry)[1].memory

    def closed(own, factor):
        return policy.end_episode(policy.prepare(own), Carry(hidden, before * torch.tensor([1.0, factor, 1.0]))).memory

    torch.testing.assert_close(after(scaled, 1.0), after(weights, 1 / 0.02))
    torch.testing.assert_close(closed(scaled, 1.0), closed(weights, 1 / 0.7))
    assert not torch.allclose(after(scaled, 1.0), after(weights, 1.0))


@pytest.mark.parametrize("kind", [MemoryPolicy, LatentPolicy])
def test_the_critic_reads_observation_and_memory(kind):
    policy, weights, fixed, chain = learned(kind)
    prepared, played = policy.prepare(weights | fixed), policy.played(chain)
    hidden = policy.over_chain(prepared, played)
    found = policy.value(prepared, played.given[None], hidden)
    seen = (played.given[None, :, : policy.observation_size] - fixed["fixed.shift"]) * fixed["fixed.scale"]
    read = hidden if kind is MemoryPolicy else affine(weights, "belief", hidden)
    by_hand = affine(weights, "value", torch.tanh(affine(weights, "critic", torch.cat([seen, read], -1))))
    torch.testing.assert_close(found, by_hand.squeeze(-1))
    reached = gradient(found.sum(), weights)
    moved = {name.split(".")[0] for name, g in zip(weights, reached, strict=True) if g.any()}
    assert moved == {"critic", "value"} | ({"input", "memory"} if kind is MemoryPolicy else set())


def test_rewards_that_tell_the_task_are_what_a_belief_is_taught():
    """In Sumo results of 1 or -1 end an episode, and the rewards before them that tell the tilt are below 0.01: they were
    0.05% of the variance of all."""
    policy, _, _, chain = learned(LatentPolicy)
    generator = torch.Generator().manual_seed(0)
    chain = [
        data._replace(reward=0.005 * torch.randn(data.reward.shape, generator=generator) * data.alive) for data in chain
    ]
    for data in chain:
        data.reward.scatter_(1, (data.alive.sum(1, keepdim=True) - 1).long(), 1.0)
    played, data = policy.played(chain), join(chain)
    target, steps = policy.targets(data, played), ~played.ends
    within = steps & ~played.last
    assert target[within].std() == pytest.approx(1.0, abs=0.05)
    share = (target[within] - target[within].mean()).square().sum() / (
        target[steps] - target[steps].mean()
    ).square().sum()
    assert share > 0.5


def test_chains_of_several_sets_of_weights_are_refused():
    duel = Duel(make_game(find("RockPaperScissors")), 5)
    policy = made(MemoryPolicy, duel)
    chain = play(duel, policy, random_weights(policy, TASKS), 1)
    with pytest.raises(InvalidInputError, match="chains of 3 sets of weights"):
        policy.played(chain)


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
    played, data = policy.played(chain), join(chain)
    hidden = policy.over_chain(weights, played)
    out = policy.read(weights, played.given[None], hidden)

    def reached(loss):
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, retain_graph=True)
        return {name for name, g in zip(weights, found, strict=True) if g is not None and g.abs().sum() > 0}

    acts = reached(policy.head(weights, out).log_prob(played.pick(data.action)[None]).sum())
    assert acts == {"layer.weight", "layer.bias", "output.weight", "output.bias"}
    believes = reached(policy.prediction_loss(weights, data, played, hidden, 0))
    assert believes == set(weights) - acts - {f"{layer}.{part}" for layer in policy.aids for part in ("weight", "bias")}


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
    played = policy.played(chain)
    optimiser = torch.optim.Adam(list(weights.values()), lr=0.02)
    losses = []
    for step in range(150):
        optimiser.zero_grad()
        loss = policy.prediction_loss(weights, join(chain), played, policy.over_chain(weights, played), step)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < sum(losses[:10]) - 10 * 0.25  # 0.5 is all that the reward is worth


def test_constant_rewards_are_predicted_at_their_own_scale():
    duel = Duel(make_game(find("RockPaperScissors")), 5)
    policy = made(LatentPolicy, duel)
    weights = {name: value.unsqueeze(0).double() for name, value in policy.init(0).items()}
    chain = [data._replace(reward=torch.full_like(data.reward, 100.0)) for data in play(duel, policy, weights, 2)]
    played = policy.played(chain)
    assert policy.prediction_loss(weights, join(chain), played, policy.over_chain(weights, played), 0) < 10
