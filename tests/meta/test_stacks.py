"""Several adapters in one batch: each gets what it gets alone, and a failure is its own."""

from dataclasses import replace

import pytest
import torch

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.latent import LatentPolicy
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.recurrent import GRUPolicy
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import other
from metaduel.envs.core.tasks import frozen_tasks, task_rows
from metaduel.envs.players.names import load_player
from metaduel.meta.adaptation import few_shot
from metaduel.meta.adaptation.adapters import GradientAdapter, MemoryAdapter
from metaduel.meta.adaptation.few_shot import Failed, Settings, adapt_and_test, adapt_and_test_all, outcomes
from metaduel.meta.adaptation.stacks import groups, stack_of

ROLE = "protagonist"
LOSS = LossConfig(inner_discount=0.9, inner_baseline=False, inner_clip=0.5)


def settings(game="Pursuit", horizon=9, shots=2, tasks=3, role=ROLE):
    spec = find(game)
    duel = Duel(make_game(spec), horizon)
    rows = task_rows(spec, frozen_tasks(spec, "held_out")[:tasks], {})
    rivals = [load_player(duel, other(role), name) for name in spec.opponents[other(role)]["train"][:2]]
    return Settings(duel, role, rows, rivals, shots, 2, 4, 5, 6)


def made(where, policy=MLPPolicy, rates=(0.5,), seed=0, loss=LOSS, **sizes):
    size, actions = where.simulator.observation_space(where.role).shape[0], where.simulator.action_space(where.role)
    net = policy(size, actions, **sizes)
    weights = net.init(seed)
    if net.lasting:
        weights["memory.start"] = 0.1 * torch.randn(weights["memory.start"].shape, generator=torch.manual_seed(seed))
        return MemoryAdapter(net, weights)
    return GradientAdapter(where.role, net, weights, torch.tensor(rates), loss)


def assert_same(where, adapters):
    """Played together they get what they get one by one."""
    for found, adapter in zip(adapt_and_test_all(where.simulator, adapters, *where[1:]), adapters, strict=True):
        alone = adapt_and_test(where.simulator, adapter, *where[1:])
        torch.testing.assert_close(found.returns, alone.returns, rtol=1e-4, atol=1e-4)
        assert len(found.players) == len(alone.players)
        for own, right in zip(found.players, alone.players, strict=True):
            assert type(own) is type(right)
            assert own.weights.keys() == right.weights.keys()
            for name, value in right.weights.items():
                torch.testing.assert_close(own.weights[name], value, rtol=1e-4, atol=1e-5)
            if right.carry is not None:
                torch.testing.assert_close(own.carry.memory, right.carry.memory, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("game", ["Pursuit", "Sumo", "Forgery"])
@pytest.mark.parametrize("policy", [MLPPolicy, GRUPolicy, MemoryPolicy])
def test_a_stack_plays_as_each_alone(game, policy):
    where = settings(game)
    sizes = {"hidden": (6,)} if policy is MLPPolicy else {"units": 6}
    adapters = [made(where, policy, (rate, rate / 2), seed, **sizes) for seed, rate in enumerate((0.1, 1.0, 3.0))]
    assert groups(adapters) == [[0, 1, 2]]
    assert_same(where, adapters)


def test_a_belief_in_a_stack():
    where = settings()
    space = where.simulator.action_space(other(ROLE))
    assert_same(where, [made(where, LatentPolicy, seed=seed, units=6, other_space=space) for seed in range(2)])


@pytest.mark.parametrize("per", ["one", "tensor", "number"])
def test_step_sizes_of_each_adapter(per):
    where = settings()
    first = made(where, hidden=(6,))
    count = {"one": 1, "tensor": 5, "number": sum(value.numel() for value in first.weights.values())}[per]
    generator = torch.manual_seed(1)
    adapters = [replace(first, rates=torch.rand(2, count, generator=generator)) for _ in range(3)]
    assert groups([*adapters, first]) == ([[0, 1, 2, 3]] if count == 1 else [[0, 1, 2], [3]])
    assert_same(where, adapters)


def test_updates_that_lie_behind_a_start_count():
    where = settings()
    first = made(where, rates=(0.1, 1.0, 4.0), hidden=(6,))
    assert_same(where, [first, replace(first, shot=1), replace(first, shot=5)])


def test_every_adapter_meets_the_same_noise():
    where = settings()
    one = made(where, hidden=(6,))
    first, second = (found.returns for found in adapt_and_test_all(where.simulator, [one, one], *where[1:]))
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    assert (first[0] - first[1]).abs().max() > 1e-3
    assert len(first[0].flatten().unique()) > first[0].numel() / 2


def test_an_update_is_scaled_by_the_longest_of_its_own_episodes():
    """One player is soon pushed out of the ring, the other fights on: the horizon of the one is not that of the other."""
    where = settings("Sumo", horizon=60, shots=1)
    quick = made(where, rates=(1.0,), hidden=(6,))
    slow = replace(quick, weights={**quick.weights, "layer1.bias": torch.full_like(quick.weights["layer1.bias"], 5.0)})
    lengths = []
    for one in (quick, slow):
        data = where.arenas()[0].shot(0).play(one.start(where.arenas()[0].seat, len(where.tasks) * 2, 0))
        lengths.append(int(data.alive.sum(1).max()))
    assert lengths[0] < lengths[1] / 2
    assert_same(where, [quick, slow])


def test_what_differs_is_played_apart():
    where = settings()
    small = made(where, hidden=(6,))
    others = [
        made(where, hidden=(7,)),
        made(where, hidden=(6,), loss=replace(LOSS, inner_discount=0.8)),
        made(where, GRUPolicy, units=6),
        made(where, MemoryPolicy, units=6),
        replace(small, role="adversary"),
        replace(small, policy=MLPPolicy(*_sizes(small), hidden=(6,), mask=slice(0, 2))),
        replace(small, weights={name: value.double() for name, value in small.weights.items()}),
    ]
    assert groups([small, *others]) == [[i] for i in range(len(others) + 1)]
    alike = [
        made(where, hidden=(6,), seed=3, loss=replace(LOSS, discount=0.5, baseline="batch")),
        replace(small, rates=torch.tensor([0.1, 0.2])),
    ]
    assert groups([small, *others, *alike]) == [[0, 8, 9], *([i] for i in range(1, 8))]
    assert stack_of([small, others[3]], 1) is None


def _sizes(adapter):
    return adapter.policy.observation_size, adapter.policy.action_space


def test_a_batch_keeps_within_its_memory(monkeypatch):
    where, played = settings(shots=1), []
    adapters = [made(where, hidden=(6,), seed=seed) for seed in range(5)]
    together = few_shot._together
    monkeypatch.setattr(few_shot, "_together", lambda *given: played.append(len(given[1].adapters)) or together(*given))
    adapt_and_test_all(where.simulator, adapters, *where[1:])
    assert played == [5]
    need = few_shot.BATCH_BYTES // few_shot._at_once(where, adapters[0])
    monkeypatch.setattr(few_shot, "BATCH_BYTES", int(3.5 * need))
    assert_same(where, adapters)
    assert played == [5, 3, 2]
    monkeypatch.setattr(few_shot, "BATCH_BYTES", 1)
    adapt_and_test_all(where.simulator, adapters, *where[1:])
    assert played == [5, 3, 2]


def test_a_failure_takes_no_other_result_with_it():
    where = settings()
    good = made(where, hidden=(6,))

    class Odd:
        adapts = True

        def start(self, seat, rows, seed):
            self.seed = seed
            raise InvalidInputError("odd")

    odd, unadapted = Odd(), replace(good, rates=good.rates[:0])
    counts = []
    found = outcomes(where, [good, odd, unadapted, unadapted, good], [1, 2, 3, 4, 5], counts.append)
    assert counts == [2, 1, 2]
    assert [isinstance(one, Failed) for one in found] == [False, True, True, True, False]
    assert odd.seed == 2
    torch.testing.assert_close(found[0], found[4], rtol=1e-5, atol=1e-6)
    assert (str(found[1]), found[1].shot, found[2].shot) == ("odd", 0, 1)
    with pytest.raises(Failed, match="odd"):
        adapt_and_test_all(where.simulator, [good, odd], *where[1:])
