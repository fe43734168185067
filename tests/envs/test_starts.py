"""Starts of episodes that are made ahead are those that each row would make alone, at the time."""

import copy

import numpy as np
import pytest
import torch

from metaduel.envs.adapters import starts as module
from metaduel.envs.adapters.given import draw_tasks
from metaduel.envs.adapters.seat import Seat
from metaduel.envs.adapters.starts import Starts
from metaduel.envs.core import noise, registry, tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.trees import take_rows

SPECS = list(registry.specs().values())
every_family = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
ROWS = 5


def alone(duel, seed, episode, split="train", task=None):
    """The start of one episode of one row, made as ``Seat`` made it before starts were made ahead."""
    key = noise.episode_key(torch.tensor([seed]), torch.tensor([episode]))
    if task is None:
        values = draw_tasks(duel.spec, split, key)
    else:
        values = torch.tensor([[task[name] for name in duel.spec.context_names]], dtype=torch.float64)
    rows = duel.start(duel.game.params_from_rows(values), key)
    return values, rows, duel.observe(rows)


def leaves(tree):
    return [tree] if isinstance(tree, torch.Tensor) else [leaf for part in tree for leaf in leaves(part)]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True))


class Batch:
    """Rows whose starts are compared with those made alone, at every reset."""

    def __init__(self, spec, rows=ROWS, seed=50):
        self.duel = Duel(make_game(spec))
        self.starts = Starts(self.duel, rows)
        self.starts.reseed_all(seed)
        self.seeds, self.episodes = [seed + row for row in range(rows)], [-1] * rows
        self.settings = [{} for _ in range(rows)]
        self.rows = self.seen = None

    def reset(self, index):
        kept = copy.deepcopy((self.rows, self.seen))
        before, seen = self.rows, self.seen
        self.rows = self.starts.begin(before, None if index is None else torch.tensor(index))
        self.seen = self.starts.observations(None if before is None or index is None else seen)
        assert before is None or same(kept, (before, seen))  # nothing that was handed out has changed
        chosen = range(len(self.seeds)) if index is None else index
        for row in range(len(self.seeds)):
            if row not in chosen:
                assert same(take_rows(self.rows, [row]), take_rows(before, [row]))
                assert all(torch.equal(new[row], old[row]) for new, old in zip(self.seen, seen, strict=True))
                continue
            self.episodes[row] += 1
            values, rows, seen_alone = alone(self.duel, self.seeds[row], self.episodes[row], **self.settings[row])
            assert torch.equal(self.starts.values[[row]], values)
            assert same(take_rows(self.rows, [row]), rows)
            assert all(torch.equal(new[[row]], one) for new, one in zip(self.seen, seen_alone, strict=True))
        assert self.starts.episode.tolist() == self.episodes


def some(rng, rows=ROWS):
    return np.flatnonzero(rng.random(rows) < 0.5).tolist() or [int(rng.integers(rows))]


@every_family
def test_starts_are_those_made_alone(spec):
    batch, rng = Batch(spec), np.random.default_rng(0)
    batch.reset(None)
    for _ in range(30):  # the ring of starts that are kept goes round more than once
        batch.reset(some(rng))
    batch.reset(None)
    batch.reset([2])


@every_family
def test_starts_follow_every_change(spec):
    """Seeds, tasks and splits that change between resets, whatever was made ahead."""
    batch, rng = Batch(spec), np.random.default_rng(1)
    given = tasks.sample_tasks(spec, 1, seed=3)[0]
    batch.reset(None)

    def seed():
        batch.starts.reseed(1, 7)
        batch.seeds[1], batch.episodes[1] = 7, -1

    def task():
        batch.starts.change(batch.starts.check_tasks([(3, given)]))
        batch.settings[3]["task"] = given

    def split():
        batch.starts.change(splits=batch.starts.check_splits([(0, "held_out"), (2, "extrapolation")]))
        batch.settings[0]["split"], batch.settings[2]["split"] = "held_out", "extrapolation"

    def sampled():
        batch.starts.change(batch.starts.check_tasks([(3, None)]))
        del batch.settings[3]["task"]

    for change in (seed, task, split, sampled):
        for _ in range(3):
            batch.reset(some(rng))
        change()
    for _ in range(10):
        batch.reset(some(rng))


def test_starts_made_in_pieces_are_the_same(monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 3)
    batch, rng = Batch(registry.find("Pursuit")), np.random.default_rng(2)
    batch.reset(None)
    for _ in range(20):
        batch.reset(some(rng))


@every_family
def test_rows_stay_where_they_are_in_memory(spec):
    """A reset leaves the layout of states as steps made it, on which their speed hangs."""
    seat = Seat(spec, 6, opponent=spec.opponents["adversary"]["train"][0])
    seat.reset()
    space = spec.action_spaces["protagonist"]
    action = torch.from_numpy(np.stack([np.asarray(space.sample()) for _ in range(6)]))
    seat.step(action)
    before = [leaf.stride() for leaf in leaves(seat.rows.state)]
    for _ in range(2):
        seat.step(action, torch.tensor([True, False, False, True, False, False]))
    again = seat.duel.step(seat.rows, (action, seat._opponents.act(seat.rows, seat.observations[1], seat._paid)))[0]
    assert (
        [leaf.stride() for leaf in leaves(seat.rows.state)] == [leaf.stride() for leaf in leaves(again.state)] == before
    )


def count_starts(seat, monkeypatch):
    """Sizes of the batches in which starts are made from now on."""
    made, start = [], seat.duel.start
    monkeypatch.setattr(seat.duel, "start", lambda params, key: made.append(len(key)) or start(params, key))
    return made


def test_resets_are_made_ahead_in_blocks(monkeypatch):
    seat = Seat("Pursuit", 64, horizon=20)
    made = count_starts(seat, monkeypatch)
    seat.reset()
    resets, actions = 0, torch.rand(64, 2) * 2 - 1
    for _ in range(200):
        ended = int(seat.done.sum())
        resets += ended > 0
        seat.step(actions, seat.done)
    assert resets > 40
    assert len(made) < resets / 5
    assert min(made[1:]) > 32


def test_settings_that_change_with_every_reset_make_nothing_ahead(monkeypatch):
    seat = Seat("Pursuit", 64)
    made = count_starts(seat, monkeypatch)
    for number in range(5):
        seat.configure({"task": f"held_out:{number}"})
        seat.reset()
    assert made == [64] * 5


def test_an_opponent_drops_no_starts(monkeypatch):
    seat = Seat("Pursuit", 64)
    made = count_starts(seat, monkeypatch)
    for name in ("chase", "guard", "lead", "chase"):
        seat.configure({"opponent": name})
        seat.reset()
        assert set(seat.opponents) == {name}
    assert made == [64, 512]  # the first ones alone, then a block


@pytest.mark.parametrize("rows", [1, 3])
def test_copies_go_on_alike(rows):
    seat = Seat("Pursuit", rows)
    for row in range(rows):
        seat.reseed(row, row)
    for _ in range(3):
        seat.reset()
    twin = copy.deepcopy(seat)
    for _ in range(12):
        seat.reset()
        twin.reset()
        assert same(seat.rows, twin.rows)
        assert seat.task_ids().tolist() == twin.task_ids().tolist()
