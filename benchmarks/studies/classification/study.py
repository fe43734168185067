"""Trains each method for each seed into a run folder, then tests all on the same episodes of held-out classes.

    metaduel study classification                     # our own characters, 5-way 1-shot, one seed
    metaduel study classification --data digits --ways 3 --methods maml reptile
    metaduel study classification --data omniglot --omniglot-folder ~/omniglot --seeds 5

An interrupted study resumes when started again. The learners are the same as for games; only ``Episodes`` is new.
"""

from __future__ import annotations

import torch
from rich.console import Console
from torch import Tensor

from metaduel.agents.networks import Convolutional, Dense, Network
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.metrics import Array
from metaduel.benchmarks.studies.classification.baselines import SCRATCH_RATES, from_scratch, nearest_centroid
from metaduel.benchmarks.studies.classification.episodes import ROLE, Episodes, in_parts
from metaduel.benchmarks.studies.classification.report import picture, report
from metaduel.benchmarks.studies.classification.settings import (
    EPISODES,
    LEARNERS,
    LONGER,
    TEST,
    TUNE,
    Options,
    Settings,
)
from metaduel.benchmarks.studies.images.characters import characters
from metaduel.benchmarks.studies.images.classes import ImageClasses, digits, omniglot, split
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.noise import derive_seed
from metaduel.meta.problems.supervised import Data
from metaduel.meta.runs.supervised import DataRun, meta_train


def main(settings: Options) -> dict[str, Array]:
    """Train the unfinished runs, test all, write tables and pictures.

    Args:
        settings: settings of the study.

    Returns:
        Accuracies in [0, 1], method -> [seeds, updates + 1, episodes]; [seeds, 1, episodes] for methods without updates.

    Raises:
        InvalidInputError: an unknown method, or settings that do not fit the data.
    """
    for method in settings.methods:
        if method not in LEARNERS:
            raise InvalidInputError(f"method {method!r} must be one of {', '.join(LEARNERS)}")
    with configured(settings.threads):
        return _run(settings)


def _run(settings: Settings) -> dict[str, Array]:
    console = Console(stderr=True, quiet=settings.quiet)
    with console.status("drawing characters"):
        classes = load_classes(settings)
    ways = {"ways": settings.ways, "shots": settings.shots}

    def make_tasks(method: str) -> Episodes:
        network = make_network(settings, classes.train.shape[-1])
        return Episodes(classes, network, **ways, **EPISODES.get(method, {}))  # type: ignore[arg-type]

    plain = make_tasks("maml")
    data = plain.draw(settings.test_episodes, "held_out", derive_seed(0, TEST))
    found: dict[str, list[Tensor]] = {}
    first: DataRun | None = None
    for seed in range(settings.seeds):
        for method in settings.methods:
            tasks, iterations = make_tasks(method), round(settings.iterations * LONGER.get(method, 1))
            run = meta_train(
                tasks, settings.folder / f"{method}-{seed}", resume=True, quiet=settings.quiet, method=method, seed=seed,
                iterations=iterations, tasks=settings.tasks, outer_lr=settings.outer_lr,
                validate_every=max(1, iterations // 5), validation_tasks=40, validation_steps=3,
                threads=settings.threads, **LEARNERS[method],
            )  # fmt: skip
            first = first or run
            found.setdefault(method, []).append(test(tasks, run, data, settings.test_steps))
    tuning = plain.draw(40, "validation", derive_seed(0, TUNE))
    rate = max(SCRATCH_RATES, key=lambda rate: float(from_scratch(plain, tuning, 0, rate).mean()))
    found["scratch"] = [from_scratch(plain, data, seed, rate) for seed in range(settings.seeds)]
    found["nearest centroid"] = [nearest_centroid(plain, data)] * settings.seeds
    arrays = {method: torch.stack(runs).double().numpy() for method, runs in found.items()}
    report(settings, arrays, rate)
    if first is not None:
        picture(settings.folder / "episode.png", plain, first, data, 3)
    return arrays


def load_classes(settings: Settings) -> ImageClasses:
    """The images, split by class."""
    if settings.data == "digits":
        return split(digits(), 4, 3)  # three digits are held out: at most 3 ways
    if settings.data == "omniglot":
        images = omniglot(settings.omniglot_folder)
        train = round(len(images) * 1200 / 1623)  # MAML's split, some of it to validate on
        return split(images, train - train // 12, train // 12, rotations=True)
    images = characters(settings.classes)
    return split(images, round(0.7 * len(images)), round(0.1 * len(images)))


def make_network(settings: Settings, side: int) -> Network:
    """The network of MAML's paper."""
    if settings.network == "dense":
        return Dense((side * side, 256, 128, 64, 64, settings.ways), normalise=True)
    return Convolutional(1, settings.ways, (64,) * (4 if side > 8 else 3))


def test(tasks: Episodes, run: DataRun, data: Data, steps: int) -> Tensor:
    """Accuracy [steps + 1, n] of a trained start."""
    parts: list[Tensor] = []
    for part in in_parts(data):
        scores = []
        for shot, players in enumerate(run.adapt(part, steps)):
            with torch.no_grad():
                scores.append(tasks.score(ROLE, players, part, shot))
        parts.append(torch.stack(scores))
    return torch.cat(parts, 1)
