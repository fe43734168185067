"""Trains each method for each seed into a run folder, then tests all on the same held-out distributions.

    metaduel study generation                       # rings, grids and spirals in the plane, one seed
    metaduel study generation --seeds 5 --methods maml reptile
    metaduel study generation --data characters --shots 4 --iterations 500 --tasks 4 --folder runs/characters
    metaduel study generation --data digits --shots 4 --iterations 300 --tasks 4 --folder runs/digits

The generator is the protagonist, the discriminator the adversary; up to ten simultaneous updates on the shots. Both starts are
meta-learned by the learners of games: MAML, of second order or first, and Reptile as in FIGR (Clouatre and Demers, 2019). See
``tasks`` for their outer losses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from metaduel.agents.policies.base import stack
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.metrics import Array
from metaduel.benchmarks.studies.generation.baselines import WIDTHS, fresh_starts, jittered
from metaduel.benchmarks.studies.generation.judges import nearest
from metaduel.benchmarks.studies.generation.kinds import KINDS
from metaduel.benchmarks.studies.generation.report import picture, report
from metaduel.benchmarks.studies.generation.settings import LEARNERS, TEST, TUNE, Options, Settings
from metaduel.benchmarks.studies.generation.tasks import make_tasks
from metaduel.benchmarks.studies.generation.testing import distances, tuned_rates
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.spec import Role
from metaduel.meta.problems.problem import Players
from metaduel.meta.runs.supervised import DataRun, meta_train


def main(settings: Options) -> dict[str, Array]:
    """Train the unfinished runs, test all, write tables and pictures.

    Args:
        settings: settings of the study.

    Returns:
        Distances to fresh samples, method -> [seeds, 11, tasks]; [seeds, 1, tasks] for methods without updates.

    Raises:
        InvalidInputError: settings that do not fit the data, or a folder with runs of other settings.
    """
    with configured(settings.threads):
        return _run(settings)


def _run(settings: Settings) -> dict[str, Array]:
    tasks, distance = make_tasks(settings)
    data = tasks.draw(settings.test_tasks, "held_out", derive_seed(0, TEST))
    tuning = tasks.draw(min(40, settings.test_tasks), "validation", derive_seed(0, TUNE))
    check_folder(settings)  # after the settings are checked, so that the folder records no bad ones
    apart: dict[str, list[Tensor]] = {}
    copied: dict[str, list[Tensor]] = {}

    def test(name: str, players: Players, rates: Mapping[Role, Tensor]) -> None:
        found = distances(tasks, data, players, rates, distance)
        apart.setdefault(name, []).append(found[0])
        copied.setdefault(name, []).append(found[1])

    first: DataRun | None = None
    n, few, own = settings.test_tasks, len(tuning[0]), KINDS[settings.data].learners
    for seed in range(settings.seeds):
        for method in (*settings.methods, "joint"):
            iterations = settings.iterations * (2 if method == "joint" else 1)
            run = meta_train(
                tasks, settings.folder / f"{method}-{seed}", resume=True, quiet=settings.quiet, method=method, seed=seed,
                iterations=iterations, tasks=settings.tasks, validate_every=max(1, iterations // 10),
                validation_tasks=few, threads=settings.threads, **{**LEARNERS[method], **own.get(method, {})},
            )  # fmt: skip
            first = first or run
            learned = "inner_lr_outer_lr" in LEARNERS[method]
            rates = run.rates if learned else tuned_rates(tasks, tuning, repeated(run.start, few), distance)
            test(method, repeated(run.start, n), rates)
        rates = tuned_rates(tasks, tuning, fresh_starts(tasks, few, seed), distance)
        test("scratch", fresh_starts(tasks, n, seed), rates)
    width = min(WIDTHS, key=lambda width: float(distance(jittered(tuning, width), tuning[1]).mean()))
    jitter = jittered(data, width)
    apart["jittered shots"] = [distance(jitter, data[1]).unsqueeze(0)] * settings.seeds
    copied["jittered shots"] = [nearest(jitter, data[0]).unsqueeze(0)] * settings.seeds
    other = tasks.draw(n, "held_out", derive_seed(0, TEST, 1))[1] if settings.data == "plane" else None
    if other is not None:  # the lowest possible distance, and the distance from the shots without copying
        apart["fresh samples"] = [distance(other, data[1]).unsqueeze(0)] * settings.seeds
    copied["fresh samples"] = [nearest(data[1], data[0]).unsqueeze(0)] * settings.seeds
    found, copies = ({m: torch.stack(v).double().numpy() for m, v in part.items()} for part in (apart, copied))
    report(settings, found, copies, width)
    if first is not None:
        picture(settings.folder / "samples.png", tasks, first, data)
    return found


def repeated(start: Players, n: int) -> Players:
    """One start for each of n tasks."""
    return {role: stack(weights, n) for role, weights in start.items()}


def check_folder(settings: Settings) -> None:
    """Refuse to resume runs of other tasks, which their own settings do not record.

    Raises:
        InvalidInputError: the folder holds such runs.
    """
    path = settings.folder / "tasks.json"
    mine = {name: getattr(settings, name) for name in ("data", "shots", "judge", "classes")}
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else mine
    if found != mine:
        raise InvalidInputError(
            f"folder={str(settings.folder)!r} holds runs of {found}, not {mine}: name another folder"
        )
    settings.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(mine).encode())
