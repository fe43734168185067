import numpy as np
import pytest
import torch

from metaduel.agents.objective import packing
from metaduel.agents.objective.baselines import RIDGE, features, fit_linear
from metaduel.agents.objective.packing import Index
from metaduel.agents.policies import groups


def batch(n=3, t=7, e=5, d=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(n, t, e, d, generator=generator, dtype=torch.float64)
    returns = torch.randn(n, t, e, generator=generator, dtype=torch.float64)
    length = torch.randint(1, t + 1, (n, 1, e), generator=generator)
    alive = (torch.arange(t).view(1, t, 1) < length).double()
    return observation, returns, alive


def test_features_by_hand():
    observation = torch.tensor([2.0, -30.0]).expand(1, 4, 1, 2)
    # observation cut to 10, squares, time in hundreds of steps with its powers, 1
    expected = [2.0, -10.0, 4.0, 100.0, 0.03, 0.03**2, 0.03**3, 1.0]
    assert features(observation)[0, 3, 0].tolist() == pytest.approx(expected)


def test_equals_least_squares_with_a_ridge():
    observation, returns, alive = batch()
    ours = fit_linear(observation, returns, alive)
    for n in range(3):
        played = alive[n].bool()
        x, y = features(observation)[n][played].numpy(), returns[n][played].numpy()
        # Ridge regression is least squares with sqrt(ridge) times the unit matrix below.
        below = RIDGE**0.5 * np.eye(x.shape[1])
        solution = np.linalg.lstsq(np.vstack([x, below]), np.concatenate([y, np.zeros(x.shape[1])]), rcond=None)[0]
        assert np.allclose(ours[n][played].numpy(), x @ solution, atol=1e-7)


def test_predicts_what_is_linear():
    observation, _, alive = batch(t=9, e=8)
    returns = features(observation) @ torch.linspace(-1, 1, 8, dtype=torch.float64) * alive
    assert torch.allclose(fit_linear(observation, returns, alive), returns, atol=1e-3)


def test_tasks_do_not_affect_each_other():
    observation, returns, alive = batch()
    together = fit_linear(observation, returns, alive)
    changed = observation.clone()
    changed[1] += 5
    other = returns.clone()
    other[1] *= -3
    again = fit_linear(changed, other, alive)
    for n in (0, 2):
        assert torch.allclose(again[n], together[n], atol=1e-9)
        alone = fit_linear(observation[n : n + 1], returns[n : n + 1], alive[n : n + 1])
        assert torch.allclose(alone[0], together[n], atol=1e-9)
    assert not torch.allclose(again[1], together[1], atol=0.1)


@pytest.mark.parametrize("runs", [[6], [2, 2, 2], [1, 4, 1], [1] * 6])
@pytest.mark.parametrize("rows", [5, 4096])
def test_tasks_of_a_run_have_one_fit(monkeypatch, runs, rows):
    """That of all their steps together: the same as a fit to a task with the episodes of them all."""
    monkeypatch.setattr(groups, "ROWS", rows)
    monkeypatch.setattr(packing, "ROWS", rows)
    observation, returns, alive = batch(n=6)
    index = Index(alive)
    found = fit_linear(observation, returns, alive, runs, index).split(runs)
    assert torch.equal(torch.cat(found), fit_linear(observation, returns, alive, runs, index))
    for ours, *own in zip(found, *(x.split(runs) for x in (observation, returns, alive)), strict=True):
        as_one = (x.movedim(0, 1).flatten(1, 2).unsqueeze(0) for x in own)
        theirs = fit_linear(*as_one)[0].unflatten(1, ours.shape[::2]).movedim(1, 0)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="index: of other trajectories"):
        fit_linear(observation, returns, alive.clone(), runs, index)


def test_steps_that_were_not_played_do_not_count():
    observation, returns, alive = batch()
    before = fit_linear(observation, returns, alive)
    rubbish = torch.where(alive.bool(), returns, 1e6)
    far = torch.where(alive.bool().unsqueeze(-1), observation, 9.0)
    assert torch.allclose(fit_linear(far, rubbish, alive), before, atol=1e-9)
    assert not before[alive == 0].any()


def test_constant_observations_are_no_trouble():
    observation, returns, alive = batch()
    predicted = fit_linear(torch.ones_like(observation), returns, alive)
    assert torch.isfinite(predicted).all()


def test_shapes_are_asserted():
    observation, returns, alive = batch()
    for bad in ((returns.mT, alive), (returns, alive.mT)):
        with pytest.raises(ValueError, match="must match"):
            fit_linear(observation, *bad)


def test_the_dtype_of_returns_is_kept():
    observation, returns, alive = batch()
    assert fit_linear(observation.float(), returns.float(), alive.float()).dtype == torch.float32
