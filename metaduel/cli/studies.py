"""Studies: published experiments and our own, from training to the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from metaduel.benchmarks.studies.classification.settings import Options as ClassificationOptions
from metaduel.benchmarks.studies.generation.settings import Options as GenerationOptions
from metaduel.cli.common import resumable, stopped, wide_console
from metaduel.envs.core.errors import check_whole


def reproduce(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    folder: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    workers: int = 0,
    keep: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    quiet: bool = False,
) -> None:
    """Reproduce a published experiment: a table, a report and plots, with our figures beside the published ones.

    An interrupted reproduction resumes when the command is called again; finished cells are not repeated.

    Args:
        name: the experiment, by its file benchmarks/suites/reproduce-NAME.yaml; an unknown name lists the known ones.
        folder: for report.md, results.csv.gz, the plots and the cells; runs/reproduce-NAME by default.
        workers: number of cells that run at once, each with one thread; 0: one per processor.
        keep: folder of finished cells' tables that are kept apart from the runs, to go on from without training again.
        quiet: no progress.
    """
    from metaduel.agents.runtime import processors
    from metaduel.benchmarks.studies.reproduce import reproduce as run
    from metaduel.meta.runs.trainer import TrainingStopped

    check_whole("workers", workers, 0)
    target = folder or Path("runs") / f"reproduce-{name}"
    try:
        found = run(name, target, quiet, workers or processors(), keep)
    except TrainingStopped as error:
        stopped(error)
    except KeyboardInterrupt:
        resumable("reproduce", name, "--folder", str(target), *(() if keep is None else ("--keep", str(keep))))
        raise
    for sheet in found.sheets:
        Console().print(sheet.rich())
    print(f"wrote {target / 'report.md'}, {target / 'results.csv.gz'} and {', '.join(found.pictures)}")


def classification(settings: ClassificationOptions) -> None:
    """Few-shot classification of images: meta-learners, baselines, a table and a picture."""
    from metaduel.benchmarks.studies.classification.study import main

    main(settings)


def generation(settings: GenerationOptions) -> None:
    """Few-shot generation of samples and images: meta-learned generators and discriminators, a table and pictures."""
    from metaduel.benchmarks.studies.generation.study import main

    main(settings)


def demo(
    folder: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/demo"),
) -> None:
    """Train on a small scale, watch both players adapt, and print the tables: a few minutes on two cores.

    An interrupted demonstration resumes when the command is called again; finished runs are not repeated.

    Args:
        folder: folder for the runs, the report, the plot and the videos.
    """
    from metaduel.benchmarks.tools.demo import run_demo
    from metaduel.meta.runs.trainer import TrainingStopped

    try:
        run_demo(folder)
    except TrainingStopped as error:
        stopped(error)
    except KeyboardInterrupt:
        resumable("demo", "--folder", str(folder))
        raise


def published(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")],
) -> None:
    """Print runs of 2-D navigation beside the published figures: returns after 0 to 3 updates on the authors' 40 goals.

    `metaduel reproduce navigation` trains such runs and does the same.

    Args:
        runs: run folders that were trained with benchmarks/suites/navigation.yaml.
    """
    from metaduel.agents.runtime import configured
    from metaduel.benchmarks.studies.published import sheet

    with configured(1):
        made = sheet(runs)
    Console().print(made.rich())
    print(made.markdown())


def dynamics(
    seeds: int = 10,
    iterations: int = 300,
    outer_lr: float = 0.1,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/dynamics"),
) -> None:
    """Compare outer optimisers where two players learn from each other: a table and a plot, in about seven minutes.

    Args:
        seeds: training seeds of each optimiser.
        iterations: outer steps of each training.
        outer_lr: step size at the start; decays to a tenth.
        out: folder for dynamics.md and dynamics.png.
    """
    from metaduel.benchmarks.studies.dynamics import compare

    made = compare(seeds, iterations, outer_lr, out)
    wide_console().print(made.rich())
    print(f"wrote {out / 'dynamics.md'} and {out / 'dynamics.png'}")
