"""Reptile around a foreign learner (Nichol, Achiam and Schulman, 2018): it needs only the result of the inner loop.

    for every task i     theta_i <- inner(theta, i)          any optimiser, any algorithm, any number of steps
    outer step           theta <- theta + e (mean_i theta_i - theta)

``reptile`` takes any function as the inner loop. ``train_sb3`` meta-learns the start of an unmodified algorithm of
Stable-Baselines3 for one player of a game: each inner loop is the algorithm's own ``learn`` on one training task against one
scripted opponent. The result is a model like any other: load it, ``set_env`` your task, ``learn``.

Order: first. Limits: with one gradient step inside it is joint training. One player at a time; inner loops run one after another.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from metaduel.agents.adapters.sb3 import globals_kept
from metaduel.agents.policies.base import Weights
from metaduel.envs.adapters.sb3 import make_sb3
from metaduel.envs.core.arguments import AnyPath, as_path, several
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.files import replacing
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import GameSpec, Role, other
from metaduel.envs.core.tasks import sample_tasks
from metaduel.envs.players.names import check_name, names
from metaduel.meta.runs.checkpoint import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

Inner = Callable[[Weights, int], Weights]  # (the start, number of the task): the weights after learning it
START, MODEL = "start.safetensors", "start.zip"
_SEEDS = (1 << 32) - 1  # SB3's largest seed


def reptile(
    start: Weights, inner: Inner, iterations: int, tasks: int, outer_lr: float, done: int = 0
) -> Iterator[Weights]:
    """Move a start towards the results of an inner loop, and yield it after every outer step.

    Args:
        start: weights of one player.
        inner: the inner loop, for tasks numbered from 0 on; it must not change the start.
        iterations: outer steps in all.
        tasks: inner loops per outer step.
        outer_lr: initial e, which decays linearly towards 0.
        done: number of outer steps taken before.

    Raises:
        InvalidInputError: numbers that cannot work.
        FloatingPointError: an inner loop that ended with weights that are not finite.
    """
    for name, value in (("iterations", iterations), ("tasks", tasks)):
        check_whole(name, value)
    if not 0 < outer_lr <= 1:
        raise InvalidInputError(f"outer_lr={outer_lr!r} must be above 0 and at most 1")
    for iteration in range(done, iterations):
        ends = [inner(start, iteration * tasks + i) for i in range(tasks)]
        step = outer_lr * (1 - iteration / iterations)
        start = {
            name: value + step * (torch.stack([end[name] for end in ends]).mean(0) - value)
            for name, value in start.items()
        }
        for name, weight in start.items():
            if not torch.isfinite(weight).all():
                raise FloatingPointError(f"iteration {iteration + 1}: {name} is not finite after the inner loops")
        yield start


class SB3Inner:
    """An unmodified algorithm of Stable-Baselines3 as the inner loop.

    Args:
        game: the family's name.
        role: the algorithm's seat.
        algorithm: a class of Stable-Baselines3 with an ``MlpPolicy``, such as ``PPO``.
        steps: environment steps of each inner loop.
        num_envs: rows of its environment.
        opponents: the opponents, met in turn; empty: the family's train split.
        seed: seed of tasks, networks and noise.
        horizon: steps per episode; None: the family's own.
        **settings: the algorithm's own.

    Raises:
        InvalidInputError: an unknown game, role or opponent.
    """

    def __init__(
        self,
        game: str | GameSpec,
        role: Role,
        algorithm: type[BaseAlgorithm],
        steps: int,
        num_envs: int = 8,
        opponents: Sequence[str] = (),
        seed: int = 0,
        horizon: int | None = None,
        **settings: Any,
    ) -> None:
        self.spec = find(game)
        self.spec.check_role(role)
        check_whole("steps", steps)
        named = tuple(several(opponents))
        for opponent in named:
            check_name(self.spec, other(role), opponent)
        self.opponents = named or names(self.spec, other(role), "train")
        self.role, self.algorithm, self.steps, self.num_envs = role, algorithm, steps, num_envs
        self.seed, self.horizon, self.settings = seed, horizon, settings

    def model(self, number: int, start: Weights | None = None) -> BaseAlgorithm:
        """The algorithm on a task, at a start; None: its own. Its constructor seeds the global generators, as SB3's own does."""
        seed = derive_seed(self.seed, number)
        task = sample_tasks(self.spec, 1, "train", seed)[0]
        opponent = self.opponents[number % len(self.opponents)]
        env = make_sb3(
            self.spec, self.num_envs, self.role, opponent, task, horizon=self.horizon, seed=seed & _SEEDS >> 1
        )
        model = self.algorithm("MlpPolicy", env, seed=seed & _SEEDS, device="cpu", **self.settings)
        if start is not None:
            model.set_parameters({"policy": start}, exact_match=False)  # type: ignore[dict-item]  # SB3 takes nested ones
        return model

    @globals_kept()
    def __call__(self, start: Weights, number: int) -> Weights:
        """Learn a task from a start; see ``Inner``."""
        return weights_of(self.model(number, start).learn(self.steps))


def weights_of(model: BaseAlgorithm) -> Weights:
    """Copies of a model's weights, the critic's included."""
    return {name: value.detach().clone() for name, value in model.get_parameters()["policy"].items()}


@globals_kept()
def train_sb3(
    inner: SB3Inner, folder: AnyPath, iterations: int, tasks: int = 4, outer_lr: float = 0.5, quiet: bool = False
) -> Path:
    """Meta-learn the start of an algorithm of Stable-Baselines3.

    An interrupted training resumes when called again on the same folder; none of the files that it reads can run code.

    Args:
        inner: the inner loop.
        folder: folder for ``start.safetensors``, to resume from, and ``start.zip``, for Stable-Baselines3.
        iterations: outer steps.
        tasks: inner loops per outer step.
        outer_lr: see ``reptile``.
        quiet: no progress.

    Returns:
        The path of the model.

    Raises:
        InvalidInputError: numbers that cannot work, or a folder of other settings.
        FloatingPointError: weights that are not finite; the last good ones are kept.
    """
    path = as_path(folder, "folder") / START
    made_with = {
        "game": f"{inner.spec.name}-v{inner.spec.version}", "role": inner.role, "algorithm": inner.algorithm.__name__,
        "steps": inner.steps, "num_envs": inner.num_envs, "opponents": list(inner.opponents), "seed": inner.seed,
        "horizon": inner.horizon, "settings": repr(sorted(inner.settings.items())), "iterations": iterations,
        "tasks": tasks, "outer_lr": outer_lr,
    }  # fmt: skip
    done, now = 0, weights_of(inner.model(0))
    if path.exists():
        now, state = load_checkpoint(path)
        done = state.pop("done")
        for name, value in made_with.items():
            if state.get(name) != value:
                raise InvalidInputError(
                    f"{path} was made with {name}={state.get(name)!r}, not {value!r}: choose another folder"
                )
    began, before = time.perf_counter(), done
    for step in reptile(now, inner, iterations, tasks, outer_lr, done):
        now = step
        done += 1
        save_checkpoint(path, now, {**made_with, "done": done})
        if not quiet:
            spent = time.perf_counter() - began
            left = spent / (done - before) * (iterations - done)
            print(f"{done}/{iterations}  {spent:.0f} s, {left:.0f} s left", file=sys.stderr, flush=True)
    target = path.with_name(MODEL)
    with replacing(target) as temporary:
        inner.model(0, now).save(temporary)
    return target
