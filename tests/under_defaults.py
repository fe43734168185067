"""Digests of games, trainings and evaluations under defaults of torch: ``python tests/under_defaults.py meta float64``.

The defaults are set before anything of ours is imported, as a user may do. A case that fails is given with its error.
"""

import sys

import torch

if "meta" in sys.argv:
    torch.set_default_device("meta")
if "float64" in sys.argv:
    torch.set_default_dtype(torch.float64)

import csv
import hashlib
import importlib
import json
import tempfile
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np

from metaduel import evaluate, find, load, make_sb3, sample_opponents, sample_tasks, specs, train_meta_adversarial
from metaduel.agents import freeze
from metaduel.agents.networks import Dense
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.sb3 import PredictPlayer
from metaduel.benchmarks.core.scratch import Scratch, make_ppo
from metaduel.benchmarks.studies import dynamics
from metaduel.benchmarks.studies.classification import baselines as classification
from metaduel.benchmarks.studies.classification.episodes import Episodes
from metaduel.benchmarks.studies.generation import baselines as generation
from metaduel.benchmarks.studies.generation.settings import Settings
from metaduel.benchmarks.studies.generation.tasks import make_tasks
from metaduel.benchmarks.studies.generation.testing import distances, tuned_rates
from metaduel.benchmarks.studies.images.characters import characters
from metaduel.benchmarks.studies.images.classes import split
from metaduel.benchmarks.studies.optimum import Ascent, best
from metaduel.benchmarks.tools.digests import GUESSES, _Guess
from metaduel.benchmarks.tools.exploitability import Exploitation, exploit
from metaduel.benchmarks.tools.population import Budget, Population
from metaduel.benchmarks.tools.proofs.cases import Case
from metaduel.benchmarks.tools.proofs.gradients import shipped
from metaduel.envs.adapters.pettingzoo_parallel import module_name
from metaduel.envs.contract import check_game
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.tasks import generate
from metaduel.envs.players.names import load_player
from metaduel.envs.players.play import steps
from metaduel.envs.players.scripted import scripted
from metaduel.envs.render.film import film
from metaduel.envs.render.screen import Screen
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.runs.checkpoint import load_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.supervised import meta_train

CASES = {}


def case(function):
    """A function of a folder that yields tensors, arrays and texts, of which the numbers are compared."""
    CASES[function.__name__] = function
    return function


@case
def duels(folder):
    for spec in specs().values():
        duel = Duel(make_game(spec), min(spec.horizon, 12), ROLES)
        params = duel.game.params(generate(spec, "extrapolation", 6, 3))
        first, second = (list(scripted(spec, role)) for role in ROLES)
        seeds = torch.arange(6, dtype=torch.int64, device="cpu")
        for i in range(max(len(first), len(second))):
            names = f"{first[i % len(first)]}(noise=0.1)", f"{second[i % len(second)]}"
            players = [load_player(duel, role, name) for role, name in zip(ROLES, names, strict=True)]
            for rows, outcome in steps(duel, players, duel.reset(params, seeds, seeds)):
                yield from (*duel.observe(rows), outcome.reward, outcome.terminated)
        yield json.dumps([sample_tasks(spec, 4, split, 1) for split in ("train", "held_out")])
        yield ", ".join(sample_opponents(spec, 4, "adversary", "train", 1))


@case
def the_contract(folder):
    for name in ("Navigation", "KuhnPoker"):
        yield f"{name}: {check_game(name)}"


def actions(space, n):
    space.seed(0)
    return [space.sample() for _ in range(n)]


@case
def gymnasium_seats(folder):
    for spec in specs().values():
        for seat in ROLES:
            env = gym.make(spec.id, seat=seat, disable_env_checker=True)
            observation, info = env.reset(seed=3)
            yield observation
            for action in actions(env.action_space, 8):
                legal = info.get("action_mask")
                move = action if legal is None else int(np.flatnonzero(legal)[-1])
                observation, reward, terminated, truncated, info = env.step(move)
                yield from (observation, np.float64(reward))
                if terminated or truncated:
                    observation, info = env.reset()


@case
def vectors(folder):
    for spec in specs().values():
        env = gym.make_vec(spec.id, 3)
        yield env.reset(seed=3, options={"opponent": [*spec.opponents["adversary"]["train"][:2], None]})[0]
        for action in actions(env.action_space, 8):
            yield from env.step(action)[:4]


@case
def parallels(folder):
    for spec in specs().values():
        env = importlib.import_module(f"{spec.package}.{module_name(spec)}").parallel_env()
        yield from env.reset(seed=3)[0].values()
        moves = {agent: actions(env.action_space(agent), 8) for agent in env.agents}
        for i in range(8):
            observations, rewards, *_ = env.step({agent: moves[agent][i] for agent in env.agents})
            yield from (*observations.values(), np.array(list(rewards.values())), env.state())


@case
def turns(folder):
    for spec in specs().values():
        env = importlib.import_module(f"{spec.package}.{module_name(spec)}").env()
        env.reset(seed=3)
        moves = {agent: actions(env.action_space(agent), 20) for agent in env.agents}
        for i, agent in zip(range(20), env.agent_iter()):
            observation, reward, terminated, truncated, info = env.last()
            yield from (observation, np.float64(reward))
            legal = info.get("action_mask", observation["action_mask"] if isinstance(observation, dict) else None)
            move = moves[agent][i] if legal is None else int(np.flatnonzero(legal)[0])
            env.step(None if terminated or truncated else move)


@case
def sb3_environments(folder):
    for spec in specs().values():
        env = make_sb3(spec, 3, seed=3)
        yield env.reset()
        for action in actions(env.action_space, 8):
            yield from env.step(np.stack([action] * 3))[:3]


SMALL = {
    "iterations": 1, "tasks": 3, "episodes": 2, "steps": 1, "hidden": (8,), "validate_every": 1, "validation_tasks": 2,
    "quiet": True,
}  # fmt: skip


def run(folder):
    """A run's numbers."""
    tensors, _ = load_checkpoint(folder / "checkpoints" / "last.safetensors")
    yield from (tensors[name] for name in sorted(tensors))
    with (folder / "metrics.csv").open(newline="") as file:
        yield json.dumps([{k: v for k, v in sorted(row.items()) if k != "seconds"} for row in csv.DictReader(file)])


@case
def methods(folder):
    for method in METHODS:
        train_meta_adversarial("Pursuit", method, folder / method, horizon=8, **SMALL)
        yield from run(folder / method)


@case
def variants(folder):
    for name, settings in {
        "personas": {"method": "meta_mapg", "persona_share": 0.5},
        "own network": {"network": lambda inputs, outputs: torch.nn.Linear(inputs, outputs)},
        "lstm": {"network": "lstm", "normalise_observations": True},
    }.items():
        small = {key: value for key, value in SMALL.items() if key != "hidden" or name != "own network"}
        train_meta_adversarial("IteratedPrisonersDilemma", folder=folder / name, horizon=4, **settings, **small)
        yield from run(folder / name)
    foreign = {name: value for name, value in SMALL.items() if name != "hidden"}
    train_meta_adversarial(_Guess, "maml", folder / "foreign", horizon=GUESSES, **foreign)
    yield from run(folder / "foreign")


@case
def evaluations(folder):
    train_meta_adversarial("Pursuit", folder=folder / "run", horizon=8, **SMALL)
    duel = Duel(make_game(find("Pursuit")), 8)
    model = make_ppo(duel, "protagonist", 2, 0)
    frozen = freeze(model)
    yield frozen.predict(np.zeros((2, *model.observation_space.shape), np.float32), deterministic=True)[0]
    own = PredictPlayer(frozen).player_for(duel, "protagonist")
    for player in (load_player(duel, "protagonist", frozen), own):
        start = duel.reset(duel.game.params([{}] * 2), *torch.zeros(2, 2, dtype=torch.int64, device="cpu"))
        for rows, _ in steps(duel, [player, "guard"], start):
            yield from duel.observe(rows)
    model.save(folder / "model.zip")
    entries = [folder / "run", f"sb3:{folder / 'model.zip'}", f"sb3:{folder / 'model.zip'}?trust=PPO"]
    few = {"shots": 1, "episodes": 2, "test_episodes": 2, "task_count": 2}
    table = evaluate(entries[:1], ppo=Scratch(1, 1), crossed=True, out=folder / "out", **few)
    yield np.asarray(table["return"])
    names = {"model": entries[1], "tuned": entries[2], "flee": "flee"}
    table = evaluate(names, "Pursuit", ["protagonist"], opponents=["guard", f"run:{entries[0]}"], **few)
    yield np.asarray(table["return"])
    env = gym.make("metaduel/Pursuit-v0", horizon=8)
    env.reset(seed=3)
    agent = load(folder / "run").protagonist.adapt(env, shots=1, episodes=1)
    yield from agent.weights.values()
    found = exploit([load(folder / "run")], Exploitation(1, 1, 1, 1, 16, 2), folder / "exploited", quiet=True)
    yield json.dumps([list(row) for row in found])


@case
def images_and_samples(folder):
    images = split(characters(16, seed=3), 8, 4)
    yield images.train
    episodes = Episodes(images, Dense((784, 16, 3), normalise=True), ways=3, shots=1, queries=2, train_queries=2)
    quick = {"iterations": 1, "tasks": 2, "steps": 1, "validate_every": 1, "validation_tasks": 2, "quiet": True}
    meta_train(episodes, folder / "images", method="maml", **quick)
    yield from run(folder / "images")
    data = episodes.draw(3, "held_out", 1)
    yield from (
        *data,
        classification.from_scratch(episodes, data, 0, 0.1),
        classification.nearest_centroid(episodes, data),
    )
    for kind in ("plane", "digits"):
        forging, distance = make_tasks(Settings(data=kind, shots=4, folder=folder, quiet=True))
        drawn = forging.draw(2, "held_out", 1)
        players = generation.fresh_starts(forging, 2, 0)
        rates = tuned_rates(forging, forging.draw(2, "validation", 0), players, distance)
        yield from (
            *drawn,
            *rates.values(),
            generation.jittered(drawn, 0.1),
            *distances(forging, drawn, players, rates, distance),
        )


@case
def pictures(folder):
    for spec in specs().values():
        duel = Duel(make_game(spec), 2)
        players = [load_player(duel, role, spec.opponents[role]["train"][0]) for role in ROLES]
        screen = Screen(spec, "rgb_array")
        yield from film(duel, players, sample_tasks(spec, 1, "train", 0)[0], screen, 1)
        screen.close()


@case
def measurements(folder):
    budget = Budget(seeds=2, iterations=4, steps=200, epochs=1, slices=2, test_episodes=1)
    duel = Duel(make_game(find("CartPole")), informed=("protagonist",))
    policy = MLPPolicy(duel.observation_space("protagonist").shape[0], duel.action_space("protagonist"), (8,))
    yield from Population(duel, "protagonist", policy, (0.0, 0.01), budget).train(lambda *_: None)
    yield dynamics.train("exact", "optimistic", 0.0, 0, 10, 0.1)
    for method in (Case("maml", "dice"), Case("e_maml", "plain")):
        ours = shipped(method, 1)
        yield from (part for role in ROLES for part in ours[role])
    personas = make_game(find("IteratedPrisonersDilemma")).personas(4, 0)
    config = TrainConfig(game="IteratedPrisonersDilemma")
    logits = personas.log()
    yield best(Ascent(games=(), starts=2, personas=2, iterations=2, lr=0.1), config.spec, config, 2, logits, logits)


def main():
    """Print the digests."""
    torch.set_num_threads(1)
    found = {}
    for name, numbers in CASES.items():
        digest = hashlib.sha256()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for part in numbers(Path(folder)):
                    digest.update(part.encode() if isinstance(part, str) else _bytes(part))
                found[name] = digest.hexdigest()
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


def _bytes(part):
    array = part.detach().numpy() if isinstance(part, torch.Tensor) else np.asarray(part)
    return f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()


if __name__ == "__main__":
    main()
