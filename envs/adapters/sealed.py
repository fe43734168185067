"""Attributes that can't be set: one that nothing reads would seem to have an effect, and have none."""

from __future__ import annotations

from typing import Any, ClassVar

from metaduel.envs.core.errors import InvalidInputError


class Sealed:
    """Once ``seal`` was called, setting a public attribute raises ``InvalidInputError``, all but those in ``SETTABLE``.

    What wrappers set on themselves doesn't come here: no environment can see it.
    """

    SETTABLE: ClassVar[tuple[str, ...]] = ()  # what the interface's own library sets

    def seal(self) -> None:
        """Refuse from now on."""
        self.__dict__["_is_sealed"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self.SETTABLE and self.__dict__.get("_is_sealed"):
            owner = type(self).__name__
            if callable(getattr(self, f"set_{name}", None)):
                right = f"call set_{name}(...), which holds from the next reset on"
            elif hasattr(self, name):
                right = "it is chosen when the environment is made"
            else:
                right = "nothing reads an attribute of this name"
            raise InvalidInputError(f"{owner}.{name}={value!r} has no effect: {right}")
        super().__setattr__(name, value)
