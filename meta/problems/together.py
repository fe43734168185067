"""Several runs' problems as one, whose tasks are run after run: one rollout and one evaluation of the losses serve all runs.

Rows are what they are alone: their noise depends on their own seeds, and each task has weights of its own. Each run's losses keep
its own settings, and its own statistics where those are of a whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from metaduel.envs.core.spec import Role
from metaduel.meta.problems.problem import Problem


class Merged(Problem, Protocol):
    """Problems as one. The batches that it draws have ``parts``, each run's own.

    Attributes:
        problems: of the runs.
        counts: per role, the number of tasks of each run.
    """

    @property
    def problems(self) -> Sequence[Problem]:
        """See the class."""
        ...

    @property
    def counts(self) -> dict[Role, list[int]]:
        """See the class."""
        ...


def merged(problems: Sequence[Problem]) -> Merged:
    """Problems of equal ``kind`` as one."""
    return cast(Merged, problems[0].merge(problems))  # type: ignore[attr-defined]


def counts_of(problems: Sequence[Problem]) -> dict[Role, list[int]]:
    """Per role, the number of tasks of each run."""
    return {role: [one.tasks[role] for one in problems] for role in problems[0].tasks}
