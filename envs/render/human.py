"""A person in a seat: the keyboard or the mouse of the window that shows the game.

Continuous actions: the arrow keys, or the mouse while its left button is held (from the middle of the picture to its edge is the
whole range). Discrete ones: the number keys; where a choice is made at every blink of an eye, the left and right arrows.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import View
from metaduel.envs.core.spec import ROLES, Role
from metaduel.envs.render.screen import HEADER, WIDTH, Screen
from metaduel.envs.render.window import Hands, poll

_REALTIME = 30  # frames per second from which on a person cannot choose them one by one
_POLL = 30  # times per second that a key is waited for


class Person:
    """The person in front of ``screen``; plays one row.

    Args:
        duel: the game.
        role: the person's seat.
        screen: the window, which is shown before every action.
    """

    memory = 0
    noise = 0

    def __init__(self, duel: Duel, role: Role, screen: Screen) -> None:
        self.duel, self.role, self.screen = duel, role, screen
        self.space = duel.action_space(role)
        self._last = 0

    @property
    def controls(self) -> str:
        """One line that says which key does what."""
        if isinstance(self.space, spaces.Box):
            up = ", up and down the second" if self.space.shape[0] > 1 else ""
            return f"arrow keys: left and right change the first number{up}; or hold the mouse button"
        if self._waits:
            known = self.duel.spec.action_names or tuple(f"action {i}" for i in range(int(self.space.n)))
            return "number keys: " + ", ".join(f"{i + 1} {name}" for i, name in enumerate(known))
        return "left and right arrows: the first and the last action; the last one pressed goes on"

    @property
    def _waits(self) -> bool:
        return isinstance(self.space, spaces.Discrete) and self.duel.spec.fps < _REALTIME

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Read the keyboard and the mouse; see ``core.Player.act``."""
        import pygame

        if isinstance(self.space, spaces.Box):
            low, high = torch.from_numpy(self.space.low), torch.from_numpy(self.space.high)
            numbers = torch.zeros_like(low)
            numbers[:2] = low.new_tensor(_direction(pygame, self.screen.hands))[: len(low)]
            return ((low + high + (high - low) * numbers) / 2).unsqueeze(0), memory
        if self._waits:
            return view.step.new_tensor([self._choose(pygame, view)]), memory
        left, right = (key in self.screen.hands.keys for key in (pygame.K_LEFT, pygame.K_RIGHT))
        if left != right:
            self._last = 0 if left else int(self.space.n) - 1  # type: ignore[union-attr]
        return view.step.new_tensor([self._last]), memory

    def _choose(self, pygame: Any, view: View) -> int:
        """Wait for the number key of a legal action; 0, which waits, where it is the other's turn or the window is closed."""
        legal = [True] * int(self.space.n)  # type: ignore[union-attr]
        if self.duel.spec.turn_based:
            seat = ROLES.index(self.role)
            if int(self.duel.game.turn(view.params, view.state)) != seat:
                return 0
            legal = self.duel.game.legal(view.params, view.state)[seat][0].tolist()
        clock, typed = pygame.time.Clock(), self.screen.hands.typed
        poll()
        typed.clear()  # a key that was pressed too early is no answer
        while not self.screen.closed:
            poll()
            while typed:
                number = typed.pop(0) - pygame.K_1
                if 0 <= number < len(legal) and legal[number]:
                    return int(number)
            clock.tick(_POLL)
        return 0


def _direction(pygame: Any, hands: Hands) -> tuple[float, float]:
    """Two numbers in [-1, 1]: to the right, and upwards."""
    if hands.mouse is not None:
        x, y = hands.mouse
        half = WIDTH / 2
        numbers = ((x - half) / half, (HEADER + half - y) / half)
    else:
        right, left, up, down = (
            float(key in hands.keys) for key in (pygame.K_RIGHT, pygame.K_LEFT, pygame.K_UP, pygame.K_DOWN)
        )
        numbers = right - left, up - down
    return max(-1.0, min(1.0, numbers[0])), max(-1.0, min(1.0, numbers[1]))
