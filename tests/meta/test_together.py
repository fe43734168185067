"""Runs that are trained together are what they are alone."""

import csv
import os
import signal

import pytest
import torch

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import ROLES
from metaduel.meta.adaptation import pieces
from metaduel.meta.adaptation.inner import Diverged
from metaduel.meta.adaptation.work import AGAIN, alone, together
from metaduel.meta.learners.maml import MAML
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.problems.together import merged
from metaduel.meta.runs import stack
from metaduel.meta.runs.checkpoint import load_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner, train, train_all
from metaduel.meta.runs.trainer import BEST, LAST, Trainer, TrainingStopped

LONG = (
    "fomaml",
    "joint",
    "self_play",
    "rl2",
)  # runs of 20 iterations; the others are longer ones, or amplify rounding sooner
SMALL = {
    "iterations": 20, "tasks": 4, "episodes": 2, "horizon": 4, "hidden": (8,), "validate_every": 20, "validation_tasks": 1,
    "steps": 2, "outer_lr": 3e-4,
}  # fmt: skip


def configs(game, method, *changes, **more):
    return [
        TrainConfig(game=game, method=method).override(**{**SMALL, **more, "seed": seed, **own})
        for seed, own in enumerate(changes)
    ]


def rows(folder):
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(v) for name, v in row.items() if v and name != "seconds"} for row in csv.DictReader(file)]


def assert_same(ours, theirs, tolerance=1e-3):
    """The same run within a tolerance, relative to the largest number of each tensor."""
    for name in (LAST, BEST):
        (found, state), (wanted, other) = (load_checkpoint(folder / name) for folder in (ours, theirs))
        assert found.keys() == wanted.keys()
        assert {k: v for k, v in state.items() if k not in ("seconds", "best")} == {
            k: v for k, v in other.items() if k not in ("seconds", "best")
        }
        for key, value in wanted.items():
            size = float(value.abs().max()) if value.numel() else 0.0
            torch.testing.assert_close(found[key], value, rtol=0, atol=tolerance * (size + 1e-3), msg=key)
    for one, other in zip(rows(ours), rows(theirs), strict=True):
        assert one.keys() == other.keys()
        assert one == pytest.approx(other, rel=1e-2, abs=1e-2)


SETTINGS = {
    "meta_mapg": {"persona_share": 0.5},
    "meta_pg": {"persona_share": 0.5},
    "reptile": {"persona_share": 0.25},
    "rarl": {"protagonist_turns": 2},
    "rl2": {"chain_episodes": 3, "truncation": 5, "minibatches": 2},
    "self_play": {"pool_every": 3, "learned_share": 1.0},
    "maml_trpo": {"cg_iterations": 3, "damping": 0.1, "max_kl": 1e-3},
}


@pytest.mark.parametrize("method", METHODS)
def test_runs_trained_together_are_what_they_are_alone(tmp_path, method):
    more = SETTINGS.get(method, {}) | ({} if method in LONG else {"iterations": 4})
    game = "MatchingPennies" if method in ("meta_mapg", "lola_dice") else "Pendulum"
    other = {"max_kl": 0.002} if "outer_lr" in METHODS[method].ignores else {"outer_lr": 1e-4}
    own = configs(game, method, {}, other, **more)
    found = train_all(own, [tmp_path / f"together{i}" for i in range(2)], quiet=True)
    for i, config in enumerate(own):
        run = train(config, tmp_path / f"alone{i}", quiet=True)
        assert_same(tmp_path / f"together{i}", tmp_path / f"alone{i}")
        assert found[i].config == run.config == config.override(compile=False)


@pytest.mark.parametrize("method", ["maml", "promp", "reptile", "e_maml", "joint", "rl2", "self_play"])
def test_episodes_of_different_lengths(tmp_path, method):
    """Every run's losses are per step of its own longest episode, and their statistics of its own tasks."""
    more = {**SETTINGS.get(method, {}), "iterations": 2, "horizon": 40, "normalise_observations": True, "tasks": 3}
    if method in ("maml", "joint"):
        more["baseline"] = "batch"
    own = configs("CartPole", method, {}, {"discount": 0.9}, **more)
    train_all(own, [tmp_path / f"together{i}" for i in range(2)], quiet=True)
    steps = []
    for i, config in enumerate(own):
        train(config, tmp_path / f"alone{i}", quiet=True)
        assert_same(tmp_path / f"together{i}", tmp_path / f"alone{i}", 1e-2)
        steps += [row["environment_steps"] for row in rows(tmp_path / f"alone{i}")]
    assert len(set(steps)) == len(steps)  # episodes do end early


def test_several_methods_share_one_batch(tmp_path):
    """A run ends when its own budget does, whatever the others do."""
    own = [
        *configs("CartPole", "fomaml", {}, iterations=4),
        *configs("CartPole", "maml", {}, {"episodes": 3}, {"tasks": 2}, iterations=3, inner_lr=0.1),
        *configs("CartPole", "joint", {}, {"environment_steps": 60}, iterations=5),
    ]
    train_all(own, [tmp_path / f"together{i}" for i in range(len(own))], quiet=True)
    ends = []
    for i, config in enumerate(own):
        train(config, tmp_path / f"alone{i}", quiet=True)
        assert_same(tmp_path / f"together{i}", tmp_path / f"alone{i}")
        ends.append(len(rows(tmp_path / f"alone{i}")))
    assert ends[:5] == [4, 3, 3, 3, 5]
    assert ends[5] < 5


def test_runs_with_settings_of_an_update_per_role(tmp_path):
    different = {"adversary_inner_discount": 0.5, "adversary_inner_clip": 0.4, "adversary_inner_lr": 0.3}
    own = configs("Pendulum", "fomaml", {}, different, {"inner_lr": 0.3, "inner_clip": 2.0}, iterations=3)
    train_all(own, [tmp_path / f"together{i}" for i in range(3)], quiet=True)
    for i, config in enumerate(own):
        train(config, tmp_path / f"alone{i}", quiet=True)
        assert_same(tmp_path / f"together{i}", tmp_path / f"alone{i}")
    rates = [rows(tmp_path / f"together{i}")[0] for i in range(2)]
    assert rates[0]["protagonist/inner_lr_1"] == pytest.approx(rates[1]["protagonist/inner_lr_1"], rel=0.2)
    assert rates[1]["adversary/inner_lr_1"] == pytest.approx(0.3, rel=0.2)


def test_methods_that_differentiate_in_other_ways_share_no_graph(tmp_path):
    more = {"iterations": 2, "learned_share": 1.0}
    own = [
        *configs("Pendulum", "joint", {}, **more),
        *configs("Pendulum", "self_play", {}, {"opponents": "latest"}, pool_every=1, **more),
        *configs("Pendulum", "rarl", {}, **more),
    ]
    train_all(own, [tmp_path / f"together{i}" for i in range(len(own))], quiet=True)
    for i, config in enumerate(own):
        train(config, tmp_path / f"alone{i}", quiet=True)
        assert_same(tmp_path / f"together{i}", tmp_path / f"alone{i}")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("method", ["rl2", "maml"])
def test_runs_that_normalise_observations_beside_others(tmp_path, method, first):
    own = configs("Pendulum", method, {}, {}, iterations=2)
    own[0 if first else 1] = own[0 if first else 1].override(normalise_observations=True)
    train_all(own, [tmp_path / f"together{i}" for i in range(2)], quiet=True)
    for i, config in enumerate(own):
        train(config, tmp_path / f"alone{i}", quiet=True)
        assert_same(tmp_path / f"together{i}", tmp_path / f"alone{i}")


def test_a_stack_that_is_interrupted_stops_in_step_and_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    own = configs("Pendulum", "joint", {}, {}, {}, iterations=5, validate_every=5)
    train_all(own, [tmp_path / f"whole{i}" for i in range(3)], quiet=True)
    iterate, begun = Trainer._iterate, []

    def interrupted(self):
        begun.append(1)
        if len(begun) == 8:  # the second run's third iteration: the first one's has begun, too
            os.kill(os.getpid(), signal.SIGINT)
        return (yield from iterate(self))

    monkeypatch.setattr(Trainer, "_iterate", interrupted)
    broken = [tmp_path / f"broken{i}" for i in range(3)]
    with pytest.raises(KeyboardInterrupt):
        train_all(own, broken, quiet=True)
    assert [load_checkpoint(folder / LAST)[1]["iteration"] for folder in broken] == [3, 3, 3]
    train_all(own, broken, resume=True, quiet=True)
    for i, folder in enumerate(broken):
        (found, _), (wanted, _) = (load_checkpoint(one / LAST) for one in (folder, tmp_path / f"whole{i}"))
        assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_a_run_that_fell_behind_is_in_step_again(tmp_path, monkeypatch):
    """One task diverges in one run, whose problem has two parts; both runs are done at once again after it."""
    own = configs("Pendulum", "fomaml", {}, {}, iterations=6, persona_share=0.5)
    groups, failed, do_all = [], [], pieces.Unrolling.do_all

    def counted(self, together):
        groups.append(len(together))
        if not failed and self.problem is not None and "adversary" in self.problem.tasks and len(groups) == 2:
            failed.append(1)
            error = Diverged(next(iter(self.problem.tasks)), [0], 1)
            return [error, AGAIN]
        return do_all(self, together)

    monkeypatch.setattr(pieces.Unrolling, "do_all", counted)
    train_all(own, [tmp_path / f"b{i}" for i in range(2)], quiet=True)
    assert failed
    assert groups.count(2) > 12


def test_data_are_bit_equal_at_equal_weights():
    own = configs("Sumo", "maml", {}, {}, {}, episodes=3, horizon=20)
    sources = [DuelSource(own[0])]
    sources += [DuelSource(config, beside=sources[0]) for config in own[1:]]
    problems = [source.problem(4) for source in sources]
    players = [
        {role: make_learner(c, s).starts.stacked(role, n) for role, n in p.tasks.items()}
        for c, s, p in zip(own, sources, problems, strict=True)
    ]
    everyone = {
        role: {name: torch.cat([one[role][name] for one in players]) for name in players[0][role]} for role in ROLES
    }
    whole = merged(problems).draw(everyone, 1)
    assert whole.environment_steps == sum(part.environment_steps for part in whole.parts)
    for problem, one, part in zip(problems, players, whole.parts, strict=True):
        alone = problem.draw(one, 1)
        assert alone.environment_steps == part.environment_steps
        for role in ROLES:
            steps = alone.data[role].reward.shape[1]  # the others' episodes may be longer
            assert not part.data[role].alive[:, steps:].any()
            for ours, theirs in zip(part.data[role].until(steps)[:4], alone.data[role][:4], strict=True):
                assert torch.equal(ours, theirs)


def test_a_run_that_stops_takes_no_other_with_it(tmp_path, monkeypatch):
    own = configs("Pendulum", "fomaml", {}, {}, {}, iterations=4, validate_every=2)
    learn = MAML.step

    def step(self, gradients, lr_scale=1.0):
        if self.config.max_norm == 7.0:
            steps.append(1)
            if len(steps) == 3:
                raise FloatingPointError("the protagonist's outer gradient of x is not finite")
        return learn(self, gradients, lr_scale)

    steps = []
    own[1] = own[1].override(max_norm=7.0)
    monkeypatch.setattr(MAML, "step", step)
    with pytest.raises(TrainingStopped, match=r"1 of 3 runs stopped: iteration 3: .*gradient of x.*b1/checkpoints"):
        train_all(own, [tmp_path / f"b{i}" for i in range(3)], quiet=True)
    assert [len(rows(tmp_path / f"b{i}")) for i in range(3)] == [4, 2, 4]
    monkeypatch.undo()
    train(own[2], tmp_path / "alone", quiet=True)
    assert_same(tmp_path / "b2", tmp_path / "alone")
    train_all(own, [tmp_path / f"b{i}" for i in range(3)], resume=True, quiet=True)  # goes on where it stopped
    train(own[1], tmp_path / "other", quiet=True)
    assert_same(tmp_path / "b1", tmp_path / "other")


@pytest.mark.parametrize("place", [0, 2])
def test_a_run_of_promp_that_stops_on_data_used_again(tmp_path, place):
    own = configs("Pendulum", "promp", {}, {}, {}, iterations=3)
    own[place] = own[place].override(outer_lr=1e30)
    with pytest.raises(TrainingStopped, match="1 of 3 runs stopped"):
        train_all(own, [tmp_path / f"b{i}" for i in range(3)], quiet=True)
    assert [len(rows(tmp_path / f"b{i}")) for i in range(3) if i != place] == [3, 3]


def test_tasks_that_diverge_are_left_out_of_their_own_run(tmp_path):
    own = configs("Pendulum", "fomaml", {}, {"inner_lr": 1e30}, {}, iterations=2, validate_every=2, max_skipped=1000)
    for i, config in enumerate(own):
        if i != 1:
            train(config, tmp_path / f"alone{i}", quiet=True)
    with pytest.raises(TrainingStopped, match="1 of 3 runs stopped"):
        train_all(own, [tmp_path / f"together{i}" for i in range(3)], quiet=True)
    for i in (0, 2):
        assert_same(tmp_path / f"together{i}", tmp_path / f"alone{i}")


def test_stacks_fit_the_bound(tmp_path, monkeypatch, capsys):
    own = configs("Pendulum", "joint", {}, {}, {}, iterations=1)
    monkeypatch.setattr(stack, "STACK_BYTES", int(2.5 * stack.run_bytes(own[0], DuelSource(own[0]))))
    train_all(own, [tmp_path / f"b{i}" for i in range(3)])
    assert "3 runs in stacks of 2, 1: more do not fit" in capsys.readouterr().err
    for i, config in enumerate(own):
        train(config, tmp_path / f"alone{i}", quiet=True)
        assert_same(tmp_path / f"b{i}", tmp_path / f"alone{i}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": (9,)}, r"hidden=\(9,\) and \(8,\): runs that are trained together have the same hidden"),
        ({"game": "CartPole"}, "game='CartPole' and 'Pendulum'"),
        ({"method": "rl2"}, "method='rl2' and 'any without a memory'"),
        ({"roles": ("protagonist",)}, "roles=.*have the same roles"),
    ],
)
def test_what_cannot_be_stacked_is_named(tmp_path, changes, message):
    own = configs("Pendulum", "maml", {}, {})
    own[1] = own[1].override(**changes)
    with pytest.raises(InvalidInputError, match=message):
        train_all(own, [tmp_path / "a", tmp_path / "b"], quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_had_stops_all_before_anything_is_written(tmp_path):
    own = configs("Pendulum", "joint", {}, {}, iterations=1)
    train(own[1], tmp_path / "b", quiet=True)
    with pytest.raises(InvalidInputError, match="b holds a run already"):
        train_all(own, [tmp_path / "a", tmp_path / "b"], quiet=True)
    assert not (tmp_path / "a").exists()
    for folders, message in (([tmp_path / "a"], "1 for 2 runs"), ([tmp_path / "a"] * 2, "must be different")):
        with pytest.raises(InvalidInputError, match=message):
            train_all(own, folders, quiet=True)


class Piece:
    """Sums numbers; those below 0 fail."""

    def __init__(self, number, done):
        self.number, self.done, self.kind = number, done, "sum"

    def do(self):
        self.done.append(1)
        if self.number < 0:
            raise ValueError(self.number)
        return self.number

    def do_all(self, pieces):
        self.done.append(len(pieces))
        if any(one.number < 0 for one in pieces):
            return [ValueError(one.number) if one.number < 0 else AGAIN for one in pieces]
        return [one.number for one in pieces]


def adding(numbers, done):
    total = 0
    for number in numbers:
        try:
            total += yield Piece(number, done)
        except ValueError:
            total += yield Piece(-number, done)
    return total


def test_pieces_of_one_kind_are_done_at_once():
    """A piece that fails is raised where it was yielded; the others are done again, and all are in step again after it."""
    done = []
    assert together([adding(one, done) for one in ([1, 2, 3], [1, -2, 3], [1, 2, 3, 4])]) == [6, 6, 10]
    assert done == [3, 3, 3, 3, 1]
    assert alone(adding([1, -2], done)) == 3
    (error,) = together([failing()])
    assert isinstance(error, ValueError)


def failing():
    yield Piece(-1, [])


class Whole(Piece):
    """Sums that cannot be done at once, though their kind says so."""

    def do_all(self, pieces):
        raise RuntimeError("no sum of sums")


def test_pieces_that_cannot_be_done_at_once_are_done_alone_and_say_so():
    def adding_whole(number):
        return (yield Whole(number, []))

    with pytest.warns(UserWarning, match=r"2 runs go on one by one for a moment \(RuntimeError: no sum of sums\)"):
        assert together([adding_whole(1), adding_whole(2)]) == [1, 2]
