"""Samples of Forgery's generators at every shot, beside the real distribution: ``metaduel clouds``.

The generators of runs adapt to held-out distributions against held-out judges, as in the few-shot evaluation, and after every
shot their samples are compared with fresh real ones: the energy distance in a table, the clouds themselves in a picture.
For comparison there are an untrained generator, which does not adapt, and a second cloud of real samples, whose distance is the
lowest possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.agents.adapters.arena import GameArena
from metaduel.agents.adapters.protocol import adaptation
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.metrics import estimate
from metaduel.benchmarks.core.report import COLOURS, RNG_SEED, Sheet, canvas, cell, cover_note, rendered
from metaduel.benchmarks.core.runs import Runs, named_runs
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.game import make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import frozen_tasks, task_rows
from metaduel.envs.forgery.distance import draw_real, energy_distance
from metaduel.envs.forgery.game import EXTENT
from metaduel.envs.players.names import load_player, names
from metaduel.meta.runs.load import Run
from metaduel.meta.runs.players import initial_weights

SHOWN = 4  # tasks in the picture


class Clouds(NamedTuple):
    """A generator's samples and their distance to real ones."""

    method: str
    forged: Tensor  # [shots + 1, tasks, n, 2] m, made against all judges
    distance: Tensor  # [shots + 1, tasks] energy distance to real samples, mean over judges


def real_samples(tasks: int, n: int, purpose: Purpose = Purpose.CLOUDS_REAL) -> Tensor:
    """Fresh samples of held-out distributions: [tasks, n, 2] m."""
    spec = find("Forgery")
    params = make_game(spec).params(frozen_tasks(spec, "held_out")[:tasks])
    return draw_real(params, n, torch.arange(tasks, dtype=torch.int64, device="cpu") + derive_seed(0, purpose))


def clouds(run: Run, tasks: int, shots: int, episodes: int, test_episodes: int = 10, trained: bool = True) -> Clouds:
    """Adapt a run's generator to held-out distributions, and draw samples after every shot.

    Args:
        run: a run on Forgery.
        tasks: number of held-out distributions.
        shots: number of updates; 0 shows the start.
        episodes: episodes per update.
        test_episodes: episodes of 50 samples each, per judge.
        trained: False: the same network with the weights at the start of the run.
    """
    agent, spec = run.protagonist, run.duel.spec
    if not trained:
        agent = replace(agent, weights=initial_weights({"protagonist": agent.policy}, run.config.seed)["protagonist"])
    judges = [load_player(run.duel, "adversary", name) for name in names(spec, "adversary", "held_out")]
    rows = task_rows(spec, frozen_tasks(spec, "held_out")[:tasks], {})
    arena, test = (
        GameArena(run.duel, "protagonist", rows, judges, count, derive_seed(0, purpose))
        for count, purpose in ((max(episodes, 1), Purpose.CLOUDS_ADAPT), (test_episodes, Purpose.CLOUDS_TEST))
    )
    made, apart = [], []
    for player in adaptation(agent.adapter, arena, shots):
        action = test.test(player).action
        points = EXTENT * agent.policy.clip(action).reshape(len(judges), tasks, -1, 2)
        apart.append(energy_distance(points, real_samples(tasks, points.shape[2])).mean(0))
        made.append(points.transpose(0, 1).flatten(1, 2))
    method = run.config.method if trained else "untrained"
    return Clouds(method, torch.stack(made), torch.stack(apart))


def sheet(found: Sequence[Clouds], samples: int) -> Sheet:
    """Energy distance at every shot, one row per method (its runs are seeds), and between two real clouds of ``samples``."""
    shots = max(len(one.distance) for one in found)
    rows, arrays = [], []
    for method in dict.fromkeys(one.method for one in found):
        stacked = torch.stack([one.distance for one in found if one.method == method]).double().numpy()
        cells = [stacked[:, shot] for shot in range(stacked.shape[1])]
        arrays += cells
        rows.append((method, *(cell(estimate(part, RNG_SEED)) for part in cells), *[""] * (shots - len(cells))))
    tasks = found[0].distance.shape[1]
    real, again = (real_samples(tasks, samples, purpose) for purpose in (Purpose.CLOUDS_REAL, Purpose.CLOUDS_AGAIN))
    floor = energy_distance(real, again).double().numpy()[None]
    rows.append(("another real sample", cell(estimate(floor, RNG_SEED)), *[""] * (shots - 1)))
    header = ("generator", *(f"shot {shot}" for shot in range(shots)))
    note = f"Held-out distributions and judges; {samples} samples, m. {cover_note(arrays)}"
    return Sheet("Energy distance of forged to real samples (Forgery)", header, tuple(rows), note)


def plot(one: Clouds, path: Path) -> None:
    """Real and forged clouds of the first tasks: a row for each, a column for each shot."""
    shots, tasks = one.distance.shape
    shown = min(SHOWN, tasks)
    figure = canvas(2.2 * shots, 2.3 * shown, dpi=150)
    real = real_samples(tasks, 500)
    for task, line in enumerate(figure.subplots(shown, shots, squeeze=False)):
        for shot, axes in enumerate(line):
            axes.scatter(*real[task].T.numpy(), s=2, color=COLOURS[2], linewidths=0, label="real")
            axes.scatter(*one.forged[shot, task, :500].T.numpy(), s=2, color=COLOURS[0], linewidths=0, label="forged")
            axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), xticks=[], yticks=[], aspect="equal")
            axes.set_title(f"shot {shot}: {float(one.distance[shot, task]):.2f}", fontsize=9)
    figure.legend(*line[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=4)
    figure.suptitle(f"Forgery, held-out distributions: {one.method}, energy distance to real samples", fontsize=10)
    write_atomic(path, rendered(figure, path.suffix[1:]))


@configured(1)
def compare(runs: Runs, out: AnyPath, tasks: int = 40, shots: int = 3, episodes: int = 5) -> Sheet:
    """Samples of the generators of ``runs`` after every shot: write and return a table, and write a picture.

    Args:
        runs: run folders or ``Run``s of Forgery, one or several; several of one method count as its seeds.
        out: folder for clouds.md and clouds.png, the picture of the first run.
        tasks: number of held-out distributions.
        shots: number of updates.
        episodes: fresh episodes for each update.

    Raises:
        InvalidInputError: a number that is too small or too large, no run, or a run that trained no such generator.
    """
    for name, value, low in (("tasks", tasks, 1), ("shots", shots, 0), ("episodes", episodes, 1)):
        if value < low:
            raise InvalidInputError(f"{name}={value} must be at least {low}")
    known = len(frozen_tasks(find("Forgery"), "held_out"))
    if tasks > known:
        raise InvalidInputError(f"tasks={tasks}: the held_out list of Forgery holds {known} tasks")
    out, named = as_path(out, "out"), named_runs(runs)
    if not named:
        raise InvalidInputError("name at least one run folder of Forgery")
    for name, run in named:
        if run.config.game != "Forgery" or "protagonist" not in run.agents or run.config.informed:
            raise InvalidInputError(f"{name} trained no generator of Forgery that has to find out what is real")
    found = [clouds(run, tasks, shots if run.protagonist.adapter.adapts else 0, episodes) for _, run in named]
    found.append(clouds(named[0][1], tasks, 0, episodes, trained=False))
    made = sheet(found, 500)
    write_atomic(out / "clouds.md", made.markdown().encode())
    plot(found[0], out / "clouds.png")
    return made
