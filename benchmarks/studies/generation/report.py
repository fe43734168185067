"""Tables, curves and a picture of few-shot generation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from metaduel.benchmarks.core.report import COLOURS, canvas, rendered
from metaduel.benchmarks.studies.generation.settings import STEPS, Settings
from metaduel.benchmarks.studies.generation.tasks import Forging
from metaduel.benchmarks.studies.steps_report import Found, against_sheet, publish, steps_sheet
from metaduel.envs.core.files import write_atomic
from metaduel.envs.forgery.game import EXTENT
from metaduel.meta.problems.supervised import Data
from metaduel.meta.runs.supervised import DataRun


def report(settings: Settings, found: Found, copies: Found, width: float) -> None:
    """Write and show the tables and the curves."""
    what = "energy distance" if settings.data == "plane" else "kernel distance in features"
    note = f"{settings.test_tasks} held-out tasks, {settings.shots} shots. Jitter of {width}, and rates of all but MAML, which "
    note += "learns them (first-order too): chosen on validation tasks. Joint: adapted the same way after joint pretraining."
    taken = (0, 1, 2, 5, STEPS)
    sheets = [steps_sheet(f"{settings.data}: {what} to fresh samples", found, taken, 1.0, note)]
    others = (("scratch", STEPS), ("joint", STEPS), ("jittered shots", 0))
    pairs = [(method, STEPS, other, step) for method in settings.methods for other, step in others]
    sheets.append(against_sheet(f"Paired differences of {what}: below 0 is better", found, pairs))
    title = "Copy check: distance of a sample to the nearest shot"
    sheets.append(
        steps_sheet(title, copies, taken, 1.0, "Samples that are copies would be much nearer than fresh ones.")
    )
    publish(settings.folder, found, sheets, what, picture="samples.png", quiet=settings.quiet)


def picture(path: Path, tasks: Forging, run: DataRun, data: Data, rows: int = 6) -> None:
    """A row per task: its shots, then samples before any update and after 1, 5 and 10."""
    rows = min(rows, len(data[0]))
    few = tuple(tensor[:rows] for tensor in data)
    shown: list[tuple[str, Tensor]] = [("shots", few[0])]
    for step, now in enumerate(run.adapt(few, STEPS)):
        if step in (0, 1, 5, STEPS):
            with torch.no_grad():
                shown.append((f"{step} update{'s' * (step != 1)}", tasks.made(now, few[3])))
    figure = canvas(2.0 * len(shown), 2.0 * rows, dpi=90)
    for row, line in enumerate(figure.subplots(rows, len(shown), squeeze=False)):
        for axes, (title, samples) in zip(line, shown, strict=True):
            axes.set(xticks=[], yticks=[], title=title if not row else "")
            if samples.dim() == 3:
                axes.scatter(*few[1][row].T.numpy(), s=1.5, color="#bbbbbb", linewidths=0)
                axes.scatter(*samples[row].T.numpy(), s=6 if title == "shots" else 2, color=COLOURS[0], linewidths=0)
                axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal")
            else:
                tile = nn.functional.pad(samples[row, :4, ..., 0], (1, 1, 1, 1))
                image = torch.cat([torch.cat([*tile[:2]], 1), torch.cat([*tile[2:]], 1)], 0)
                axes.imshow((1 - image).numpy(), cmap="gray", vmin=0, vmax=1)
    write_atomic(path, rendered(figure, path.suffix[1:]))
