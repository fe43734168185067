"""Outer steps in pieces, so that several runs' pieces can be done at once.

A learner's outer step is a generator: it yields pieces of work (an adaptation, a differentiation) and is sent their results. It
knows one run. ``alone`` does each piece as it comes. ``together`` advances the generators of several runs in step, and does the
pieces of one kind at once: their tasks are the tasks of one batch. The tasks of a batch are independent, so that each run gets
what it gets alone, up to the rounding of larger products.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")
AGAIN = object()  # in place of a result: this piece is done again, without those that failed
Work = Generator["Piece", Any, Result]


class Piece(Protocol):
    """A piece of work."""

    @property
    def kind(self) -> Hashable | None:
        """Pieces of equal kind can be done at once; None: this one cannot."""
        ...

    def do(self) -> Any:
        """The result."""
        ...

    def do_all(self, pieces: Sequence[Any]) -> list[Any]:
        """The results of several pieces of its kind, in their order. An exception in place of a result is raised where that piece
        was yielded; ``AGAIN`` leaves a piece undone for now.
        """
        ...


def alone(work: Work[Result]) -> Result:
    """Do each piece as it comes, and return the result."""
    try:
        piece = next(work)
        while True:
            try:
                done = piece.do()
            except Exception as error:
                piece = work.throw(error)
            else:
                piece = work.send(done)
    except StopIteration as end:
        result: Result = end.value
        return result


def together(works: Sequence[Work[Any]], done: Callable[[int], int] = lambda i: 0) -> list[Any]:
    """Do the pieces of several generators at once where their kinds are equal.

    Args:
        works: the generators.
        done: how far one of them is, such as its number of iterations: those that fell behind catch up first.

    Returns:
        Each one's result, or the exception that ended it; the others go on.
    """
    results: list[Any] = [None] * len(works)
    waiting: dict[int, Piece] = {}

    def advance(i: int, result: Any) -> None:
        waiting.pop(i, None)
        try:
            waiting[i] = works[i].throw(result) if isinstance(result, Exception) else works[i].send(result)
        except StopIteration as end:
            results[i] = end.value
        except Exception as error:
            results[i] = error

    for i in range(len(works)):
        advance(i, None)
    while waiting:
        # Where a task diverged, its run is alone for a while, and catches up first.
        group = min(_groups(waiting), key=lambda own: (min(map(done, own)), len(own)))
        for i, one in zip(group, _results_of([waiting[i] for i in group]), strict=True):
            if one is not AGAIN:
                advance(i, one)
    return results


def _results_of(pieces: Sequence[Piece]) -> list[Any]:
    """The results of pieces of one kind, or the exceptions that they raise: one run's must not reach another."""
    if len(pieces) > 1:
        try:
            return pieces[0].do_all(pieces)
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(f"{len(pieces)} runs go on one by one for a moment ({why})", stacklevel=2)
            return [one for piece in pieces for one in _results_of([piece])]
    try:
        return [pieces[0].do()]
    except Exception as error:
        return [error]


def _groups(waiting: dict[int, Piece]) -> Iterator[list[int]]:
    """The numbers of the runs that wait for pieces of one kind."""
    kinds: dict[Hashable, list[int]] = {}
    for i, piece in waiting.items():
        kind = piece.kind
        kinds.setdefault(("alone", i) if kind is None else kind, []).append(i)
    yield from kinds.values()
