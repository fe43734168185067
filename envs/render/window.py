"""Windows, several at a time: each shows its own pictures, and has the keys and the mouse of the person in front of it."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metaduel.envs.core.errors import InvalidInputError

if TYPE_CHECKING:
    import pygame

_LEFT_BUTTON = 1


@dataclass
class Hands:
    """What a person does in front of one window.

    Attributes:
        keys: the keys that are held down, as pygame's codes.
        typed: the keys that were pressed, in order; a reader takes out what it has read.
        mouse: where the left mouse button is held, in px from the top left corner; None: it is not.
    """

    keys: set[int] = field(default_factory=set)
    typed: list[int] = field(default_factory=list)
    mouse: tuple[float, float] | None = None

    def let_go(self) -> None:
        """Hold nothing."""
        self.keys.clear()
        self.typed.clear()
        self.mouse = None


class Window:
    """A window of its own: ``pygame.display`` has one for the whole process.

    Args:
        title: what its frame says.
        size: (width, height) in px.
        hands: what keeps the person's keys and mouse.

    Raises:
        InvalidInputError: no window can be opened here.
    """

    def __init__(self, title: str, size: tuple[int, int], hands: Hands) -> None:
        import pygame

        if not hasattr(pygame, "Window"):
            raise InvalidInputError(
                f"render_mode='human' needs pygame-ce of at least 2.5, not pygame {pygame.version.ver}: "
                'pip uninstall pygame, then pip install "metaduel[render]"'
            )
        for window in [window for window in _open if window.lost]:
            _open.discard(window)
        display, reason = pygame.display, "no display found"
        # A program that uses pygame itself goes on with the display that it has set up.
        self._ends_display: bool = not display.get_init() or any(window._ends_display for window in _open)
        self.closed, self.hands = False, hands
        try:
            display.init()
            # SDL's own way out when there is no display: a window that is not shown.
            if display.get_driver() != "offscreen" or "SDL_VIDEODRIVER" in os.environ:
                self._handle = pygame.Window(title, size)
                _open.add(self)
                return
        except pygame.error as error:
            reason = str(error)
        if self._ends_display and not _open:
            display.quit()
        raise InvalidInputError(f"render_mode='human' needs a screen ({reason}): use 'rgb_array' here")

    @property
    def lost(self) -> bool:
        """Whether another part of the program has ended pygame, and the window with it."""
        import pygame

        try:
            return self._handle.id is None
        except pygame.error:
            return True

    def show(self, picture: pygame.Surface) -> None:
        """Show a picture of the window's size."""
        self._handle.get_surface().blit(picture, (0, 0))
        self._handle.flip()

    def close(self) -> None:
        """Close this window alone. May be called twice."""
        import pygame

        if self.closed:
            return
        self.closed = True
        self.hands.let_go()
        self._handle.destroy()
        _open.discard(self)
        if self._ends_display and not _open and pygame.display.get_surface() is None:
            pygame.display.quit()

    def _take(self, event: pygame.event.Event) -> None:
        import pygame

        hands = self.hands
        if event.type == pygame.WINDOWCLOSE:
            self.close()
        elif event.type == pygame.WINDOWFOCUSLOST:  # keys that are let go elsewhere are not reported
            hands.keys.clear()
            hands.mouse = None
        elif event.type == pygame.KEYDOWN:
            hands.keys.add(event.key)
            hands.typed.append(event.key)
        elif event.type == pygame.KEYUP:
            hands.keys.discard(event.key)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == _LEFT_BUTTON:
            hands.mouse = event.pos
        elif event.type == pygame.MOUSEBUTTONUP and event.button == _LEFT_BUTTON:
            hands.mouse = None
        elif event.type == pygame.MOUSEMOTION and hands.mouse is not None:
            hands.mouse = event.pos


_open: weakref.WeakSet[Window] = weakref.WeakSet()


def poll() -> None:
    """Hand every event since the last call to the window that it belongs to. There is one queue for all of them."""
    import pygame

    if not _open or not pygame.display.get_init():
        return
    for event in pygame.event.get():
        for window in list(_open):
            # The whole program is asked to end, or one window.
            if event.type == pygame.QUIT:
                window.close()
            elif getattr(event, "window", None) is window._handle:
                window._take(event)
        if not _open:  # perhaps the display went with the last one
            return
