"""The command line. Each subcommand is one small function; what they do lives in the rooms."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metaduel.envs.core.errors import InvalidInputError, check_whole, unknown
from metaduel.envs.core.measured import measured
from metaduel.envs.core.registry import find, specs
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES, SPLITS, Context, GameSpec, Task

# Nothing here imports torch at the top: --help and list answer at once, and main() sets OMP_WAIT_POLICY in time.

app = tyro.extras.SubcommandApp()
GameName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GAME")]
Setting = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
Number = Annotated[int | None, tyro.conf.arg(metavar="N")]
PlayerName = Annotated[str | None, tyro.conf.arg(metavar="PLAYER")]


@app.command(name="list")
def list_games() -> None:
    """List the games: what one does in them, how long an episode is, and what is hidden from the players."""
    table = Table("game", "what it is", "steps", "hidden from both players")
    for spec in specs().values():
        hidden = ", ".join(c.name for c in spec.contexts if not c.visible_to)
        table.add_row(spec.name, spec.summary, str(spec.horizon), hidden)
    Console().print(table)
    print("More about one of them: metaduel info GAME")


@app.command
def info(game: GameName) -> None:
    """Show one game: its spaces, the contexts that vary between tasks, the scripted opponents for each seat, how much there is to
    gain by adapting, and on a terminal a picture.

    Args:
        game: the game's name, as `metaduel list` shows it.
    """
    spec = find(game)
    console = Console()
    console.print(f"[bold]{spec.id}[/bold]: {escape(spec.summary)}")
    console.print(f"{spec.horizon} steps; {'zero-sum' if spec.zero_sum else 'general-sum'}")
    found = measured(spec)
    for table in (_spaces(spec), _contexts(spec), _opponents(spec, found.get("panel", {}))):
        console.print(table)
    if "headroom" in found:
        console.print(_headroom(found["headroom"]))
    else:
        console.print(f"Headroom: not measured yet; metaduel headroom {spec.name} does", highlight=False)
    if console.is_terminal and importlib.util.find_spec("pygame") is None:
        console.print(escape('No picture: pip install "metaduel[render]"'), highlight=False)
    elif console.is_terminal:
        from metaduel.envs.render.gallery import portrait, thumbnail

        console.print(thumbnail(portrait(spec)))


@app.command
def watch(
    game: GameName,
    protagonist: PlayerName = None,
    adversary: PlayerName = None,
    opponent: PlayerName = None,
    human: Annotated[str | None, tyro.conf.arg(metavar="ROLE")] = None,
    task: Annotated[str, tyro.conf.arg(metavar="TASK")] = "held_out:0",
    video: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    window: bool = False,
    episodes: int = 1,
    seed: int = 0,
) -> None:
    """Watch two players, in a video or in a window, or play against one yourself.

    A player is a scripted one's name (`metaduel info GAME` lists them), with options if you like, as in
    'lead(horizon=0.6,noise=0.1)', run:FOLDER for an agent that was trained here, or sb3:FILE for a Stable-Baselines3 model.

    Args:
        game: the game's name, as `metaduel list` shows it.
        protagonist: who plays the protagonist; the first scripted one by default.
        adversary: who plays the adversary; the first scripted one by default.
        opponent: who plays against you with --human; without it, another word for the adversary.
        human: play this role yourself, protagonist or adversary, in a window. What is hidden from players stays hidden from
            you: the second episode is easier than the first.
        task: SPLIT:INDEX for a task of a frozen list, such as held_out:3, or JSON, such as '{"push": 0.05}'.
        video: an .mp4 or .gif file to write; GAME.mp4 by default.
        window: open a window instead of writing a video.
        episodes: how many episodes to play, one after the other.
        seed: of the episodes' random numbers; the same seed shows the same episodes.
    """
    spec, values = find(game), _task(find(game), task)
    person = spec.check_role(human) if human is not None else None
    chosen = {"protagonist": protagonist, "adversary": adversary}
    if person and chosen[person] is not None:
        raise InvalidInputError(f"human={human!r} and {person}={chosen[person]!r}: choose one of them")
    if opponent is not None:
        seat = "protagonist" if person == "adversary" else "adversary"
        if chosen[seat] is not None:
            raise InvalidInputError(f"opponent={opponent!r} and {seat}={chosen[seat]!r}: choose one of them")
        chosen[seat] = opponent
    if (person or window) and video is not None:
        raise InvalidInputError(f"video={str(video)!r} and a window (--human or --window): choose one of them")
    if episodes < 1:
        raise InvalidInputError(f"episodes={episodes} must be at least 1")
    names = ["you" if role == person else chosen[role] or spec.opponents[role]["train"][0] for role in ROLES]

    from metaduel.envs.core.duel import Duel
    from metaduel.envs.core.game import make_game
    from metaduel.envs.players.names import load_player
    from metaduel.envs.render.film import film
    from metaduel.envs.render.human import Person
    from metaduel.envs.render.screen import Screen, write_video

    duel = Duel(make_game(spec))
    screen = Screen(
        spec,
        "human" if person or window else "rgb_array",
        (names[0], names[1]),
        None if person is None else ROLES.index(person),
    )
    first, second = (
        Person(duel, role, screen) if role == person else load_player(duel, role, name)
        for role, name in zip(ROLES, names, strict=True)
    )
    for player in (first, second):
        if isinstance(player, Person):
            print(f"You are the {person}: {spec.summary}. {player.controls[0].upper()}{player.controls[1:]}.")
    captions = [task if episodes == 1 else f"{task}, episode {i + 1}" for i in range(episodes)]
    frames = (
        frame
        for episode, caption in enumerate(captions)
        for frame in film(duel, (first, second), values, screen, seed, episode, caption)
        if not screen.closed
    )
    if person or window:
        for _ in frames:
            pass
    else:
        path = video or Path(f"{spec.name}.mp4")
        write_video(path, frames, spec.fps)
        print(f"wrote {path}")
    screen.close()


@app.command
def gallery(out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("gallery.png")) -> None:
    """Write one picture with a frame of every family.

    Args:
        out: the .png file.
    """
    from metaduel.envs.render.gallery import write_gallery

    write_gallery(out)
    print(f"wrote {out}")


@app.command
def train(
    game: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[GAME]")] = None,
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    folder: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    resume: bool = False,
    quiet: bool = False,
    method: Setting = None,
    seed: Number = None,
    iterations: Number = None,
    tasks: Number = None,
    episodes: Number = None,
    threads: Number = None,
    informed: bool = False,
    set: Annotated[tyro.conf.UseAppendAction[list[str]], tyro.conf.arg(metavar="NAME=VALUE")] = [],  # noqa: B006 (read only)
) -> None:
    """Train both players of a game into a run folder. Ctrl-C saves; --resume goes on to the same numbers.

    Settings are those of the config file, then what flags say, then every --set. A run's own config.yaml is a config file.

    Args:
        game: the game's name, as `metaduel list` shows it; not needed where the config file names it.
        config: a YAML file of settings, such as a run's config.yaml.
        folder: where the run goes; runs/GAME-METHOD-SEED-TIME by default.
        resume: go on with the run in the folder; its own config.yaml is used if none is given.
        quiet: no live display.
        method: how to learn: `metaduel methods` lists them.
        seed: of everything random.
        iterations: outer steps.
        tasks: tasks per iteration and player.
        episodes: episodes per task and shot.
        threads: torch's threads.
        informed: show the players every context, and don't adapt (method joint): the ceiling that adaptation is measured
            against.
        set: any other setting, its value in YAML, as in --set horizon=20 --set hidden=[32,32]; as often as needed.
    """
    named = {"method": method, "seed": seed, "iterations": iterations, "tasks": tasks, "episodes": episodes}
    changes = {name: value for name, value in {**named, "threads": threads}.items() if value is not None}
    if informed:
        changes |= {"informed": True, "method": method or "joint"}
    changes |= dict(_setting(text) for text in set)
    if resume and folder is None:
        raise InvalidInputError("--resume needs --folder, the run to go on with")
    values = _config(config or (folder / "config.yaml" if resume and folder else None), game)

    from metaduel.meta.runs.config import TrainConfig
    from metaduel.meta.runs.train import default_folder
    from metaduel.meta.runs.train import train as run
    from metaduel.meta.runs.trainer import LAST, TrainingStopped

    task_list = values.pop("task_list", None)
    settings = TrainConfig.from_dict(values).override(**changes)
    target = folder or default_folder(settings, settings.game)
    try:
        run(settings, target, task_list, resume, quiet)
    except TrainingStopped as error:
        _stopped(error)
    except KeyboardInterrupt:
        if (target / LAST).exists():
            _resumable("train", "--resume", "--folder", str(target))
        raise
    print(f"wrote {target}")


def _stopped(error: Exception) -> NoReturn:
    print(f"metaduel: {error}", file=sys.stderr)
    sys.exit(1)


def _resumable(*command: str) -> None:
    print(f"metaduel: stopped and saved; go on with: {shlex.join(['metaduel', *command])}", file=sys.stderr)


def _config(path: Path | None, game: str | None) -> dict[str, Any]:
    """The settings in a config file, with the game that was asked for."""
    values: Any = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
        if not isinstance(values, dict):
            raise InvalidInputError(f"{path}: must hold a mapping of settings")
        if "environment" in values:
            raise InvalidInputError(f"{path} is of a run on environments of its own: train it from Python")
    if game is None and "game" not in values:
        raise InvalidInputError(
            "GAME is missing: give it, or a --config file that names it (`metaduel list` shows them)"
        )
    if game is not None and values.setdefault("game", game) != game:
        raise InvalidInputError(f"{path} is for the game {values['game']}, not {game}")
    return dict(values)


def _setting(text: str) -> tuple[str, Any]:
    """A setting's name and value: ``name=value`` in YAML, and numbers such as 1e-3, which YAML takes for words."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidInputError(f"--set {text!r} must be NAME=VALUE, such as --set horizon=20")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InvalidInputError(f"--set {text!r}: {value!r} is not YAML ({str(error).splitlines()[0]})") from None
    if isinstance(parsed, str):
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    return name, parsed


@app.command
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


@app.command
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


@app.command
def reproduce(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    folder: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    workers: int = 0,
    quiet: bool = False,
) -> None:
    """Do a published experiment again: a table, a report and plots, with our figures beside the published ones.

    May take several sittings: interrupted, it goes on where it was when called again, and finished cells are not repeated.

    Args:
        name: what, by its file benchmarks/suites/reproduce-NAME.yaml; an unknown one lists those that there are.
        folder: for report.md, results.csv.gz, the plots and the cells; runs/reproduce-NAME by default.
        workers: cells that are played at once, each with one thread; 0: as many as there are processors.
        quiet: no progress.
    """
    from metaduel.agents.runtime import processors
    from metaduel.benchmarks.studies.reproduce import reproduce as run
    from metaduel.meta.runs.trainer import TrainingStopped

    check_whole("workers", workers, 0)
    target = folder or Path("runs") / f"reproduce-{name}"
    try:
        found = run(name, target, quiet, workers or processors())
    except TrainingStopped as error:
        _stopped(error)
    except KeyboardInterrupt:
        _resumable("reproduce", name, "--folder", str(target))
        raise
    for sheet in found.sheets:
        Console().print(sheet.rich())
    print(f"wrote {target / 'report.md'}, {target / 'results.csv.gz'} and {', '.join(found.pictures)}")


@app.command
def methods() -> None:
    """List what `metaduel train --method` takes: its paper, what adapts within a task, what the gradient flows through."""
    from metaduel.meta.learners.methods import METHODS

    table = Table("method", "paper", "what adapts", "what the outer gradient flows through")
    for method in METHODS.values():
        table.add_row(method.name, method.paper, method.adapts, method.flows)
    Console().print(table)


@app.command
def adapt(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    role: Annotated[str, tyro.conf.arg(metavar="ROLE")] = "protagonist",
    opponent: PlayerName = None,
    task: Annotated[str, tyro.conf.arg(metavar="TASK")] = "held_out:0",
    shots: int = 3,
    episodes: int = 5,
    video: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    seed: int = 0,
) -> None:
    """Watch a trained player adapt: a video of the same episode before adaptation and after every shot.

    Args:
        run: the run folder.
        role: whose player: protagonist or adversary.
        opponent: who sits in the other seat; the first held-out scripted player by default.
        task: SPLIT:INDEX for a task of a frozen list (contexts that the run held fixed stay so), or JSON.
        shots: updates.
        episodes: fresh episodes for each update.
        video: an .mp4 or .gif file to write; adapt-ROLE.mp4 by default.
        seed: of the episodes' random numbers.
    """
    if role not in ROLES:
        raise unknown("role", role, ROLES)

    from metaduel.benchmarks.tools.film import film_adaptation
    from metaduel.envs.core.spec import other
    from metaduel.meta.runs.load import load

    trained, path = load(run), video or Path(f"adapt-{role}.mp4")
    spec = trained.duel.spec
    values = _task(spec, task)
    if not task.lstrip().startswith("{"):
        values |= trained.config.fixed
    rival = opponent or spec.opponents[other(role)]["held_out"][0]
    returns = film_adaptation(trained, role, rival, values, path, shots, episodes, seed)
    for shot, value in enumerate(returns):
        print(f"shot {shot}: mean return {value:.3f}")
    print(f"wrote {path}")


@app.command
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


@app.command
def demo(
    folder: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/demo"),
) -> None:
    """Train on a small scale, watch both players adapt, and print the tables: a few minutes on two cores.

    Interrupted, it goes on where it was when called again; finished runs are not repeated.

    Args:
        folder: where the runs, the report, the plot and the videos go.
    """
    from metaduel.benchmarks.tools.demo import run_demo
    from metaduel.meta.runs.trainer import TrainingStopped

    try:
        run_demo(folder)
    except TrainingStopped as error:
        _stopped(error)
    except KeyboardInterrupt:
        _resumable("demo", "--folder", str(folder))
        raise


def _task(spec: GameSpec, text: str) -> Task:
    from metaduel.envs.core.tasks import check_task, find_task

    if not text.lstrip().startswith("{"):
        return find_task(spec, text)
    try:
        return check_task(spec, json.loads(text))
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"task={text!r} is not JSON ({error.msg} at character {error.pos})") from None


def _spaces(spec: GameSpec) -> Table:
    table = Table("seat", "observation", "action", title="Spaces")
    for role in ROLES:
        table.add_row(role, escape(str(spec.observation_space(role))), escape(str(spec.action_spaces[role])))
    return table


def _contexts(spec: GameSpec) -> Table:
    table = Table("context", "what it is", "unit", "default", "training", "extrapolation", "seen by", title="Contexts")
    for c in spec.contexts:
        seen = "both" if len(c.visible_to) == 2 else c.visible_to[0] if c.visible_to else "nobody"
        table.add_row(c.name, c.description, c.unit, f"{c.default:g}", _range(c.train), _outside(c), seen)
    return table


def _outside(context: Context) -> str:
    return " or ".join(_range(part) for part in context.extrapolation) or "as in training"


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:g} to {ends[1]:g}"


def _opponents(spec: GameSpec, panel: Mapping[str, Any]) -> Table:
    from metaduel.envs.players.scripted import scripted

    table = Table("seat", "split", "name", "what it does", "rating", "options", title="Scripted players")
    for role in ROLES:
        known, rated = scripted(spec, role), panel.get(role, {}).get("ratings", {})
        for split in OPPONENT_SPLITS:
            for name in spec.opponents[role][split]:
                rating = f"{rated[name]['mu']:.1f}" if name in rated else ""
                options = ", ".join(f"{o.name}={o.default:.3g}" for o in known[name].options)
                table.add_row(role, split, name, known[name].description, rating, options)
    return table


def _headroom(certificate: Mapping[str, Any]) -> Table:
    table = Table(
        "seat", "informed - best that does not adapt", "share", "random start", "memory", "verdict", title="Headroom"
    )
    for role, found in certificate["roles"].items():
        own = found["headroom"]
        interval = f"{own['mean']:.3f} [{own['low']:.3f}, {own['high']:.3f}]"
        # There is no share of nothing.
        recovered = (found["random_start_share"], found["recurrent_share"]) if own["mean"] > 0 else ()
        shares = [f"{share:.0%}" for share in (found["share"], *recovered)]
        table.add_row(role, escape(interval), *shares, *[""] * (3 - len(shares)), found["verdict"])
    return table


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; bad input is one line on standard error and exit code 2."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported: spinning threads starve others
    try:
        app.cli(
            prog="metaduel",
            description="Two-player games, and agents that learn to adapt to their tasks and opponents in few episodes.",
            args=args,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except InvalidInputError as error:
        print(f"metaduel: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output left, as in `metaduel list | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # a file that cannot be read or written
        print(f"metaduel: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
