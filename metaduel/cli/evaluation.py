"""Measurements of runs and games: few-shot returns, exploitability, the headroom for adaptation, and what updates know."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from metaduel.cli.common import GameName, parse_setting, wide_console
from metaduel.envs.core.arguments import as_path
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import OPPONENT_SPLITS, SPLITS


def evaluate(
    entries: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ENTRY [ENTRY ...]")],
    game: Annotated[str | None, tyro.conf.arg(metavar="GAME")] = None,
    role: Annotated[str | None, tyro.conf.arg(metavar="ROLE")] = None,
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    tasks: Annotated[str, tyro.conf.arg(metavar="SPLIT")] = "held_out",
    opponents: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SPLIT or PLAYER ...")] = ("held_out",),
    shots: int = 3,
    episodes: int = 5,
    test_episodes: int = 10,
    task_count: int = 40,
    actions: Annotated[str, tyro.conf.arg(metavar="HOW")] = "sampled",
    no_baselines: bool = False,
    crossed: bool = False,
    ppo: bool = False,
    ppo_tasks: int = 5,
    ppo_opponents: int = 2,
    quiet: bool = False,
) -> None:
    """Measure how players adapt to tasks and opponents that they never met: a table, a report and a plot.

    An entry is a run folder, sb3:FILE for a Stable-Baselines3 model as it is (sb3:FILE?trust=PPO is fine-tuned), a scripted
    player's name, or MODULE:NAME for a learner of your own (see `metaduel.evaluate`). NAME=ENTRY gives it a name; entries that
    share a name are training seeds of one method.

    Random starts of meta-learned runs and every scripted player that reads no hidden context are evaluated beside the entries.
    Players of runs have the rates that they learned, or that were best in their own validation; others, such as random
    starts, have one tuned on validation tasks first.

    Args:
        entries: what to evaluate, all in one game.
        game: the game's name; by default the runs' game.
        role: protagonist or adversary; every seat that all entries can take by default.
        out: folder for report.md, results.csv.gz and shots.png; "evaluation" in the first run's by default, or runs/evaluation.
        tasks: held_out, validation, extrapolation, or train for fresh training tasks.
        opponents: held_out or train, or players: scripted names, run:FOLDER, sb3:FILE.
        shots: updates.
        episodes: fresh episodes for each update.
        test_episodes: test episodes for each task, opponent and shot.
        task_count: number of tasks of the split.
        actions: sampled, or mode for the most probable action.
        no_baselines: leave out random starts and scripted players.
        crossed: also test the runs on seen and held-out tasks x training and held-out opponents, and both players as they adapt.
        ppo: also train Stable-Baselines3's PPO from scratch, with as many episodes as the adaptation has.
        ppo_tasks: number of tasks for PPO, the first ones.
        ppo_opponents: number of opponents for PPO, the first ones.
        quiet: no progress.
    """
    if tasks not in SPLITS:
        raise unknown("split of tasks", tasks, SPLITS)
    if not opponents:
        raise InvalidInputError("opponents=() must name a split or at least one player")
    split = len(opponents) == 1 and opponents[0] in OPPONENT_SPLITS

    from metaduel.benchmarks.core.evaluate import evaluate as run
    from metaduel.benchmarks.core.scratch import Scratch
    from metaduel.benchmarks.core.summary import sheets

    scratch = Scratch(ppo_tasks, ppo_opponents) if ppo else None
    texts = [text[match.end() :] if (match := _NAME.match(text)) else text for text in entries]
    folders = [as_path(text.removeprefix("run:"), "entries") for text in texts]
    first = next((folder for folder in folders if (folder / "config.yaml").is_file()), None)
    target = out or (Path("runs") if first is None else first) / "evaluation"
    table = run(
        _named(entries), game, None if role is None else (role,), tasks, opponents[0] if split else list(opponents), shots,
        episodes, test_episodes, task_count, target, actions=actions, baselines=not no_baselines,
        crossed=crossed, ppo=scratch, quiet=quiet,
    )  # fmt: skip
    for sheet in sheets(table):
        Console().print(sheet.rich())
    print(f"wrote {target / 'report.md'}, {target / 'results.csv.gz'} and {target / 'shots.png'}")


def _named(entries: Sequence[str]) -> list[str] | dict[str, list[str]]:
    """Entries as ``metaduel.evaluate`` takes them: a mapping where they have names."""
    pairs = [text.partition("=")[::2] if _NAME.match(text) else ("", text) for text in entries]
    if not any(name for name, _ in pairs):
        return list(entries)
    if not all(name for name, _ in pairs):
        plain = next(text for name, text in pairs if not name)
        raise InvalidInputError(
            f"{plain!r} has no name: give all entries names of their own, as in NAME={plain}, or none"
        )
    found: dict[str, list[str]] = {}
    for name, text in pairs:
        found.setdefault(name, []).append(text)
    return found


_NAME = re.compile(r"[\w .-]+=")  # before a bracket or a slash: lead(noise=0.1) is a player


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
    """Measure how much PPO gains by training against a frozen, adapted player: a lower bound of a best response's gain.

    Each player of each run adapts to held-out opponents on held-out tasks and is frozen. Stable-Baselines3's PPO then trains in
    the opponent's seat. An interrupted measurement resumes when the command is called again.

    Args:
        runs: run folders of one game: any methods and seeds.
        out: folder for exploitability.csv; "exploitability" in the first run's by default.
        tasks: number of held-out tasks, the first ones.
        opponents: number of held-out opponents, the first ones.
        shots: updates.
        episodes: fresh episodes for each update.
        steps: environment steps of PPO's training.
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
    opponents. Tests them on the validation tasks beside scripted players and a fine-tuned random start. Takes about half an
    hour. An interrupted measurement resumes when the command is called again.

    Args:
        game: the game's name, as `metaduel list` shows it.
        out: folder for headroom.json; runs/headroom-GAME by default.
        seeds: training seeds of each kind of player.
        iterations: training iterations of each player.
    """
    spec = find(game)

    from metaduel.benchmarks.tools.headroom import certify, show
    from metaduel.benchmarks.tools.population import Budget

    folder = out or Path("runs") / f"headroom-{spec.name}"
    result = certify(spec, folder, Budget(seeds=seeds, iterations=iterations))
    show(result, Console())
    print(f"wrote {folder / 'headroom.json'}")


def signal(
    game: GameName,
    run: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None,
    episodes: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N [N ...]")] = (5, 20),
    tasks: int = 48,
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[METHOD [METHOD ...]]")] = ("joint", "fomaml"),
    outer_tasks: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N [N ...]")] = (20, 100, 200, 400),
    batches: int = 12,
    seed: int = 0,
    set: Annotated[tyro.conf.UseAppendAction[list[str]], tyro.conf.arg(metavar="NAME=VALUE")] = [],  # noqa: B006 (read only)
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    quiet: bool = False,
) -> None:
    """Measure before training, for both roles of a game, how much of the return's gradient updates and outer steps know.

    Inner signal: the cosine of an update from a few episodes with the gradient of the undiscounted return from 600 episodes, over
    discounts and clips of updates; where it is 0, no method can adapt by updates. Outer gradients: the cosine of independent
    ones, over numbers of tasks; below 0.2 an outer step is mostly noise. Takes about a minute.

    Args:
        game: the game's name, as `metaduel list` shows it.
        run: measure at the start that this run has learned; by default at random starts.
        episodes: episodes per shot; outer gradients have the first number.
        tasks: training tasks of the inner signal, each against one of the training opponents.
        methods: the methods whose outer gradients are compared; --methods without a name: only the inner signal.
        outer_tasks: numbers of tasks of an outer step, in turn; a method ends with the first that is enough for both roles.
        batches: independent outer gradients of the largest number; up to twice as many of smaller ones.
        seed: seed of all random numbers.
        set: any setting of a training, its value in YAML, as in --set horizon=20; may be repeated. Outer gradients have the best
            inner discount and clip, unless they are set or --run has its own.
        out: also write the tables here, as Markdown.
        quiet: no progress.
    """
    spec = find(game)
    settings = dict(parse_setting(text) for text in set)

    from metaduel.benchmarks.tools.signal import Measurement, measure, sheets

    sizes = Measurement(episodes, tasks, methods=methods, outer_tasks=outer_tasks, batches=batches, seed=seed)
    tables = sheets(measure(spec.name, settings, sizes, run, quiet))
    for table in tables:
        wide_console().print(table.rich())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, "\n".join(table.markdown() for table in tables).encode())
        print(f"wrote {out}")
