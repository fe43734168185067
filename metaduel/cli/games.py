"""Games: the list of them, the facts about one, and videos of play."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from gymnasium import spaces
from rich.console import Console
from rich.markup import escape

from metaduel.benchmarks.core.terminal import FittedTable, plain
from metaduel.cli.common import GameName, PlayerName, parse_task
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.measured import measured
from metaduel.envs.core.registry import find, specs
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES, Context, GameSpec

HALF = "\N{UPPER HALF BLOCK}"  # what pictures are made of


def list_games() -> None:
    """List the games: what a player does in them, the steps of an episode, and the contexts that are hidden from the players."""
    rows = []
    for spec in specs().values():
        hidden = ", ".join(c.name for c in spec.contexts if not c.visible_to)
        rows.append((spec.name, spec.summary, str(spec.horizon), hidden))
    Console().print(FittedTable(("game", "rules", "steps", "hidden from both players"), rows))
    print("More about a game: metaduel info GAME")


def info(game: GameName) -> None:
    """Show one game: its spaces, the contexts that vary between tasks, the scripted opponents for each seat, its headroom, and on
    a terminal a picture.

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
    elif console.is_terminal and plain(HALF, console.encoding) == HALF:
        from metaduel.envs.render.gallery import portrait, thumbnail

        console.print(thumbnail(portrait(spec)))


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
        protagonist: the player in the protagonist's seat; the first scripted one by default.
        adversary: the player in the adversary's seat; the first scripted one by default.
        opponent: your opponent with --human; without --human, the same as --adversary.
        human: play this role yourself, protagonist or adversary, in a window. What is hidden from players stays hidden from
            you: the second episode is easier than the first.
        task: SPLIT:INDEX for a task of a frozen list, such as held_out:3, or JSON, such as '{"push": 0.05}'.
        video: an .mp4 or .gif file to write; GAME.mp4 by default.
        window: open a window instead of writing a video.
        episodes: number of episodes to play, one after another.
        seed: of the episodes' random numbers; the same seed shows the same episodes.
    """
    spec, values = find(game), parse_task(find(game), task)
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
    screen.prepare()
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


def gallery(out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("gallery.png")) -> None:
    """Write one picture with a frame of every family.

    Args:
        out: the .png file.
    """
    from metaduel.envs.render.gallery import write_gallery

    write_gallery(out)
    print(f"wrote {out}")


def _spaces(spec: GameSpec) -> FittedTable:
    rows = [(role, _words(spec.observation_space(role)), _words(spec.action_spaces[role])) for role in ROLES]
    return FittedTable(("seat", "observation", "action"), rows, "Spaces")


def _words(space: spaces.Box | spaces.Discrete) -> str:
    if isinstance(space, spaces.Discrete):
        return str(space)
    ends = ["[" + ", ".join(f"{end:.4g}" for end in side.tolist()) + "]" for side in (space.low, space.high)]
    return f"Box of {space.shape[0]} from {ends[0]} to {ends[1]}"


def _contexts(spec: GameSpec) -> FittedTable:
    rows = []
    for c in spec.contexts:
        seen = "both" if len(c.visible_to) == 2 else c.visible_to[0] if c.visible_to else "no player"
        rows.append((c.name, c.description, c.unit, f"{c.default:g}", _range(c.train), _outside(c), seen))
    header = ("context", "what it is", "unit", "default", "training", "extrapolation", "seen by")
    return FittedTable(header, rows, "Contexts")


def _outside(context: Context) -> str:
    return " or ".join(_range(part) for part in context.extrapolation) or "as in training"


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:g} to {ends[1]:g}"


def _opponents(spec: GameSpec, panel: Mapping[str, Any]) -> FittedTable:
    from metaduel.envs.players.scripted import scripted

    rows = []
    for role in ROLES:
        known, rated = scripted(spec, role), panel.get(role, {}).get("ratings", {})
        for split in OPPONENT_SPLITS:
            for name in spec.opponents[role][split]:
                rating = f"{rated[name]['mu']:.1f}" if name in rated else ""
                options = ", ".join(f"{o.name}={o.default:.3g}" for o in known[name].options)
                rows.append((role, split, name, known[name].description, rating, options))
    return FittedTable(("seat", "split", "name", "what it does", "rating", "options"), rows, "Scripted players")


def _headroom(certificate: Mapping[str, Any]) -> FittedTable:
    rows = []
    for role, found in certificate["roles"].items():
        own = found["headroom"]
        interval = f"{own['mean']:.3f} [{own['low']:.3f}, {own['high']:.3f}]"
        # There is no share of nothing.
        recovered = (found["random_start_share"], found["recurrent_share"]) if own["mean"] > 0 else ()
        shares = [f"{share:.0%}" for share in (found["share"], *recovered)]
        rows.append((role, interval, *shares, *[""] * (3 - len(shares)), found["verdict"]))
    header = ("seat", "informed - best non-adapting", "share", "random start", "memory", "verdict")
    return FittedTable(header, rows, "Headroom")
