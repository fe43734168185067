"""Tables, curves and a picture of few-shot classification."""

from __future__ import annotations

from pathlib import Path

import torch

from metaduel.benchmarks.core.report import canvas, rendered
from metaduel.benchmarks.studies.classification.baselines import SCRATCH_STEPS
from metaduel.benchmarks.studies.classification.episodes import Episodes
from metaduel.benchmarks.studies.classification.settings import Settings
from metaduel.benchmarks.studies.steps_report import Found, against_sheet, publish, steps_sheet
from metaduel.envs.core.files import write_atomic
from metaduel.meta.problems.supervised import Data
from metaduel.meta.runs.supervised import DataRun


def report(settings: Settings, found: Found, rate: float) -> None:
    """Write and show the tables and the curves."""
    title = f"{settings.ways}-way {settings.shots}-shot, {settings.data}, {settings.network}: accuracy, %"
    note = (
        f"{settings.test_episodes} test episodes of held-out classes. Scratch: {SCRATCH_STEPS} updates at rate {rate}."
    )
    sheets = [steps_sheet(title, found, range(settings.test_steps + 1), 100, note)]
    last, pairs = settings.test_steps, []
    for method in settings.methods:
        pairs += [(method, last, "nearest centroid", 0), (method, last, "scratch", 0)]
        pairs += [(method, last, "maml", last)] if "maml" in settings.methods and method != "maml" else []
    sheets.append(against_sheet("Paired differences of accuracy, points", found, pairs, 100))
    publish(settings.folder, found, sheets, "accuracy, %", 100, "episode.png", settings.quiet)


def picture(path: Path, tasks: Episodes, run: DataRun, data: Data, steps: int) -> None:
    """The first episode: a row for each class, with its shots, then queries with their predictions before and after."""
    support, query = data[0][0, 0, ..., 0], data[1][0, ..., 0]
    ways, shown = tasks.ways, min(6, tasks.queries)
    episode = tuple(tensor[:1] for tensor in data)
    found = []
    for now in list(run.adapt(episode, steps))[:: steps or 1]:
        with torch.no_grad():
            logits, _ = tasks.logits(now, episode, "query", 0)
            found.append(logits[0].argmax(1).view(ways, -1))
    rows, columns = ways, tasks.shots + shown
    by_class = [part.reshape(ways, -1, *part.shape[1:]) for part in (support, query)]
    figure = canvas(1.05 * columns, 1.2 * rows, dpi=110)
    for way, line in enumerate(figure.subplots(rows, columns, squeeze=False)):
        images = [*by_class[0][way], *by_class[1][way, :shown]]
        for column, (axes, image) in enumerate(zip(line, images, strict=True)):
            axes.imshow((1 - image).numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if column < tasks.shots:
                axes.set_title(f"class {way}: shot", fontsize=8)
                continue
            before, after = (int(guess[way, column - tasks.shots]) for guess in (found[0], found[-1]))
            axes.set_title(f"{before} → {after}", fontsize=8, color="black" if after == way else "#d55e00")
    figure.suptitle(f"Query drawings: taken for which class before → after {steps} updates", fontsize=9)
    write_atomic(path, rendered(figure, path.suffix[1:]))
