"""Observation spaces: bounded where observations are, and never left, whatever is allowed."""

import dataclasses
import math

import gymnasium
import numpy as np
import pytest
import torch

from metaduel.envs import contract
from metaduel.envs.adapters.gymnasium import SeatEnv
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find, specs
from metaduel.envs.core.spec import ROLES, Context

each_family = pytest.mark.parametrize("spec", specs().values(), ids=lambda spec: spec.name)


@pytest.mark.parametrize("seed", [1, 2])
@each_family
def test_no_task_and_no_action_leads_out_of_the_space(spec, seed):
    assert next(contract._everywhere(contract._Family(spec), seed), None) is None


def test_a_space_that_is_left_only_by_wild_tasks_or_late_breaks_the_contract():
    edge = np.array([4.8, np.inf, math.radians(24), np.inf], np.float32)  # of Gymnasium's CartPole
    box = gymnasium.spaces.Box(-edge, edge)
    small = dataclasses.replace(find("CartPole"), observation_spaces=dict.fromkeys(ROLES, box))
    with pytest.raises(contract.ContractBroken, match=r"number 2 of the protagonist's observation must be in \[-0.4"):
        contract.check_game(small)
    late = dataclasses.replace(find("Navigation"), horizon=150)
    with pytest.raises(contract.ContractBroken, match=r"step 1..: number . of the protagonist.* all actions"):
        contract.check_game(late)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_family
def test_contexts_are_shown_within_the_space_at_every_value_and_reach_its_ends(spec, dtype):
    duel, rng, n = Duel(make_game(spec), informed=ROLES), np.random.default_rng(0), 4000
    low, high = np.array([context.bounds for context in spec.contexts]).T
    rows = rng.uniform(low, high, (n, len(low)))
    for end, values in ((low, rows[:50]), (high, rows[50:100])):  # the ends, and what single precision has beside them
        values[:] = end
        values[25:] = np.clip(np.nextafter(np.float32(end), -np.sign(end).astype(np.float32)), low, high)
    whole = [context.integer for context in spec.contexts]
    rows[:, whole] = rows[:, whole].round()
    params = duel.game.params_from_rows(torch.from_numpy(rows), dtype)
    for seat, role in enumerate(ROLES):
        seen = duel._append(torch.zeros(n, 0, dtype=dtype), params, seat).numpy().astype(np.float32)
        space, width = duel.observation_space(role), seen.shape[1]
        assert np.isfinite(space.low).all()
        assert np.isfinite(space.high).all()
        assert ((space.low[-width:] <= seen) & (seen <= space.high[-width:])).all()
        numbers = sum(context.shown_as == "number" for context in spec.contexts)
        for reached, end in ((seen.min(0), space.low[-width:]), (seen.max(0), space.high[-width:])):
            assert reached[:numbers] == pytest.approx(end[:numbers], rel=1e-6, abs=1e-6)


def test_the_range_of_a_context_holds_in_single_precision_wherever_it_lies():
    rng = np.random.default_rng(0)
    for _ in range(3000):
        middle, width = rng.normal() * 10.0 ** rng.integers(-6, 7), 10.0 ** rng.uniform(-6, 6)
        train = (middle - width, middle + width)
        bounds = (train[0] - width * 10.0 ** rng.uniform(-3, 6), train[1] + width * 10.0 ** rng.uniform(-3, 6))
        context = Context("wind", "1", middle, train, "", (), bounds)
        values = torch.from_numpy(np.concatenate([rng.uniform(*bounds, 50), bounds, train]))
        for dtype in (torch.float32, torch.float64):
            centre, factor = torch.tensor(context.scaling, dtype=torch.float64).to(dtype)
            shown = ((values.to(dtype) - centre) * factor).float().numpy()
            low, high = context.shown_range
            assert low <= shown.min()
            assert shown.max() <= high


@pytest.mark.parametrize(
    ("bounds", "shown"),
    [
        ((-math.inf, math.inf), (-math.inf, math.inf)),
        ((0.0, math.inf), (-1.0, math.inf)),
        ((-1e300, 1e300), (-math.inf, math.inf)),  # more than single precision holds
    ],
)
def test_what_is_unbounded_stays_so(bounds, shown):
    context = Context("wind", "m/s", 1.0, (0.0, 2.0), "", (), bounds)
    assert context.shown_range == pytest.approx(shown, abs=1e-6)


def test_angles_and_categories_have_the_ranges_of_what_shows_them():
    # One number, two angles and a category, whatever their order in the spec: numbers, angles, categories.
    contexts = (
        Context("kind", "-", 0, (0, 2), "", (), (0, 5), ROLES, integer=True, shown_as="category"),
        Context("way", "rad", 0.0, (-1.0, 1.0), "", (), (-9.0, 9.0), ROLES, shown_as="angle"),
        Context("push", "N", 3.0, (2.0, 4.0), "", (), (1.0, 7.0), ROLES),
        Context("slope", "rad", 0.0, (-1.0, 1.0), "", (), (-9.0, 9.0), ROLES, shown_as="angle"),
    )
    space = dataclasses.replace(find("Navigation"), contexts=contexts).observation_space("protagonist")
    assert space.low[2:] == pytest.approx([-2, -1, -1, -1, -1, 0, 0, 0], abs=1e-6)
    assert space.high[2:] == pytest.approx([4, 1, 1, 1, 1, 1, 1, 1], abs=1e-6)


@pytest.mark.parametrize("informed", [False, True], ids=["plain", "informed"])
@pytest.mark.parametrize("seat", ROLES)
@each_family
def test_observations_can_be_rescaled(spec, seat, informed):
    low, high = np.float32(-1), np.float32(1)
    env = gymnasium.wrappers.RescaleObservation(SeatEnv(spec, seat, informed=informed), low, high)
    observation, info = env.reset(seed=0)
    for _ in range(10):
        assert observation.dtype == np.float32
        assert (np.abs(observation) <= 1 + 1e-6).all()
        observation, _, terminated, truncated, info = env.step(env.action_space.sample(info.get("action_mask")))
        if terminated or truncated:
            break


def test_gymnasium_refuses_to_rescale_what_has_no_bounds():
    spec = find("Navigation")
    free = dataclasses.replace(spec.contexts[0], bounds=(-math.inf, math.inf), visible_to=ROLES)
    env = SeatEnv(dataclasses.replace(spec, contexts=(free, *spec.contexts[1:])))
    with pytest.raises(ValueError, match="unbounded components"):
        gymnasium.wrappers.RescaleObservation(env, np.float32(-1), np.float32(1))
