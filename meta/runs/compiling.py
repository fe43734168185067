"""Whether a run's steps are compiled: what ``compile: auto`` becomes.

It is settled before the first iteration and recorded in ``config.yaml``, so that a run is one path from its start to its end, and
the same path when it is resumed or repeated with that file: compiled and eager steps differ in the last digits.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metaduel.agents.compiled import Compiled, compiler_missing
from metaduel.agents.policies.base import stack
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.spec import other
from metaduel.meta.problems.problem import Players
from metaduel.meta.runs.checkpoint import read_config
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.players import initial_weights
from metaduel.meta.runs.source import DuelSource

SAVED = 0.6  # share of an eager step's time that compiling saves, in the least of the measured cases
WORTH = 1.5  # times the compiler's time that a run must save
MOST = 3_000  # rows of a rollout: with more, products take the time, and rows that are over are dropped in eager steps alone
FEWEST = 5_000  # steps: a shorter run never saves what compiling takes
ALIVE = 0.5  # share of a rollout's rows whose episode goes on, about
EXPECTED = {"first": 30.0, "again": 5.0}  # s to compile a step, and to find it in the compiler's cache, until measured


def settled(
    configs: Sequence[TrainConfig], source: DuelSource, folders: Sequence[Path], resume: bool
) -> list[TrainConfig]:
    """The settings of runs that are trained together, with ``compile`` true or false.

    Args:
        configs: of the runs.
        source: of the first one's tasks.
        folders: of the runs.
        resume: runs in the folders go on as they began.

    Raises:
        InvalidInputError: ``compile: true`` without a C++ compiler.
    """
    missing, results, pays = compiler_missing(), [], None
    for config, folder in zip(configs, folders, strict=True):
        chosen = config.compile
        if chosen == "auto" and resume and (folder / "config.yaml").is_file():
            chosen = read_config(folder).get("compile", False)  # older runs were never compiled
        if chosen is True and missing:
            raise InvalidInputError(f"compile=True: {missing}; install one, or leave compile out")
        if chosen == "auto":
            if pays is None:
                pays = not missing and _pays(configs, source)
            chosen = pays
        results.append(replace(config, compile=chosen))
    return results


@contextlib.contextmanager
def compiled_steps(configs: Sequence[TrainConfig], sources: Sequence[DuelSource]) -> Iterator[None]:
    """Compiled steps inside for the sources of runs with ``compile: true``. How long compiling takes is remembered."""
    chosen = [(config, source) for config, source in zip(configs, sources, strict=True) if config.compile is True]
    if not chosen:
        yield
        return
    players = {other(role): met for role, met in chosen[0][1].opponents.items()}
    play = Compiled(players)
    for _, source in chosen:
        source.play = play
    try:
        yield
    finally:
        if play.seconds:
            _note(_identity([config for config, _ in chosen], chosen[0][1]), play.seconds)


def _pays(configs: Sequence[TrainConfig], source: DuelSource) -> bool:
    """Whether runs save more time by compiled steps than compiling them takes."""
    steps = max(_steps(config, source) for config in configs)
    rows = sum(config.tasks * config.episodes_per_batch * len(config.roles) for config in configs)
    if steps < FEWEST or rows > MOST:
        return False
    known, identity = _costs(), _identity(configs, source)
    cost = known["again" if identity in known["compiled"] else "first"]
    return bool(SAVED * steps * _seconds_per_step(configs[0], source) > WORTH * cost)


def _steps(config: TrainConfig, source: DuelSource) -> float:
    """Steps of all rollouts of a run, about."""
    # The episodes of chains are played one by one.
    rollouts, horizon = config.chain_episodes or config.configured.steps + 1, source.duel.horizon
    iterations = float(config.iterations)
    rows = config.tasks * (1 if config.chain_episodes else config.episodes_per_batch)
    for limit, counted in ((config.environment_steps, len(config.roles)), (config.player_steps, 1)):
        if limit:
            iterations = min(iterations, limit / (ALIVE * rows * counted * rollouts * horizon))
    return iterations * rollouts * horizon


def _seconds_per_step(config: TrainConfig, source: DuelSource) -> float:
    """Time of an eager step with the rows of one run's first iteration; 0 without rows that could be compiled."""
    problem = source.matchups(0)
    if problem is None:
        return 0.0
    start = initial_weights(source.policies, config.seed, source.statistics)
    players: Players = {role: stack(start[role], n) for role, n in problem.tasks.items()}
    problem.collect(players, 0)
    began = time.perf_counter()
    data = problem.collect(players, 0)
    return (time.perf_counter() - began) / max(one.reward.shape[1] for one in data.values())


def _identity(configs: Sequence[TrainConfig], source: DuelSource) -> str:
    """A name of what is compiled."""
    rows = [(config.met, config.episodes_per_batch) for config in configs]
    parts = (repr(source.duel), repr(source.policies), repr(source.opponents), rows, torch.__version__)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _memory() -> Path:
    """The file that remembers, in the folder of the compiler's own cache: who empties that, empties both."""
    default = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or default) / "metaduel.json"


def _costs() -> dict[str, Any]:
    """Seconds that compiling took the ``first`` time and ``again``, and the identities of what was ``compiled``."""
    known: dict[str, Any] = {**EXPECTED, "compiled": []}
    with contextlib.suppress(OSError, ValueError):  # a cache: what cannot be read is measured again
        found = json.loads(_memory().read_text(encoding="utf-8"))
        if isinstance(found, dict):
            known |= {name: found[name] for name in known if isinstance(found.get(name), type(known[name]))}
    return known


def _note(identity: str, seconds: float) -> None:
    """Remember how long something took to compile."""
    known = _costs()
    known["again" if identity in known["compiled"] else "first"] = seconds
    known["compiled"] = list(dict.fromkeys([*known["compiled"], identity]))
    with contextlib.suppress(OSError):
        write_atomic(_memory(), json.dumps(known).encode())
