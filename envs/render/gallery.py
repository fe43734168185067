"""Pictures of the families: one frame of each, and all of them on one sheet."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from rich.text import Text

from metaduel.envs.core import registry
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.game import make_game
from metaduel.envs.core.spec import ROLES, GameSpec
from metaduel.envs.core.tasks import find_task
from metaduel.envs.players.names import load_player
from metaduel.envs.render.film import film
from metaduel.envs.render.screen import Frame, Screen

COLUMNS = 3
PAPER = 0xFB  # the sheet's grey, that of the frames' paper


def portrait(spec: GameSpec, share: float = 0.6) -> Frame:
    """A frame of an episode between two training players, at ``share`` of its length: [H, W, 3] uint8."""
    duel, names = Duel(make_game(spec)), [spec.opponents[role]["train"][i] for i, role in enumerate(ROLES)]
    first, second = (load_player(duel, role, name) for role, name in zip(ROLES, names, strict=True))
    screen = Screen(spec, "rgb_array", (names[0], names[1]))
    frames = list(film(duel, (first, second), find_task(spec, "held_out:0"), screen))
    played = len(frames) - spec.fps  # the last frame is held for a second
    screen.close()
    return frames[int(share * (played - 1))]


def sheet(frames: list[Frame], columns: int = COLUMNS, gap: int = 12) -> Frame:
    """Frames of one size side by side, with ``gap`` px between them."""
    height, width, _ = frames[0].shape
    rows = math.ceil(len(frames) / columns)
    shape = (rows * height + (rows + 1) * gap, columns * width + (columns + 1) * gap, 3)
    result = np.full(shape, PAPER, np.uint8)
    for i, frame in enumerate(frames):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        result[top : top + height, left : left + width] = frame
    return result


def shrink(frame: Frame, factor: int = 2) -> Frame:
    """The mean of every ``factor`` x ``factor`` px."""
    height, width = (size // factor for size in frame.shape[:2])
    cut = frame[: height * factor, : width * factor].astype(np.float64)
    return np.asarray(cut.reshape(height, factor, width, factor, 3).mean((1, 3)).round(), np.uint8)


def thumbnail(frame: Frame, width: int = 48) -> Text:
    """The frame for a terminal, ``width`` characters wide: each shows two px, one above the other."""
    small = shrink(frame, frame.shape[1] // width)
    lines = [
        Text.assemble(
            *(("\N{UPPER HALF BLOCK}", f"rgb({a},{b},{c}) on rgb({d},{e},{f})") for (a, b, c), (d, e, f) in zip(*pair))
        )
        for pair in zip(small[::2].tolist(), small[1::2].tolist())
    ]
    return Text("\n").join(lines)


def write_png(path: AnyPath, frame: Frame) -> None:
    """Write a picture; it appears when it is complete.

    Raises:
        InvalidInputError: another suffix than ``.png``, or the render extra is not installed.
    """
    path = as_path(path, "out")
    if path.suffix != ".png":
        raise InvalidInputError(f"out={str(path)!r} must end with .png")
    try:
        import imageio.v2 as imageio
    except ImportError:
        raise InvalidInputError('pictures need imageio: pip install "metaduel[render]"') from None
    content: Any = io.BytesIO()
    imageio.imwrite(content, frame, format="png")  # type: ignore[arg-type]
    write_atomic(path, content.getvalue())


def write_gallery(path: AnyPath, chosen: dict[str, GameSpec] | None = None) -> None:
    """One picture with a frame of every registered family, or of those ``chosen``; see ``write_png``."""
    write_png(path, sheet([shrink(portrait(specs[0])) for specs in registry.families(chosen).values()]))
