"""Pictures, windows and videos of a duel. Families draw on a ``Canvas``; ``Screen`` adds what every picture needs.

Each family has ``<package>/viewer.py`` with one pure function ``draw(canvas, params, states)``, in which ``states`` are
the one-row states of the episode so far, oldest first: the newest is drawn, the others are there for trails.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import numpy.typing as npt

from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.files import replacing
from metaduel.envs.core.spec import GameSpec
from metaduel.envs.render.window import Hands, Window, poll

if TYPE_CHECKING:
    import pygame

Point = tuple[float, float]
Frame = npt.NDArray[np.uint8]

# Blue and vermilion stay apart for every common kind of colour vision. GOAL is the colour of what is hidden from both players.
PROTAGONIST, ADVERSARY, GOAL = "#0b66c3", "#d9480f", "#2b8a3e"
INK, MUTED, PAPER, WALL = "#1c2430", "#8b95a5", "#fbfaf7", "#465062"
_ARENA, _RULE = "#ffffff", "#e4e2da"

RENDER_MODES = ("rgb_array", "human")
WIDTH, HEADER, LEGEND = 576, 64, 32  # px
HEIGHT = HEADER + WIDTH + LEGEND  # px; both sides are multiples of 16, which video codecs want
_ZOOM = 2  # drawn larger, then scaled down: that is what smooths the edges


def _pygame() -> Any:
    """Import pygame with its fonts ready; no display is touched."""
    asked = "PYGAME_HIDE_SUPPORT_PROMPT" in os.environ
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError:
        raise InvalidInputError('rendering needs pygame-ce: pip install "metaduel[render]"') from None
    finally:
        if not asked:
            os.environ.pop("PYGAME_HIDE_SUPPORT_PROMPT", None)
    pygame.font.init()
    return pygame


def _number(point: Sequence[Any]) -> Point:
    return float(point[0]), float(point[1])


class Canvas:
    """A square drawing area in world coordinates: equal scale on both axes, y upwards.

    Places and radii are in world units; line widths and text sizes in px; colours are ``"#rrggbb"``. Numbers may be
    floats or one-element tensors.

    Args:
        person: the seat (0 or 1) that a person plays. Then nothing of the colour ``GOAL`` is drawn, and viewers leave out
            what else that seat must not see.
    """

    def __init__(self, person: int | None = None) -> None:
        self.person = person
        self._pygame = _pygame()
        self._surface: pygame.Surface = self._pygame.Surface((WIDTH * _ZOOM, HEIGHT * _ZOOM), 0, 32)
        self._fonts: dict[int, pygame.font.Font] = {}
        self.legend: list[tuple[str, str]] = []  # (colour, label), after the two players
        self.view(-1.0, 1.0, -1.0, 1.0)

    def view(self, x_min: float, x_max: float, y_min: float, y_max: float) -> None:
        """Set the world's rectangle that fills the drawing area, centred and undistorted."""
        self._scale = WIDTH * _ZOOM / max(x_max - x_min, y_max - y_min)
        self._centre = ((x_min + x_max) / 2, (y_min + y_max) / 2)

    def _pixel(self, point: Sequence[Any]) -> Point:
        x, y = _number(point)
        middle = WIDTH * _ZOOM / 2
        across = middle + (x - self._centre[0]) * self._scale
        down = HEADER * _ZOOM + middle - (y - self._centre[1]) * self._scale
        return across, down

    def _hides(self, colour: str) -> bool:
        return colour == GOAL and self.person is not None

    def _paint(self, points: Sequence[Point], margin: float, colour: str, alpha: int, draw: Any) -> None:
        """Call ``draw(surface, colour, shift)`` on the canvas, or on a transparent patch that is then blended in."""
        if self._hides(colour):
            return
        shade = self._pygame.Color(colour)
        if alpha >= 255:
            draw(self._surface, shade, (0.0, 0.0))
            return
        low = [math.floor(min(p[i] for p in points) - margin) for i in (0, 1)]
        high = [math.ceil(max(p[i] for p in points) + margin) for i in (0, 1)]
        patch = self._pygame.Rect(low[0], low[1], high[0] - low[0] + 1, high[1] - low[1] + 1)
        patch = patch.clip(self._surface.get_rect())
        if patch.width and patch.height:
            sheet = self._pygame.Surface(patch.size, self._pygame.SRCALPHA, 32)
            draw(sheet, shade, (-float(patch.x), -float(patch.y)))
            sheet.set_alpha(alpha)
            self._surface.blit(sheet, patch)

    def circle(
        self, centre: Sequence[Any], radius: SupportsFloat, colour: str, width: float = 0, alpha: int = 255
    ) -> None:
        """Draw a disc, or a ring of ``width`` px."""
        middle, size = self._pixel(centre), max(float(radius) * self._scale, 1.0)
        thick = math.ceil(width * _ZOOM)

        def draw(surface: pygame.Surface, shade: pygame.Color, shift: Point) -> None:
            self._pygame.draw.circle(surface, shade, (middle[0] + shift[0], middle[1] + shift[1]), size, thick)

        self._paint([middle], size + 1, colour, alpha, draw)

    def line(self, points: Sequence[Sequence[Any]], colour: str, width: float = 2, alpha: int = 255) -> None:
        """Draw a polyline with round joints; fewer than two points draw nothing."""
        if len(points) < 2:
            return
        pixels, thick = [self._pixel(p) for p in points], max(round(width * _ZOOM), 1)

        def draw(surface: pygame.Surface, shade: pygame.Color, shift: Point) -> None:
            moved = [(x + shift[0], y + shift[1]) for x, y in pixels]
            for start, end in itertools.pairwise(moved):
                self._pygame.draw.line(surface, shade, start, end, thick)
            for joint in moved if thick > 2 else ():
                self._pygame.draw.circle(surface, shade, joint, thick / 2)

        self._paint(pixels, thick, colour, alpha, draw)

    def polygon(self, points: Sequence[Sequence[Any]], colour: str, alpha: int = 255) -> None:
        """Draw a filled polygon of at least three points."""
        pixels = [self._pixel(p) for p in points]

        def draw(surface: pygame.Surface, shade: pygame.Color, shift: Point) -> None:
            self._pygame.draw.polygon(surface, shade, [(x + shift[0], y + shift[1]) for x, y in pixels])

        self._paint(pixels, 1, colour, alpha, draw)

    def arrow(self, start: Sequence[Any], end: Sequence[Any], colour: str) -> None:
        """Draw an arrow; one that is shorter than a few px draws nothing."""
        (x0, y0), (x1, y1) = self._pixel(start), self._pixel(end)
        length = math.hypot(x1 - x0, y1 - y0)
        if length < 3 * _ZOOM or self._hides(colour):
            return
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        head = min(10.0 * _ZOOM, length)
        neck = (x1 - ux * head, y1 - uy * head)
        wing = head * 0.45
        shade = self._pygame.Color(colour)
        self._pygame.draw.line(self._surface, shade, (x0, y0), neck, 3 * _ZOOM)
        tips = [(x1, y1), (neck[0] - uy * wing, neck[1] + ux * wing), (neck[0] + uy * wing, neck[1] - ux * wing)]
        self._pygame.draw.polygon(self._surface, shade, tips)

    def text(
        self, place: Sequence[Any], string: str, colour: str = INK, size: int = 16, anchor: str = "center"
    ) -> None:
        """Write one line; ``anchor`` says which point of it is at ``place`` (``center``, ``midleft``, ``topright`` and
        so on, as pygame names them).
        """
        if not self._hides(colour):
            self._write(self._pixel(place), string, colour, size, anchor)

    def _check_fonts(self) -> None:
        """Other parts of a program end pygame for all, as Gymnasium's environments do, and fonts end with it."""
        try:
            for font in self._fonts.values():
                font.get_height()
        except self._pygame.error:
            self._fonts.clear()
        self._pygame.font.init()

    def _font(self, size: int) -> pygame.font.Font:
        if size not in self._fonts:
            self._fonts[size] = self._pygame.font.Font(None, round(size * 1.35 * _ZOOM))
        return self._fonts[size]

    def _write(self, pixel: Point, string: str, colour: str, size: int, anchor: str) -> None:
        image = self._font(size).render(string, True, colour)
        self._surface.blit(image, image.get_rect(**{anchor: (round(pixel[0]), round(pixel[1]))}))

    def clear(self) -> None:
        """Start a new picture."""
        self.legend = []
        self._check_fonts()
        self._surface.fill(PAPER)
        self._pygame.draw.rect(self._surface, _ARENA, (0, HEADER * _ZOOM, WIDTH * _ZOOM, WIDTH * _ZOOM))

    def dress(self, title: str, caption: str, step: str, returns: Sequence[float], names: Sequence[str]) -> None:
        """Write the header and the legend over whatever was drawn there."""
        side, fill = WIDTH * _ZOOM, self._pygame.draw.rect
        foot = (HEADER + WIDTH) * _ZOOM
        for top, height in ((0, HEADER), (HEADER + WIDTH, LEGEND)):
            fill(self._surface, PAPER, (0, top * _ZOOM, side, height * _ZOOM))
        for y in (HEADER * _ZOOM - 2, foot):
            fill(self._surface, _RULE, (0, y, side, 2))
        left, right = 16 * _ZOOM, side - 16 * _ZOOM
        self._write((left, 22 * _ZOOM), title, INK, 19, "midleft")
        self._write((left, 46 * _ZOOM), step, MUTED, 14, "midleft")
        self._write((side / 2, 46 * _ZOOM), caption, INK, 15, "center")
        for y, colour, value in zip((22, 46), (PROTAGONIST, ADVERSARY), returns, strict=True):
            self._write((right, y * _ZOOM), f"{value:+.2f}", colour, 17, "midright")
        x = float(left)
        legend = [entry for entry in self.legend if not self._hides(entry[0])]
        for colour, label in [(PROTAGONIST, names[0]), (ADVERSARY, names[1]), *legend]:
            self._pygame.draw.circle(self._surface, colour, (x + 5 * _ZOOM, foot + LEGEND * _ZOOM / 2), 5 * _ZOOM)
            self._write((x + 16 * _ZOOM, foot + LEGEND * _ZOOM / 2), label, INK, 13, "midleft")
            x += (32 + self._font(13).size(label)[0] / _ZOOM) * _ZOOM

    def surface(self) -> pygame.Surface:
        """The finished picture at its true size."""
        small: pygame.Surface = self._pygame.transform.smoothscale(self._surface, (WIDTH, HEIGHT))
        return small

    def array(self) -> Frame:
        """The finished picture at its true size: [H, W, 3] uint8."""
        return np.ascontiguousarray(self._pygame.surfarray.array3d(self.surface()).swapaxes(0, 1))


def box(left: float, bottom: float, width: float, height: float) -> list[Point]:
    """The corners of an upright rectangle, for ``Canvas.polygon``."""
    right, top = left + width, bottom + height
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


class Screen:
    """Shows one duel: as arrays, or in a window of its own.

    Nothing of pygame is imported before the first frame: libraries ask for ``rgb_array`` and never draw. A copy, or what was
    pickled, opens a window of its own at its first frame.

    Args:
        spec: the family.
        render_mode: ``rgb_array`` or ``human``.
        names: of the players in the protagonist's and in the adversary's seat, for the legend.
        person: the seat that a person plays, see ``Canvas``.

    Attributes:
        hands: the keys and the mouse of the person in front of the window.

    Raises:
        InvalidInputError: another mode.
    """

    def __init__(
        self,
        spec: GameSpec,
        render_mode: str,
        names: tuple[str, str] = ("protagonist", "adversary"),
        person: int | None = None,
    ) -> None:
        if render_mode not in RENDER_MODES:
            raise unknown("render_mode", render_mode, RENDER_MODES)
        self.spec, self.render_mode, self.names, self.person = spec, render_mode, names, person
        self.hands = Hands()
        self._closed = False
        self._canvas: Canvas | None = None
        self._window: Window | None = None
        self._clock: pygame.time.Clock | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be neither copied nor pickled; the next frame makes it anew."""
        anew = {"hands": Hands(), "_closed": self.closed, "_canvas": None, "_window": None, "_clock": None}
        return {**self.__dict__, **anew}

    @property
    def closed(self) -> bool:
        """Whether it was closed, by the program or by a person."""
        return self._closed or (self._window is not None and self._window.closed)

    def prepare(self) -> None:
        """Find what drawing needs now, for an error before any work; the first frame does it otherwise.

        Raises:
            InvalidInputError: no pygame, or a family without a viewer.
        """
        if self._canvas is None:
            self._canvas = Canvas(self.person)
        _viewer(self.spec)

    def frame(self, params: Any, states: Sequence[Any], returns: Sequence[Any], caption: str = "") -> Frame | None:
        """Draw the newest state.

        Args:
            params: the task, one row.
            states: the episode so far, one row each, oldest first.
            returns: (protagonist's, adversary's) so far.
            caption: a few words, such as ``shot 2``.

        Returns:
            [H, W, 3] uint8 for ``rgb_array``; None for ``human``, where the call takes as long as a step is shown.

        Raises:
            InvalidInputError: no pygame, a family without a viewer, or ``human`` where no window can be opened.
        """
        if self.closed:
            return None
        if self._canvas is None:
            self._canvas = Canvas(self.person)
        canvas = self._canvas
        canvas.clear()
        _viewer(self.spec).draw(canvas, params, states)
        canvas.dress(self.spec.name, caption, f"step {len(states) - 1}", _number(returns), self.names)
        if self.render_mode == "rgb_array":
            return canvas.array()
        self._show(canvas.surface())
        return None

    def _show(self, picture: pygame.Surface) -> None:
        if self._window is None or self._clock is None or self._window.lost:
            self._window = None
            self._window = Window(f"metaduel: {self.spec.name}", (WIDTH, HEIGHT), self.hands)
            self._clock = _pygame().time.Clock()
        self._window.show(picture)
        self._clock.tick(self.spec.fps)
        poll()

    def close(self) -> None:
        """Close the window, if there is one. May be called twice."""
        if self._window is not None:
            self._window.close()
        self._closed = True


def _viewer(spec: GameSpec) -> Any:
    """The family's module that draws."""
    name = f"{spec.package}.viewer"
    if importlib.util.find_spec(name) is None:
        raise InvalidInputError(f"{spec.name} cannot be drawn: {spec.package} has no viewer.py")
    return importlib.import_module(name)


def check_video(path: AnyPath) -> Path:
    """The path of a video that can be written.

    Raises:
        InvalidInputError: another suffix than ``.mp4`` or ``.gif``, or the render extra is not installed.
    """
    target = as_path(path, "video")
    if target.suffix not in (".mp4", ".gif"):
        raise InvalidInputError(f"video={str(path)!r} must end with .mp4 or .gif")
    try:
        import imageio.v2  # noqa: F401
        import imageio_ffmpeg  # noqa: F401 (imageio finds the bundled ffmpeg through it)
    except ImportError:
        raise InvalidInputError('videos need imageio with ffmpeg: pip install "metaduel[render]"') from None
    return target


def write_video(path: AnyPath, frames: Iterable[Frame], fps: int) -> None:
    """Write frames to an ``.mp4`` or ``.gif`` file. The file appears when it is complete, or not at all.

    Args:
        path: where; missing folders are made.
        frames: [H, W, 3] uint8 arrays of one size, at least one.
        fps: frames per second.

    Raises:
        InvalidInputError: another suffix, no frames, or the render extra is not installed.
    """
    target = check_video(path)
    import imageio.v2 as imageio

    options: dict[str, Any] = {"fps": fps, "codec": "libx264", "pixelformat": "yuv420p", "ffmpeg_log_level": "error"}
    if target.suffix == ".gif":
        options = {"duration": 1000 / fps, "loop": 0}
    with replacing(target) as temporary:
        count = 0
        writer: Any = imageio.get_writer(temporary, **options)
        with contextlib.closing(writer):  # its own `with` leaves ffmpeg running when a frame fails
            for frame in frames:
                writer.append_data(frame)
                count += 1
        if count == 0:
            raise InvalidInputError(f"video={str(path)!r} needs at least one frame")
