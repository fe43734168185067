import numpy as np
import pytest
import torch
from gymnasium import spaces

from metaduel.agents.policies.base import REWARD, SHIFT
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.recurrent import GRUPolicy
from metaduel.agents.policies.statistics import InputStatistics, RunningStatistics
from metaduel.agents.trajectories import Trajectories


def batches(sizes=(3, 1, 7), spread=(1.0, 1e-3, 40.0), centre=(0.0, 1000.0, -5.0)):
    """Trajectories that end at different steps, with nonsense after the end."""
    generator = torch.Generator().manual_seed(0)
    for episodes in sizes:
        x = torch.randn(2, 5, episodes, 3, generator=generator, dtype=torch.float64) * torch.tensor(
            spread
        ) + torch.tensor(centre)
        length = torch.randint(1, 6, (2, 1, episodes), generator=generator)
        alive = (torch.arange(5).view(1, -1, 1) < length).double()
        x[alive == 0] = torch.nan
        yield x, alive


def gathered(parts):
    running = RunningStatistics(3)
    for observation, alive in parts:
        running.add(observation, alive)
    return running


def test_equals_numpy_over_the_steps_that_were_played():
    mean, std = gathered(batches()).statistics
    played = np.concatenate([x[alive > 0].numpy() for x, alive in batches()])
    np.testing.assert_allclose(mean, played.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, played.std(0), rtol=1e-9)


def test_the_order_of_batches_does_not_matter():
    there, back = gathered(batches()), gathered(list(batches())[::-1])
    for one, other in zip(there.statistics, back.statistics, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_goes_on_from_its_state():
    parts = list(batches())
    begun = gathered(parts[:1])
    again = RunningStatistics(3)
    again.load(begun.state())
    for part in parts[1:]:
        begun.add(*part)  # what was loaded is a copy
        again.add(*part)
    assert all(torch.equal(value, again.state()[name]) for name, value in begun.state().items())
    assert torch.equal(again.count, gathered(parts).count)


def test_nothing_seen_is_no_statistics_and_further_inputs_are_left_out():
    running = RunningStatistics(2)
    assert running.statistics is None
    running.add(torch.ones(1, 2, 3, 2), torch.zeros(1, 2, 3))
    assert running.statistics is None
    running.add(torch.tensor([1.0, 4.0, 99.0]).expand(1, 2, 3, 3), torch.ones(1, 2, 3))
    assert [part.tolist() for part in running.statistics] == [[1.0, 4.0], [0.0, 0.0]]


def test_rewards_within_episodes_and_at_their_ends_have_deviations_of_their_own():
    # Inputs show the reward of the step before: 0 3, and 0; the episodes end with 4 and with 12.
    policy = MemoryPolicy(2, spaces.Discrete(3), units=4)
    statistics = InputStatistics(policy, observations=False)
    assert statistics.fixed == {}
    assert statistics.neutral[REWARD].tolist() == [1.0, 1.0]
    alive = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]).unsqueeze(0)
    reward = torch.tensor([[3.0, 12.0], [4.0, 0.0], [0.0, 0.0]]).unsqueeze(0)
    given = torch.zeros(1, 3, 2, policy.input_size)
    given[0, 1, 0, policy.reward_at] = 3.0
    statistics.add(Trajectories(given, torch.zeros(1, 3, 2), reward, alive))
    assert statistics.fixed[REWARD].tolist() == pytest.approx([(3 / 9) ** 0.5, (2 / 160) ** 0.5])
    again = InputStatistics(policy, observations=False)
    again.load(statistics.state())
    assert torch.equal(again.fixed[REWARD], statistics.fixed[REWARD])


def test_a_state_of_before_rewards_were_scaled_goes_on_without():
    statistics = InputStatistics(GRUPolicy(2, spaces.Discrete(3), 4), observations=True)
    assert set(statistics.neutral) == {REWARD, SHIFT, "fixed.scale"}
    statistics.load({name: torch.ones(2, dtype=torch.float64) for name in ("count", "mean", "squares")})
    assert REWARD not in statistics.neutral
    assert not InputStatistics(MLPPolicy(2, spaces.Discrete(3), (4,)), observations=False)
