"""Tasks that are data: every gradient-based learner as it is, the same trainer, no games; and clear errors."""

import gc
import inspect
import math
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn

from metaduel.agents.networks import Dense, Module
from metaduel.agents.policies.base import stack
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.adaptation.supervised import adapt
from metaduel.meta.adaptation.work import alone
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.learners.promp import ProMP, ProMPConfig
from metaduel.meta.problems.supervised import DataProblem, Tasks
from metaduel.meta.runs.checkpoint import load_checkpoint
from metaduel.meta.runs.supervised import DataConfig, DataSource, load_data_run, meta_train
from metaduel.meta.runs.trainer import LAST


class Sines(Tasks):
    """Ten points of a sine as support, ten as query (Finn, Abbeel and Levine, ICML 2017, section 5.1)."""

    def __init__(self):
        self.networks = {"protagonist": Dense((1, 40, 40, 1))}

    def draw(self, n, split, seed):
        generator = torch.Generator().manual_seed(seed)
        amplitude, phase, x = (torch.rand(n, k, 1, generator=generator) for k in (1, 1, 20))
        return 10 * x - 5, (0.1 + 4.9 * amplitude) * torch.sin(10 * x - 5 + math.pi * phase)

    def loss(self, role, players, data, part, shot):
        x, y = (tensor[:, :10] if part == "support" else tensor[:, 10:] for tensor in data)
        return (self.networks[role](players[role], x) - y).square().mean((1, 2))


METHODS = ("maml", "fomaml", "reptile", "anil", "meta_sgd", "joint")
QUICK = {
    "iterations": 30,
    "tasks": 8,
    "steps": 2,
    "inner_lr": 0.01,
    "validate_every": 15,
    "validation_tasks": 20,
    "quiet": True,
}


def used(method, settings):
    """The settings that have an effect in a method; others are refused."""
    return {name: value for name, value in settings.items() if method != "joint" or name != "inner_lr"}


def run(code, cwd):
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_learner_learns_sines_and_no_game_is_imported(tmp_path):
    """The front door registers the games; without it, a learner on data brings in nothing of them."""
    quick = {method: used(method, dict(QUICK, iterations=2, validate_every=2)) for method in METHODS}
    code = f"""
import importlib.abc, importlib.util, sys

class NoFrontDoor(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "metaduel":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec("metaduel")
        spec = importlib.util.spec_from_loader("metaduel", loader=None, is_package=True)
        spec.submodule_search_locations = list(found.submodule_search_locations)
        return spec

sys.meta_path.insert(0, NoFrontDoor())
import math, torch
from metaduel.agents.networks import Dense
from metaduel.meta.problems.supervised import Tasks
from metaduel.meta.runs.supervised import meta_train
{inspect.getsource(Sines)}
for method in {METHODS}:
    run = meta_train(Sines(), "runs/" + method, method=method, **{quick}[method])
print(*sorted(name for name in sys.modules if name.startswith("metaduel.envs")))
of_games = ("meta.problems.duels", "meta.runs.source", "agents.rollout", "envs.core.game")
print(*(name for name in of_games if "metaduel." + name in sys.modules))
"""
    envs, games = run(code, tmp_path).splitlines()
    # Arguments, the error for bad input, files, the counted random numbers and what they are for, constants on a device, the two
    # players' names.
    assert envs.split() == [
        "metaduel.envs",
        "metaduel.envs.core",
        "metaduel.envs.core.arguments",
        "metaduel.envs.core.errors",
        "metaduel.envs.core.files",
        "metaduel.envs.core.lazy",
        "metaduel.envs.core.noise",
        "metaduel.envs.core.placed",
        "metaduel.envs.core.purposes",
        "metaduel.envs.core.spec",
    ]
    assert games == ""


@pytest.mark.parametrize("method", METHODS)
def test_a_learner_learns(tmp_path, method):
    sines = Sines()
    settings = dict(QUICK, iterations=150, validate_every=150, outer_lr=3e-3) | (
        {"steps": 5} if method == "reptile" else {}
    )
    trained = meta_train(sines, tmp_path / "run", method=method, **used(method, settings))
    data = sines.draw(100, "held_out", 5)
    rates = trained.rates if method != "joint" else {"protagonist": torch.tensor([[0.01]])}

    def error(start):
        *_, players = adapt(sines, data, {"protagonist": stack(start, 100)}, rates, 2)
        return sines.loss("protagonist", players, data, "query", 2).mean().item()

    assert error(trained.start["protagonist"]) < 0.85 * error(sines.init(0)["protagonist"])


def test_meta_gradient_equals_the_loop_over_tasks():
    sines = Sines()
    config = MAMLConfig(steps=2, inner_lr=0.05, inner_lr_per="step")
    learner = MAML({r: {n: v.double() for n, v in w.items()} for r, w in sines.init(3).items()}, config)
    data = tuple(tensor.double() for tensor in sines.draw(4, "train", 1))
    ours, _ = learner.gradients(DataProblem(sines, data))["protagonist"]
    start, total, rate = learner.start["protagonist"], 0.0, learner.rates("protagonist").detach()[0, 0]
    for task in range(4):
        own = tuple(tensor[task : task + 1] for tensor in data)
        weights, queries = start, []
        for _ in range(2):
            loss = sines.loss("protagonist", {"protagonist": stack(weights, 1)}, own, "support", 0).sum()
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {name: value - rate * g for (name, value), g in zip(weights.items(), gradients, strict=True)}
            queries.append(sines.loss("protagonist", {"protagonist": stack(weights, 1)}, own, "query", 0).sum())
        total = total + torch.stack(queries).mean() / 4
    for name, value in zip(start, torch.autograd.grad(total, list(start.values())), strict=True):
        torch.testing.assert_close(ours[name], value)


def test_recompute_gives_the_same_gradient():
    sines = Sines()
    data = sines.draw(4, "train", 1)
    found = [
        MAML(sines.init(3), MAMLConfig(steps=3, inner_lr=0.05, recompute=flag)).gradients(DataProblem(sines, data))
        for flag in (False, True)
    ]
    for name, value in found[0]["protagonist"][0].items():
        torch.testing.assert_close(value, found[1]["protagonist"][0][name])


@pytest.mark.parametrize("settings", [{}, {"second_order": False}, {"recompute": True}, {"peer": True}])
def test_an_iterations_graph_is_freed_without_the_garbage_collector(settings):
    tasks = Sines()
    learner = MAML(tasks.init(0), MAMLConfig(steps=2, inner_lr=0.01, **settings))
    gc.collect()
    gc.disable()  # few objects hold large tensors: it would come late
    try:
        problem = DataProblem(tasks, tasks.draw(4, "train", 0))
        update = learner.update(problem, 1.0)
        gone = [weakref.ref(one) for one in (problem, update.losses[2].query["protagonist"])]
        del problem, update
        assert [one() for one in gone] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize(("settings", "counted"), [({}, [1, 2]), ({"outer_shots": "last"}, [2]), ({"steps": 0}, [0])])
def test_the_best_start_is_chosen_by_the_shots_that_the_outer_loss_counts(settings, counted):
    config = DataConfig(validation_tasks=3).override(**{"steps": 2, "inner_lr": 0.01, **settings})
    tasks = Sines()
    found = alone(DataSource(tasks, config).validate(MAML(tasks.init(0), config.configured))).metrics
    scores = [found[f"protagonist/validation_score_{shot}"] for shot in counted]
    assert found["protagonist/score"] == pytest.approx(sum(scores) / len(scores))
    assert len(set(scores)) == len(scores)


def test_a_broken_run_resumes_to_the_same_numbers(tmp_path):
    sines = Sines()
    whole = meta_train(sines, tmp_path / "whole", **QUICK)
    original, calls = Sines.draw, []

    def stop(self, n, split, seed):
        calls.append(seed)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return original(self, n, split, seed)

    Sines.draw = stop
    try:
        with pytest.raises(KeyboardInterrupt):
            meta_train(sines, tmp_path / "broken", **QUICK)
    finally:
        Sines.draw = original
    again = meta_train(sines, tmp_path / "broken", resume=True, **QUICK)
    for name, value in whole.start["protagonist"].items():
        assert torch.equal(value, again.start["protagonist"][name])
    one, other = (load_checkpoint(tmp_path / name / LAST)[0] for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_data_run(sines, tmp_path / "whole").rates["protagonist"].shape == (2, 6)


class Number:
    """A network that is one number."""

    head_names = ()

    def init(self, seed):
        return {"x": torch.full((1,), 0.5)}


class Pulling(Tasks):
    """Two players that are numbers: each is pulled to a target of its own and pushed by the other."""

    def __init__(self):
        self.networks = dict.fromkeys(("protagonist", "adversary"), Number())

    def draw(self, n, split, seed):
        return (torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)),)

    def loss(self, role, players, data, part, shot):
        own, other = players[role]["x"], players["adversary" if role == "protagonist" else "protagonist"]["x"]
        return ((own - data[0][:, :1]).square() + own * other).sum(1)


def test_the_other_players_weights_are_constants_unless_joint():
    tasks = Pulling()
    problem = DataProblem(tasks, tasks.draw(3, "train", 0))
    players = {r: {"x": torch.full((3, 1), 0.5, requires_grad=True)} for r in tasks.networks}
    for joint, reaches in ((False, False), (True, True)):
        loss = problem.draw(players, 0).losses(players, joint).support["protagonist"].sum()
        (other,) = torch.autograd.grad(loss, [players["adversary"]["x"]], allow_unused=True)
        assert (other is not None) == reaches


def test_two_players_learn_and_adapt_together(tmp_path):
    for peer in (False, True):
        trained = meta_train(Pulling(), tmp_path / str(peer), **QUICK | {"peer": peer})
        shots = list(trained.adapt(Pulling().draw(4, "held_out", 0), 3))
        assert len(shots) == 4
        assert shots[3]["adversary"]["x"].shape == (4, 1)


def test_any_module_that_is_a_function_of_its_parameters(tmp_path):
    tasks = Sines()
    tasks.networks = {"protagonist": Module(lambda: nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)))}
    assert meta_train(tasks, tmp_path / "run", **QUICK).rates["protagonist"].shape == (2, 4)
    with pytest.raises(InvalidInputError, match="running_mean"):
        Module(lambda: nn.BatchNorm1d(3))


# Bad input


def with_loss(loss):
    return type("Own", (Sines,), {"loss": lambda self, role, players, data, part, shot: loss(players[role], data)})()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda w, data: (w["layer0.bias"].sum(1) * 0).detach(), "support loss is not differentiable"),
        (lambda w, data: w["layer0.bias"], r"support loss is \[8, 40\], must be one number for each of 8 tasks: \[8\]"),
        (lambda w, data: w["layer0.bias"].sum(), r"support loss is \[\], must be one number"),
        (lambda w, data: 0.0, "support loss is float, must be one number"),
        (lambda w, data: w["layer0.bias"].sum(1), "does not depend on its weight 'layer0.weight'"),
    ],
)
def test_losses_that_cannot_be_learned_from(tmp_path, loss, message):
    with pytest.raises(InvalidInputError, match=message):
        meta_train(with_loss(loss), tmp_path / "run", **QUICK)


def test_other_bad_input(tmp_path):
    with pytest.raises(
        InvalidInputError, match="needs data that its players sample in a game; on losses alone there are: maml"
    ):
        meta_train(Sines(), tmp_path / "run", method="rl2")
    with pytest.raises(InvalidInputError, match=r"unknown setting 'step'.*did you mean 'steps'"):
        meta_train(Sines(), tmp_path / "run", step=1)
    with pytest.raises(InvalidInputError, match=r"tensors of \[8, 7\] tasks"):
        DataProblem(Sines(), (torch.zeros(8, 1), torch.zeros(7, 1)))
    learner = ProMP(Sines().init(0), ProMPConfig(steps=1, outer_steps=2))
    with pytest.raises(InvalidInputError, match="losses alone"):
        learner.update(DataProblem(Sines(), Sines().draw(4, "train", 0)))
    meta_train(Sines(), tmp_path / "run", **QUICK | {"iterations": 1})
    wider = Sines()
    wider.networks = {"protagonist": Dense((1, 8, 1))}
    with pytest.raises(InvalidInputError, match="not those of these tasks' network"):
        load_data_run(wider, tmp_path / "run")
