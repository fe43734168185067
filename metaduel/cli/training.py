"""Training, and videos of a trained player that adapts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml
from rich.console import Console

from metaduel.benchmarks.core.terminal import FittedTable
from metaduel.cli.common import GameName, PlayerName, parse_setting, parse_task, resumable, stopped, wide_console
from metaduel.envs.core.errors import InvalidInputError

Setting = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
Number = Annotated[int | None, tyro.conf.arg(metavar="N")]


def train(
    game: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[GAME]")] = None,
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    folder: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    resume: bool = False,
    quiet: bool = False,
    method: Setting = None,
    seed: Number = None,
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N [N ...]")] = (),
    iterations: Number = None,
    tasks: Number = None,
    episodes: Number = None,
    threads: Number = None,
    informed: bool = False,
    set: Annotated[tyro.conf.UseAppendAction[list[str]], tyro.conf.arg(metavar="NAME=VALUE")] = [],  # noqa: B006 (read only)
) -> None:
    """Train both players of a game into a run folder. Ctrl-C saves; --resume continues to the same numbers.

    Flags override the settings of the config file, and --set overrides both. A run's own config.yaml is a config file. Without
    one, a method starts from the settings that are recommended for it on the game, where there are some, and its defaults for
    the rest.

    Args:
        game: the game's name, as `metaduel list` shows it; not needed where the config file names it.
        config: a YAML file of settings, such as a run's config.yaml.
        folder: the run's folder; runs/GAME-METHOD-SEED-TIME by default. With --seeds: the folder of the runs' folders seed-N.
        resume: continue the run in the folder, with its own config.yaml unless --config is given.
        quiet: no live display, and no warning of an inner discount with which updates are noise.
        method: the learning method, maml by default; `metaduel methods` lists them.
        seed: seed of all random numbers.
        seeds: train a run with each of these seeds in one process, several times faster than one after the other.
        iterations: outer steps, at most, 200 by default: give more with a budget such as --set player_steps=3000000.
        tasks: tasks per iteration and player.
        episodes: episodes per task and shot.
        threads: number of torch's threads.
        informed: train informed players (method joint): they see every context and do not adapt. They are the ceiling for
            adaptation.
        set: any other setting, its value in YAML, as in --set horizon=20 --set hidden=[32,32]; may be repeated.
    """
    named = {"method": method, "seed": seed, "iterations": iterations, "tasks": tasks, "episodes": episodes}
    changes = {name: value for name, value in {**named, "threads": threads}.items() if value is not None}
    if informed:
        changes |= {"informed": True, "method": method or "joint"}
    changes |= dict(parse_setting(text) for text in set)
    if resume and folder is None:
        raise InvalidInputError("--resume needs --folder, the run to continue")
    if seeds and (seed is not None or len(dict.fromkeys(seeds)) < len(seeds)):
        raise InvalidInputError(f"--seeds {' '.join(map(str, seeds))} must be different ones, without --seed")
    begun = [own for one in seeds if folder and (own := folder / f"seed-{one}").is_dir()]
    first = begun[0] if begun else folder
    file = config or (_resumed(first) if resume and first else None)
    values = _config(file, game)

    from metaduel.meta.runs.config import TrainConfig
    from metaduel.meta.runs.recommended import recommended, starting
    from metaduel.meta.runs.train import default_folder, train_all
    from metaduel.meta.runs.trainer import LAST, TrainingStopped

    task_list = values.pop("task_list", None)
    settings = (
        starting(values["game"], str(changes.get("method", "maml")), changes)
        if file is None
        else TrainConfig.from_dict(values).override(**changes)
    )
    settings.refuse_idle(changes)
    if file is None and not quiet and (found := recommended(settings.game, settings.method)):
        left = [name for name in found if name not in changes]
        print(f"recommended for {settings.method} on {settings.game}: {', '.join(left)}")
    runs = [settings.override(seed=one) for one in seeds] or [settings]
    if seeds:
        base = folder or default_folder(settings, settings.game)
        targets = [base / f"seed-{one}" for one in seeds]
    else:
        targets = [folder or default_folder(settings, settings.game)]
    try:
        train_all(runs, targets, task_list, resume, quiet)
    except TrainingStopped as error:
        stopped(error)
    except KeyboardInterrupt:
        if (targets[0] / LAST).exists():
            more = ("--seeds", *map(str, seeds)) if seeds else ()
            resumable("train", "--resume", "--folder", str(targets[0].parent if seeds else targets[0]), *more)
        raise
    for target in targets:
        print(f"wrote {target}")


def tune(
    game: GameName,
    method: str = "maml",
    folder: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    candidates: int = 12,
    finalists: int = 2,
    seeds: int = 2,
    steps: int = 1_000_000,
    set: Annotated[tyro.conf.UseAppendAction[list[str]], tyro.conf.arg(metavar="NAME=VALUE")] = [],  # noqa: B006 (read only)
    search: Annotated[tyro.conf.UseAppendAction[list[str]], tyro.conf.arg(metavar="NAME=[VALUE,VALUE]")] = [],  # noqa: B006
    recommend: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
) -> None:
    """Search for a method's settings on a game, judged on validation tasks; the best become a config file for `metaduel train`.

    Searched are, unless --search names others: each player's inner discount and clip, the outer rate and the discount; of methods
    with updates in training each player's inner rate, too; of methods with a memory the outer rate, the discount and the entropy
    bonus. An interrupted search resumes when the command is called again; finished trainings are not repeated.

    Args:
        game: the game's name, as `metaduel list` shows it.
        method: the learning method; `metaduel methods` lists them.
        folder: for tuned.yaml, tuning.md and the trainings; runs/tune-GAME-METHOD by default.
        candidates: trainings of the first round, with settings drawn at random; the first has those that a training starts from.
        finalists: the best of them, which are trained again in the last round, beside one put together from each player's best.
        seeds: seeds of each of them in the last round, other ones than in the first.
        steps: steps of its own that each player plays in a training. The config file of the result sets no such budget.
        set: a setting of all trainings, its value in YAML, as in --set tasks=40; may be repeated.
        search: a setting to search and its values, as in --search inner_discount=[0,0.9]; may be repeated, and replaces the
            method's own space.
        recommend: also write the result into this file of recommended settings, such as meta/runs/recommended.yaml of a clone.
    """
    from metaduel.benchmarks.tools import tune as tool
    from metaduel.meta.runs import recommended
    from metaduel.meta.runs.trainer import TrainingStopped

    target = folder or Path("runs") / f"tune-{game}-{method}"
    size = tool.Search(
        candidates,
        finalists,
        seeds,
        steps,
        dict(parse_setting(text) for text in set),
        dict(parse_setting(text) for text in search),
    )
    try:
        found = tool.tune(game, method, target, size)
    except TrainingStopped as error:
        stopped(error)
    except KeyboardInterrupt:
        sizes = {"candidates": candidates, "finalists": finalists, "seeds": seeds, "steps": steps}
        more = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
        more += [word for text in set for word in ("--set", text)] + [
            word for text in search for word in ("--search", text)
        ]
        resumable("tune", game, "--method", method, "--folder", str(target), *more)
        raise
    for sheet in found.sheets:
        wide_console().print(sheet.rich())
    if recommend is not None:
        # The search began with what is recommended now: what it left as it was stays.
        known = recommended.recommended(game, method)
        recommended.recommend(recommend, game, method, {**known, **size.settings, **found.settings})
    print(f"wrote {target / 'tuned.yaml'} and {target / 'tuning.md'}")


def methods() -> None:
    """List the methods of `metaduel train --method`: paper, what adapts within a task, what the outer gradient flows through."""
    from metaduel.meta.learners.methods import METHODS

    header = ("method", "paper", "what adapts", "what the outer gradient flows through")
    rows = [(method.name, method.paper, method.adapts, method.flows) for method in METHODS.values()]
    Console().print(FittedTable(header, rows))


def adapt(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    role: Annotated[str | None, tyro.conf.arg(metavar="ROLE")] = None,
    opponent: PlayerName = None,
    task: Annotated[str, tyro.conf.arg(metavar="TASK")] = "held_out:0",
    shots: int = 3,
    episodes: int = 5,
    video: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    seed: int = 0,
) -> None:
    """Watch a trained player adapt: a video of the same episode before adaptation and after every shot.

    Args:
        run: the run folder, or a saved agent's.
        role: the player that adapts: protagonist or adversary; the protagonist by default, or the only player in the folder.
        opponent: the player in the other seat; the first held-out scripted player by default.
        task: SPLIT:INDEX for a task of a frozen list (contexts that the run held fixed stay fixed), or JSON.
        shots: updates.
        episodes: fresh episodes for each update.
        video: an .mp4 or .gif file to write; adapt-ROLE.mp4 by default.
        seed: of the episodes' random numbers.
    """
    from metaduel.benchmarks.tools.film import film_adaptation
    from metaduel.envs.core.spec import other
    from metaduel.meta.runs.load import load

    trained = load(run)
    spec = trained.duel.spec
    player = spec.check_role(role or next(iter(trained.agents)))
    path = video or Path(f"adapt-{player}.mp4")
    values = parse_task(spec, task)
    if not task.lstrip().startswith("{"):
        values |= trained.config.fixed
    rival = opponent or spec.opponents[other(player)]["held_out"][0]
    returns = film_adaptation(trained, player, rival, values, path, shots, episodes, seed)
    for shot, value in enumerate(returns):
        print(f"shot {shot}: mean return {value:.3f}")
    print(f"wrote {path}")


def _resumed(folder: Path) -> Path:
    """The config file of the run to continue."""
    from metaduel.meta.runs.checkpoint import AGENT

    path = folder / "config.yaml"
    if not path.is_file():
        saved = "holds a saved agent, which" if (folder / AGENT).is_file() else "has no config.yaml, and"
        raise InvalidInputError(f"--folder {folder} {saved} is no run to resume: name the folder of a run")
    return path


def _config(path: Path | None, game: str | None) -> dict[str, Any]:
    """The settings in a config file, with the given game."""
    values: Any = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidInputError(f"{path}: {error.strerror}: name a YAML file of settings") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
        if not isinstance(values, dict):
            raise InvalidInputError(f"{path}: must hold a mapping of settings")
        if "environment" in values:
            raise InvalidInputError(f"{path} is the config of a run on your own environments: train it from Python")
    if game is None and "game" not in values:
        raise InvalidInputError(
            "GAME is missing: give it, or a --config file that names it (`metaduel list` shows the games)"
        )
    if game is not None and values.setdefault("game", game) != game:
        raise InvalidInputError(f"{path} is for the game {values['game']}, not {game}")
    return dict(values)
