"""Constants and seeds are where the rows are: on the meta device, which refuses to mix with another."""

import pytest
import torch

from metaduel.agents.adapters.arena import GameArena
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.envs.core import registry
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.placed import Placed
from metaduel.envs.core.tasks import sample_tasks, task_rows
from metaduel.meta.problems.duels import DuelProblem, Matchups

META = torch.device("meta")


def rows(game):
    spec = registry.find(game)
    return Duel(make_game(spec)), task_rows(spec, sample_tasks(spec, 2), {}).to(META)


def test_a_constant_is_copied_once():
    placed = Placed(torch.tensor([1.0, 2.0], dtype=torch.float64))
    there = placed.on(META, torch.float32)
    assert (there.device, there.dtype) == (META, torch.float32)
    assert placed.on(META, torch.float32) is there
    assert placed.on(torch.device("cpu")) is placed.on(torch.device("cpu"))
    assert placed.on(torch.device("cpu")).tolist() == [1.0, 2.0]
    assert placed.on(META).dtype == torch.float64


@pytest.mark.parametrize("game", ["Pursuit", "RockPaperScissors", "LeducPoker", "CartPole"])
def test_a_step_on_a_device_copies_no_constants_there(game, monkeypatch):
    duel, tasks = rows(game)
    key = torch.zeros(2, dtype=torch.int64, device=META)
    space = duel.action_space("protagonist")
    other = duel.action_space("adversary")
    actions = tuple(
        torch.zeros(2, *one.shape, dtype=torch.float32 if one.shape else torch.int64, device=META)
        for one in (space, other)
    )
    episode, _ = duel.step(duel.reset(duel.params(tasks), key, key), actions)
    duel.observe(episode)
    copied = []
    plain = torch.Tensor.to

    def to(self, *where, **named):
        made = plain(self, *where, **named)
        if made.device != self.device:
            copied.append(where)
        return made

    monkeypatch.setattr(torch.Tensor, "to", to)
    _, transition = duel.step(episode, actions)
    seen = duel.observe(episode)
    assert not copied
    assert {one.device for one in (*seen, transition.reward)} == {META}


def test_actions_are_clipped_where_they_are():
    duel, _ = rows("Pursuit")
    policy = MLPPolicy(3, duel.action_space("protagonist"))
    assert policy.clip(torch.zeros(2, 2, device=META)).device == META


def test_seeds_are_where_the_tasks_are():
    duel, tasks = rows("Pursuit")
    policy = MLPPolicy(3, duel.action_space("protagonist"))
    problem = DuelProblem(duel, {"protagonist": policy}, Matchups(tasks, duels=2), 3, 0, {"protagonist": None})
    assert problem.seeds.device == META
    assert GameArena(duel, "protagonist", tasks, [], 2, 0).seeds.device == META
