"""The command line. Each subcommand is one small function; what they do lives in the rooms."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metaduel.envs.errors import InvalidInputError
from metaduel.envs.registry import find, specs
from metaduel.envs.spec import OPPONENT_SPLITS, ROLES, Context, GameSpec, Task

# Nothing here imports torch at the top: --help and list answer at once, and main() sets OMP_WAIT_POLICY in time.

app = tyro.extras.SubcommandApp()
GameName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GAME")]
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
    """Show one game: its spaces, the contexts that vary between tasks, and the scripted opponents for each seat.

    Args:
        game: the game's name, as `metaduel list` shows it.
    """
    spec = find(game)
    console = Console()
    console.print(f"[bold]{spec.id}[/bold]: {escape(spec.summary)}")
    console.print(f"{spec.horizon} steps; {'zero-sum' if spec.zero_sum else 'general-sum'}")
    for table in (_spaces(spec), _contexts(spec), _opponents(spec)):
        console.print(table)


@app.command
def watch(
    game: GameName,
    protagonist: PlayerName = None,
    adversary: PlayerName = None,
    task: Annotated[str, tyro.conf.arg(metavar="TASK")] = "held_out:0",
    video: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    human: bool = False,
    episodes: int = 1,
    seed: int = 0,
) -> None:
    """Watch two players: write a video, or open a window.

    A player is a scripted one's name (`metaduel info GAME` lists them), run:FOLDER for an agent that was trained here, or
    sb3:FILE for a Stable-Baselines3 model.

    Args:
        game: the game's name, as `metaduel list` shows it.
        protagonist: who plays the protagonist; the first scripted one by default.
        adversary: who plays the adversary; the first scripted one by default.
        task: SPLIT:INDEX for a task of a frozen list, such as held_out:3, or JSON, such as '{"push": 0.05}'.
        video: an .mp4 or .gif file to write; GAME.mp4 by default.
        human: open a window instead of writing a video.
        episodes: how many episodes to play, one after the other.
        seed: of the episodes' random numbers; the same seed shows the same episodes.
    """
    spec, chosen = find(game), {"protagonist": protagonist, "adversary": adversary}
    values = _task(spec, task)
    if human and video is not None:
        raise InvalidInputError(f"video={str(video)!r} and human=True: choose one of them")
    if episodes < 1:
        raise InvalidInputError(f"episodes={episodes} must be at least 1")
    names = [chosen[role] or spec.opponents[role]["train"][0] for role in ROLES]

    from metaduel.envs.core import Duel
    from metaduel.envs.opponents import load_player
    from metaduel.envs.play import film
    from metaduel.envs.render import Screen, write_video

    duel = Duel(spec.make_game())
    players = load_player(duel, "protagonist", names[0]), load_player(duel, "adversary", names[1])
    screen = Screen(spec, "human" if human else "rgb_array", (names[0], names[1]))
    captions = [task if episodes == 1 else f"{task}, episode {i + 1}" for i in range(episodes)]
    frames = (
        frame
        for episode, caption in enumerate(captions)
        for frame in film(duel, players, values, screen, seed, episode, caption)
    )
    if human:
        for _ in frames:
            pass
    else:
        path = video or Path(f"{spec.name}.mp4")
        write_video(path, frames, spec.fps)
        print(f"wrote {path}")
    screen.close()


def _task(spec: GameSpec, text: str) -> Task:
    from metaduel.envs.tasks import check_task, find_task

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


def _opponents(spec: GameSpec) -> Table:
    from metaduel.envs.opponents import scripted

    table = Table("seat", "split", "name", "what it does", title="Scripted players")
    for role in ROLES:
        known = scripted(spec, role)
        for split in OPPONENT_SPLITS:
            for name in spec.opponents[role][split]:
                table.add_row(role, split, name, known[name].description)
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
