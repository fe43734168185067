import pytest
import torch
from gymnasium import spaces
from torch import nn

from metaduel.agents.objective.config import log_probs
from metaduel.agents.policies.base import normalisation, stack
from metaduel.agents.policies.recurrent import GRUPolicy, LSTMPolicy
from metaduel.agents.rollout import Learner, Seated, Sitting, rollout
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.players.names import load_player

SPACES = {"box": spaces.Box(-1, 1, (2,)), "discrete": spaces.Discrete(4)}


def random_weights(policy, n):
    generator = torch.Generator().manual_seed(0)
    return {k: torch.randn(n, *w.shape, generator=generator, dtype=torch.float64) for k, w in policy.init(0).items()}


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize(("unit", "torchs"), [(GRUPolicy, nn.GRU), (LSTMPolicy, nn.LSTM)])
def test_equals_torchs_own_unit_per_task(kind, unit, torchs):
    policy = unit(3, SPACES[kind], units=5)
    weights = random_weights(policy, 2)
    given = torch.randn(2, 7, 4, policy.input_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out = policy.over_time(policy.prepare(weights), given)
    for n in range(2):
        cell = torchs(policy.input_size, 5).double()
        with torch.no_grad():
            cell.weight_ih_l0.copy_(weights["input.weight"][n].T)
            cell.bias_ih_l0.copy_(weights["input.bias"][n])
            cell.weight_hh_l0.copy_(weights["memory.weight"][n].T)
            cell.bias_hh_l0.copy_(weights["memory.bias"][n])
        hidden = cell(given[n])[0]
        torch.testing.assert_close(out[n], hidden @ weights["output.weight"][n] + weights["output.bias"][n])


def test_the_forget_gate_of_an_lstm_starts_open():
    bias = LSTMPolicy(3, SPACES["box"], units=5).init(0)["memory.bias"].view(4, 5)
    assert bias.tolist() == [[0.0] * 5, [1.0] * 5, [0.0] * 5, [0.0] * 5]


@pytest.mark.parametrize("unit", [GRUPolicy, LSTMPolicy])
def test_observations_are_normalised_and_what_comes_after_them_is_not(unit):
    plain, policy = (unit(3, SPACES["box"], units=5) for _ in range(2))
    mean, std = torch.tensor([1.0, -20.0, 4.0]), torch.tensor([0.01, 3.0, 0.0])
    weights = random_weights(policy, 2)
    normalised = weights | {name: value.double() for name, value in stack(normalisation((mean, std)), 2).items()}
    given = torch.randn(2, 7, 4, policy.input_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    by_hand = given.clone()
    by_hand[..., :3] = (given[..., :3] - mean.double()) / torch.tensor([0.01, 3.0, 1.0])  # a constant is shifted alone
    out = policy.over_time(policy.prepare(normalised), given)
    expected = plain.over_time(plain.prepare(weights), by_hand)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(policy(normalised, given[:, 0]).mean, out[:, 0])


@pytest.mark.parametrize("statistics", [None, (0.3, 0.05)])
@pytest.mark.parametrize(
    ("game", "unit"), [("Pursuit", GRUPolicy), ("RockPaperScissors", GRUPolicy), ("Pursuit", LSTMPolicy)]
)
def test_a_rollout_records_what_the_memory_was_given(game, unit, statistics):
    spec = find(game)
    duel = Duel(make_game(spec), 6)
    policy = unit(duel.observation_space("protagonist").shape[0], duel.action_space("protagonist"), units=8)
    weights = stack(policy.init(1), 3)
    if statistics:
        mean, std = (torch.full((policy.observation_size,), value) for value in statistics)
        weights |= stack(normalisation((mean, std)), 3)
    rows = duel.game.params([{}] * 6)
    opponent = load_player(duel, "adversary", spec.opponents["adversary"]["train"][0])
    seats = ([Sitting(slice(0, 3), Learner(policy, weights))], [Sitting(slice(0, 3), Seated(opponent))])
    seeds = torch.arange(6)
    data = rollout(duel, rows, seats, 2, seeds, seeds * 0)[0]
    seen, extra = data.observation.split([policy.observation_size, policy.action_size + 1], -1)
    assert seen.shape[:3] == data.reward.shape
    assert (extra[:, 0] == 0).all()
    played = data.alive[:, 1:].bool()  # after the end there are zeros
    given, before, reward = (part[played] for part in (extra[:, 1:], data.action[:, :-1], data.reward[:, :-1]))
    torch.testing.assert_close(given[:, -1], reward)
    torch.testing.assert_close(given[:, :-1].argmax(-1) if policy.discrete else given[:, :-1], policy.clip(before))
    # Played step by step and replayed at once, the memory is the same: actions equal means plus the noise that was drawn.
    mode = rollout(
        duel,
        rows,
        ([Sitting(slice(0, 3), Learner(policy, weights, deterministic=True))], seats[1]),
        2,
        seeds,
        seeds * 0,
    )[0]
    prepared = policy.prepare(weights)
    out = policy.over_time(prepared, mode.observation).flatten(1, 2)
    again = policy.head(prepared, out).mode().view_as(mode.action)
    torch.testing.assert_close(again, mode.action)
    assert log_probs(policy, weights, data).shape == data.reward.shape
