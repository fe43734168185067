"""Digests of training, play and evaluation, to be compared on one machine before and after a change.

``metaduel digests`` checks that a refactoring changes no numbers. Three groups of figures, each with a short digest of its bits:

- *weights*: every method's starts after three iterations on a matrix game and on Pursuit, and variants with personas, memories,
  normalised observations, foreign environments and tasks that are data, and the metrics of those iterations;
- *tables*: the returns of one evaluation, by kind of player;
- *steps*: observations and rewards of the first 200 steps of every family, in both seats.

Bits differ between processors and releases of torch, so the committed digests are compared on the machine that made them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from torch import Tensor

import metaduel
from metaduel.agents.networks import Dense
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.scratch import Scratch
from metaduel.envs.adapters.seat import Seat
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.registry import builtin
from metaduel.envs.core.spec import ROLES
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.problems.supervised import Tasks
from metaduel.meta.runs.checkpoint import load_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.supervised import meta_train
from metaduel.meta.runs.train import train
from metaduel.meta.runs.trainer import LAST

Digests = dict[str, dict[str, str]]  # by group and name

GAMES: dict[str, dict[str, Any]] = {
    "IteratedPrisonersDilemma": {"horizon": 20},
    "Pursuit": {"horizon": 40},
}
SMALL: dict[str, Any] = {
    "iterations": 3, "tasks": 6, "episodes": 3, "steps": 2, "hidden": (16, 16), "validate_every": 3, "validation_tasks": 4,
    "learned_share": 0.5,
}  # fmt: skip
# Variants beside the plain run of every method: name -> (method, game, settings)
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "personas": ("meta_mapg", "IteratedPrisonersDilemma", {"persona_share": 0.5}),
    "personas, networks": ("maml", "Pursuit", {"persona_share": 0.5}),
    "personas, first order": ("reptile", "IteratedPrisonersDilemma", {"persona_share": 0.5}),
    "personas, ProMP": ("promp", "IteratedPrisonersDilemma", {"persona_share": 0.5}),
    "gru": ("maml", "Pursuit", {"network": "gru"}),
    "lstm": ("fomaml", "IteratedPrisonersDilemma", {"network": "lstm"}),
    "normalised": ("maml", "Pursuit", {"normalise_observations": True}),
    "normalised memory": ("rl2", "Pursuit", {"normalise_observations": True}),
    "context": ("fomaml", "Pursuit", {"context": 4, "inner_discount": 0.0, "inner_baseline": False, "inner_clip": 0.4}),
    "peer": ("maml", "IteratedPrisonersDilemma", {"peer": True}),
    "one role": ("maml", "Pursuit", {"roles": ("adversary",)}),
    "poker": ("maml", "KuhnPoker", {}),
    "latest": ("self_play", "Pursuit", {"opponents": "latest"}),
    "rarl alone": ("rarl", "Pursuit", {"learned_share": 1.0}),
    "recomputed": ("maml", "Pursuit", {"recompute": True}),
}


GUESSES = 5  # of an episode of _Guess


class _Guess(ParallelEnv[str, Any, int]):  # type: ignore[misc]
    """A foreign environment: one agent is paid for guessing the task's number, the other for wrong guesses, and leaves early."""

    metadata = {"name": "guess_v0"}  # noqa: RUF012

    def __init__(self) -> None:
        self.possible_agents: list[str] = ["walker", "watcher"]
        self.agents: list[str] = []
        self.number, self._rng = 1, np.random.default_rng(0)
        self._space = spaces.Box(-1, 9, (2,), np.float32)
        self._actions = spaces.Discrete(3)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self._space

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self._actions

    def sample_tasks(self, n: int) -> list[int]:
        return [int(number) for number in self._rng.integers(1, 4, n)]

    def set_task(self, task: int) -> None:
        self.number = task

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.agents, self.time, self.last = list(self.possible_agents), 0, 0
        return self._observe(), {agent: {} for agent in self.agents}

    def _observe(self) -> dict[str, Any]:
        return {agent: np.array([self.time, self.last], np.float32) for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        self.last, self.time = int(actions["walker"]) + 1, self.time + 1
        right = float(self.last == self.number)
        rewards = {agent: right if agent == "walker" else 1 - right for agent in self.agents}
        ends = {agent: self.time == (GUESSES if agent == "walker" else self.number) for agent in self.agents}
        observations = self._observe()
        self.agents = [agent for agent in self.agents if not ends[agent]]
        return observations, rewards, ends, dict.fromkeys(ends, False), {agent: {} for agent in ends}


class _Lines(Tasks):
    """Tasks that are data: lines through the origin."""

    def __init__(self) -> None:
        self.networks = {"protagonist": Dense((1, 16, 1))}

    def draw(self, n: int, split: Any, seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        slope = torch.randn(n, 1, 1, generator=generator, dtype=torch.float32, device="cpu")
        x = torch.rand(n, 20, 1, generator=generator, dtype=torch.float32, device="cpu")
        return x, slope * x

    def loss(self, role: Any, players: Any, data: Any, part: Any, shot: int) -> Tensor:
        x, y = (tensor[:, :10] if part == "support" else tensor[:, 10:] for tensor in data)
        loss: Tensor = (self.networks[role](players[role], x) - y).square().mean((1, 2))
        return loss


def sha(*parts: bytes) -> str:
    """A short digest."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]


def bits(value: Tensor) -> bytes:
    """A tensor's own bytes."""
    return value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def run_digests(folder: Path) -> dict[str, str]:
    """Digests of a run folder: its starts after the last iteration, and its metrics."""
    tensors, _ = load_checkpoint(folder / LAST)
    starts = {n: v for n, v in tensors.items() if "/start/" in n and not n.startswith("best/") and "/fixed." not in n}
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [{name: row[name] for name in sorted(row) if name != "seconds"} for row in csv.DictReader(file)]
    numbers = json.dumps([{name: row[name] for name in row if row[name]} for row in rows])
    return {
        "weights": sha(*(f"{name}".encode() + bits(starts[name]) for name in sorted(starts))),
        "metrics": sha(numbers.encode()),
    }


def train_shared(game: str, method: str, folder: Path, settings: dict[str, Any]) -> None:
    """Train with settings that all methods share, of which some have no effect in some of them."""
    train(TrainConfig(game=game, method=method).override(**settings), folder, quiet=True)


def used(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that have an effect in a method."""
    return {name: value for name, value in settings.items() if name not in METHODS[method].ignores}


def weights(folder: Path) -> Iterator[tuple[str, str]]:
    """Digests of three iterations of every method, and of the variants."""
    jobs: dict[str, tuple[str, str, dict[str, Any]]] = {
        f"{method}, {game}": (method, game, {}) for game in GAMES for method in METHODS
    }
    for name, (method, game, settings) in (jobs | VARIANTS).items():
        own = {**SMALL, **GAMES.get(game, {}), **settings}
        train_shared(game, method, folder / name, own)
        yield from ((f"{name}: {kind}", value) for kind, value in run_digests(folder / name).items())
    own = {name: SMALL[name] for name in SMALL if name != "learned_share"} | {"horizon": GUESSES}
    for method in ("maml", "joint"):
        metaduel.train_meta_adversarial(_Guess, method=method, folder=folder / f"foreign {method}", quiet=True, **own)
        yield from ((f"foreign, {method}: {k}", v) for k, v in run_digests(folder / f"foreign {method}").items())
    quick: dict[str, Any] = {
        "iterations": 3,
        "tasks": 4,
        "steps": 2,
        "inner_lr": 0.05,
        "validate_every": 3,
        "validation_tasks": 5,
    }
    for method in (name for name, one in METHODS.items() if one.on_data):
        meta_train(_Lines(), folder / f"data {method}", quiet=True, method=method, **used(method, quick))
        yield from ((f"data, {method}: {k}", v) for k, v in run_digests(folder / f"data {method}").items())


def tables(folder: Path) -> Iterator[tuple[str, str]]:
    """Digests of an evaluation's returns, per kind of player, and of a player that adapted in a Gymnasium environment."""
    own: dict[str, Any] = {**SMALL, **GAMES["Pursuit"]}
    runs = []
    for method, informed in (("maml", False), ("rl2", False), ("latent", False), ("joint", False), ("joint", True)):
        runs.append(folder / f"evaluated {method}{' informed' if informed else ''}")
        train_shared("Pursuit", method, runs[-1], {**own, "informed": informed})
    table = metaduel.evaluate(
        runs, out=folder / "evaluation", crossed=True, ppo=Scratch(1, 1), shots=2, episodes=2, test_episodes=2, task_count=3,
    )  # fmt: skip
    for method in table.values("method"):
        rows = table.filter(method=method)
        for split in rows.values("opponent_split"):
            some = rows.filter(opponent_split=split)
            key = [str(row) for row in zip(*(some[name] for name in ("role", "task", "opponent", "shot", "episode")))]
            order = np.argsort(key, kind="stable")
            yield f"table, {method}, {split} opponents", sha(np.asarray(some["return"], np.float64)[order].tobytes())
    import gymnasium as gym

    for run in runs[:2]:
        env = gym.make("metaduel/Pursuit-v0", seat="protagonist", opponent="guard", task="held_out:3", horizon=40)
        env.reset(seed=5)
        agent = metaduel.load(run).protagonist.adapt(env, shots=2, episodes=2)
        env.reset(seed=6)
        choices = [agent.predict(env.reset()[0])[0] for _ in range(5)]
        yield f"Agent.adapt, {run.name}", sha(np.stack(choices).tobytes())


def steps() -> Iterator[tuple[str, str]]:
    """Digests of the first 200 steps of our families, two rows, in both seats, against the first scripted players."""
    for spec in builtin().values():
        for role in ROLES:
            seat = Seat(spec, 2, role)
            for row in range(2):
                seat.reseed(row, row)
            seat.reset()
            space = seat.action_space
            space.seed(0)
            parts = [seat.observation().tobytes()]
            for _ in range(200):
                action = torch.from_numpy(np.stack([space.sample() for _ in range(2)]))
                reward, terminated, truncated = seat.step(action)
                parts += [seat.observation().tobytes(), bits(reward), bits(terminated), bits(truncated)]
                if seat.done.any():
                    seat.reset(seat.done)
            yield f"{spec.name}, {role}", sha(*parts)


@configured(1)
def measure() -> Digests:
    """All digests by group and name, with one thread; printed on standard error one by one."""
    found: Digests = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for group, pairs in (("steps", steps()), ("weights", weights(folder)), ("tables", tables(folder))):
            found[group] = {}
            for kind, value in pairs:
                found[group][kind] = value
                print(f"{group}: {kind}: {value}", file=sys.stderr, flush=True)
    return found


def write(found: Digests, path: AnyPath) -> None:
    """Write digests, with their processor and release of torch."""
    content = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "digests": found}
    write_atomic(as_path(path), (json.dumps(content, indent=1) + "\n").encode())


def read(path: AnyPath) -> Digests:
    """The digests that ``write`` wrote.

    Raises:
        InvalidInputError: the file holds no digests.
    """
    path = as_path(path)
    try:
        return {group: dict(names) for group, names in json.loads(path.read_text(encoding="utf-8"))["digests"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidInputError(f"{path}: holds no digests; metaduel digests --out FILE writes them") from None


def differences(known: Digests, found: Digests) -> list[str]:
    """A line for each digest of ``known`` that differs in ``found``, or is missing there."""
    return [
        f"{group}: {name}: {value}, now {found.get(group, {}).get(name)}"
        for group, names in known.items()
        for name, value in names.items()
        if found.get(group, {}).get(name) != value
    ]
