"""What runs are measured by: few-shot returns, what a best response gains, and what there is to gain by adapting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from metaduel.cli.common import GameName
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import OPPONENT_SPLITS, SPLITS


def evaluate(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")],
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    tasks: Annotated[str, tyro.conf.arg(metavar="SPLIT")] = "held_out",
    opponents: Annotated[str, tyro.conf.arg(metavar="SPLIT")] = "held_out",
    shots: int = 5,
    episodes: int = 5,
    test_episodes: int = 20,
    task_count: int = 100,
    actions: Annotated[str, tyro.conf.arg(metavar="HOW")] = "sampled",
    no_crossed: bool = False,
    ppo: bool = False,
    ppo_tasks: int = 5,
    ppo_opponents: int = 2,
    quiet: bool = False,
) -> None:
    """Measure how runs of one game adapt to tasks and opponents that they never met: a table, a report and a plot.

    Beside the runs' own players there are random starts, every scripted player that reads no hidden context, and joint and
    informed runs if they are among RUN. Inner rates that were not meta-learned are tuned on validation tasks first.

    Args:
        runs: run folders of one game: any methods and seeds.
        out: folder for report.md, results.csv.gz and shots.png; "evaluation" in the first run's by default.
        tasks: held_out, validation, extrapolation, or train for fresh training tasks.
        opponents: held_out or train.
        shots: updates.
        episodes: fresh episodes for each update.
        test_episodes: test episodes for each task, opponent and shot.
        task_count: how many tasks of the split.
        actions: sampled, or mode for the most probable action.
        no_crossed: leave out seen and held-out tasks x training and held-out opponents.
        ppo: also train Stable-Baselines3's PPO from scratch, with as many steps as the adaptation has.
        ppo_tasks: on the first so many tasks.
        ppo_opponents: against the first so many opponents.
        quiet: no progress.
    """
    if tasks not in SPLITS:
        raise unknown("split of tasks", tasks, SPLITS)
    if opponents not in OPPONENT_SPLITS:
        raise unknown("split of opponents", opponents, OPPONENT_SPLITS)

    from metaduel.benchmarks.core.evaluate import evaluate_runs
    from metaduel.benchmarks.core.few_shot import Protocol
    from metaduel.benchmarks.core.scratch import Scratch
    from metaduel.benchmarks.core.summary import sheets

    protocol = Protocol(tasks, opponents, shots, episodes, test_episodes, task_count, actions)  # type: ignore[arg-type]
    scratch = Scratch(ppo_tasks, ppo_opponents) if ppo else None
    out = out or (runs[0] / "evaluation" if runs else Path("runs"))
    table = evaluate_runs(runs, protocol, out, quiet, not no_crossed, ppo=scratch)
    for sheet in sheets(table):
        Console().print(sheet.rich())
    print(f"wrote {out / 'report.md'}, {out / 'results.csv.gz'} and {out / 'shots.png'}")


def exploit(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")],
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    tasks: int = 3,
    opponents: int = 1,
    shots: int = 3,
    episodes: int = 5,
    steps: int = 50_000,
    test_episodes: int = 100,
    quiet: bool = False,
) -> None:
    """Measure what somebody gains who learns against an adapted player alone: a lower bound of what a best response gains.

    Each player of each run adapts to held-out opponents on held-out tasks and is frozen; Stable-Baselines3's PPO then learns in
    the opponent's seat. Interrupted, it goes on where it was when called again.

    Args:
        runs: run folders of one game: any methods and seeds.
        out: folder for exploitability.csv; "exploitability" in the first run's by default.
        tasks: the first so many held-out tasks.
        opponents: the first so many held-out opponents.
        shots: updates.
        episodes: fresh episodes for each update.
        steps: environment steps that PPO learns from.
        test_episodes: test episodes for each return.
        quiet: no progress.
    """
    if not runs:
        raise InvalidInputError("runs: at least one run folder is needed")

    from metaduel.benchmarks.tools import exploitability
    from metaduel.meta.runs.load import load

    settings = exploitability.Exploitation(tasks, opponents, shots, episodes, steps, test_episodes)
    folder = out or runs[0] / "exploitability"
    rows = exploitability.exploit([load(one) for one in runs], settings, folder, quiet)
    Console().print(exploitability.sheet(rows, settings).rich())
    print(f"wrote {folder / exploitability.FILE}")


def headroom(
    game: GameName,
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    seeds: int = 5,
    iterations: int = 200,
) -> None:
    """Measure how much there is to gain by adapting, for both roles of a game: the headroom certificate.

    Trains players that are shown the hidden contexts, players that are not, and players with a memory, all against the training
    opponents, and tests them on the validation tasks beside scripted players and a fine-tuned random start. Takes about
    half an hour. Interrupted, it goes on where it was when called again.

    Args:
        game: the game's name, as `metaduel list` shows it.
        out: where headroom.json goes; runs/headroom-GAME by default.
        seeds: training seeds of each kind of player.
        iterations: how long each player is trained.
    """
    spec = find(game)

    from metaduel.benchmarks.tools.headroom import certify, show
    from metaduel.benchmarks.tools.population import Budget

    folder = out or Path("runs") / f"headroom-{spec.name}"
    result = certify(spec, folder, Budget(seeds=seeds, iterations=iterations))
    show(result, Console())
    print(f"wrote {folder / 'headroom.json'}")
