import pytest
import torch

from metaduel.agents.policies.base import SHIFT, normalisation
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.recurrent import GRUPolicy
from metaduel.benchmarks.tools.population import Budget, Population, _take
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import sample_tasks, task_rows

SMALL = Budget(seeds=2, iterations=4, steps=800, epochs=2, slices=4, test_episodes=1)


def population(game="CartPole", network=MLPPolicy, budget=SMALL):
    duel = Duel(make_game(find(game)), informed=("protagonist",))
    policy = network(duel.observation_space("protagonist").shape[0], duel.action_space("protagonist"))
    pool = task_rows(duel.spec, sample_tasks(duel.spec, 20, "train", 0), {})
    return Population(duel, "protagonist", policy, (0.0, 0.01), budget), pool


@pytest.mark.parametrize("network", [MLPPolicy, GRUPolicy])
def test_every_step_of_adam_sees_its_share_of_what_was_played(network):
    players, pool = population(network=network)
    data = players._play(pool, 0)
    players._look(data)
    data = players._play(pool, 1)
    parts = list(players._parts(data, torch.Generator().manual_seed(0)))
    played = int(data.alive.sum())  # by four players; a part is a quarter of 800 steps, or as many episodes as 800 make
    slices = max(1, round(played / 4 / (200 if network is MLPPolicy else 800)))
    assert len(parts) == 2 * slices
    for part in parts:
        if network is MLPPolicy:
            assert part.alive.shape == (4, 1, int(played / 4 / slices))
            assert (part.alive == 1).all()
        else:
            assert part.alive.shape == (*data.alive.shape[:2], int(data.alive.shape[2] / slices))
        # The players that drew the actions learn from them: ratios start at 1.
        with torch.no_grad():
            prepared = players.policy.prepare(players.weights)
            out = players.policy.over_time(prepared, part.seen[..., :-1]).flatten(1, 2)
            now = players.policy.head(prepared, out).log_prob(part.action.flatten(1, 2)).view_as(part.old)
        torch.testing.assert_close(now, part.old)


def test_players_take_from_their_own_batch():
    part = torch.arange(2 * 3 * 4).view(2, 3, 4)
    taken = _take(part, torch.tensor([[0, 3], [1, 1]]))
    assert taken.tolist() == [[[0, 3], [4, 7], [8, 11]], [[13, 13], [17, 17], [21, 21]]]
    assert _take(part.unsqueeze(-1), torch.tensor([[2], [0]])).shape == (2, 3, 1, 1)


def test_where_episodes_are_short_more_are_played():
    players, pool = population()
    first = players._play(pool, 0)
    players._look(first)
    second = players._play(pool, 1)
    assert first.alive.shape[2] == 4  # 800 steps, if they lasted for 200 each
    assert 4 < second.alive.shape[2] <= 32


def test_observations_are_normalised_by_what_was_seen_so_far():
    players, pool = population("Pendulum")
    parts = [players._play(pool, i) for i in range(2)]
    for data in parts:
        players._look(data)
    seen = torch.cat([data.observation.flatten(0, 2) for data in parts]).double()
    mean, std = players.statistics.statistics
    torch.testing.assert_close(mean, seen.mean(0))
    torch.testing.assert_close(std, seen.std(0, correction=0))
    time = torch.arange(100, dtype=torch.float64).mean() / 100
    assert players.judges[SHIFT].shape[0] == players.size
    assert players.judges[SHIFT][:, -1].tolist() == pytest.approx([time.item()] * players.size)
    for name, value in normalisation((seen.mean(0), seen.std(0, correction=0))).items():
        torch.testing.assert_close(players.weights[name], value.expand(players.size, -1))


def test_returns_are_of_every_bonus_seed_and_task():
    players, _ = population("MatchingPennies")
    before, after = players.train(lambda done: None)
    assert before.shape == after.shape == (2, 2, 100)
    assert not torch.equal(before, after)
