import numpy as np
import torch

from metaduel.agents.policies.statistics import RunningStatistics


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
