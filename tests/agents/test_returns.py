import pytest
import torch

from metaduel.agents.objective.returns import discounted_returns, gae, normalise, spread


def column(*values):
    """One task, one episode: [1, T, 1]."""
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1)


ALL = column(1, 1, 1)


def test_discounted_returns_by_hand():
    # 1 + 0.5 * (2 + 0.5 * 4) = 3;  2 + 0.5 * 4 = 4;  4
    assert discounted_returns(column(1, 2, 4), 0.5).flatten().tolist() == [3.0, 4.0, 4.0]
    assert discounted_returns(column(1, 2, 4), 0.0).flatten().tolist() == [1.0, 2.0, 4.0]


def test_gae_by_hand():
    # gamma = 0.5, lambda = 0.5, values 2, 1, 3, terminated: the value after the end is 0
    # delta_2 = 4 - 3 = 1;            A_2 = 1
    # delta_1 = 2 + 0.5 * 3 - 1 = 2.5; A_1 = 2.5 + 0.25 * 1 = 2.75
    # delta_0 = 1 + 0.5 * 1 - 2 = -0.5; A_0 = -0.5 + 0.25 * 2.75 = 0.1875
    result = gae(column(1, 2, 4), column(2, 1, 3), ALL, 0.5, 0.5)
    assert result.flatten().tolist() == [0.1875, 2.75, 1.0]


def test_truncation_bootstraps():
    # As above, but the state after the last step is worth 8: delta_2 = 4 + 0.5 * 8 - 3 = 5
    # A_2 = 5; A_1 = 2.5 + 0.25 * 5 = 3.75; A_0 = -0.5 + 0.25 * 3.75 = 0.4375
    result = gae(column(1, 2, 4), column(2, 1, 3), ALL, 0.5, 0.5, torch.full((1, 1), 8.0, dtype=torch.float64))
    assert result.flatten().tolist() == [0.4375, 3.75, 5.0]


def test_an_episode_that_ended_early():
    # Two steps were played; the third is padding with a value that must not be looked at.
    # terminated:      delta_1 = 2 - 1 = 1;           A_1 = 1; A_0 = (1 + 0.5 * 1 - 2) + 0.25 * 1 = -0.25
    # truncated at 8:  delta_1 = 2 + 0.5 * 8 - 1 = 5; A_1 = 5; A_0 = -0.5 + 0.25 * 5 = 0.75
    reward, value, alive = column(1, 2, 0), column(2, 1, 100), column(1, 1, 0)
    assert gae(reward, value, alive, 0.5, 0.5).flatten().tolist() == [-0.25, 1.0, 0.0]
    after = torch.full((1, 1), 8.0, dtype=torch.float64)
    assert gae(reward, value, alive, 0.5, 0.5, after).flatten().tolist() == [0.75, 5.0, 0.0]


def test_episodes_of_a_batch_do_not_mix():
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, 3, 6, 4, generator=generator, dtype=torch.float64)
    length = torch.tensor([[1, 6, 3, 4], [6, 6, 2, 5], [6, 1, 1, 6]])
    alive = (torch.arange(6).view(1, 6, 1) < length.unsqueeze(1)).double()
    reward = reward * alive
    after = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    together = gae(reward, value, alive, 0.9, 0.8, after)
    for n in range(3):
        for e in range(4):
            t = int(length[n, e])
            running, following = 0.0, float(after[n, e])
            for step in reversed(range(t)):  # the definition, one episode at a time
                delta = float(reward[n, step, e]) + 0.9 * following - float(value[n, step, e])
                running = delta + 0.9 * 0.8 * running
                following = float(value[n, step, e])
                assert float(together[n, step, e]) == pytest.approx(running)
            assert not together[n, t:, e].any()


def test_lambda_1_is_return_minus_baseline_and_lambda_0_one_step():
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, 2, 5, 3, generator=generator, dtype=torch.float64)
    alive = torch.ones_like(reward)
    assert torch.allclose(gae(reward, value, alive, 0.9), discounted_returns(reward, 0.9) - value)
    following = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1)
    assert torch.allclose(gae(reward, value, alive, 0.9, 0.0), reward + 0.9 * following - value)


def test_normalise_by_hand():
    # Played steps 1, 3, 5, 7: mean 4, variance (9 + 1 + 1 + 9) / 4 = 5; the padding stays 0 and counts nowhere.
    advantage = torch.tensor([[[1.0, 5.0], [3.0, 7.0], [0.0, 0.0]]], dtype=torch.float64)
    alive = torch.tensor([[[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    expected = torch.tensor([[[-3.0, 1.0], [-1.0, 3.0], [0.0, 0.0]]], dtype=torch.float64) / 5**0.5
    assert torch.allclose(normalise(advantage, alive), expected)
    other = torch.cat([advantage, 100 * advantage + 7 * alive])
    both = normalise(other, alive.expand(2, 3, 2))
    assert torch.allclose(both, expected.expand(2, 3, 2))  # per task: shifting and scaling one changes nothing
    assert torch.equal(normalise(alive, alive), torch.zeros_like(alive))  # all the same: nothing to learn, not NaN


@pytest.mark.parametrize("runs", [[5], [1, 3, 1]])
def test_tasks_of_a_run_have_one_scale(runs):
    """That of all their steps together; shifts and scales of one run change nothing in the others."""
    generator = torch.Generator().manual_seed(0)
    advantage = torch.randn(5, 4, 3, generator=generator, dtype=torch.float64)
    alive = (torch.rand(5, 4, 3, generator=generator) > 0.3).double()
    ours, divisor = normalise(advantage, alive, runs).split(runs), spread(advantage, alive, runs).split(runs)
    for own, scale, *given in zip(ours, divisor, advantage.split(runs), alive.split(runs), strict=True):
        played = given[0][given[1] > 0]
        expected = (given[0] - played.mean()) / (played.std(correction=0) + 1e-8) * given[1]
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(scale, (played.std(correction=0) + 1e-8).expand(len(own)))
