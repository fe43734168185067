"""A search for a method's settings on a family: ``metaduel tune GAME``, judged on validation tasks against training opponents.

- **First round**: ``candidates`` trainings with settings drawn from a space, of one seed each; the first has the settings that
  are recommended now. Settings that a player has of its own (``inner_discount``, ``adversary_inner_discount``) are drawn for
  each player.
- **Last round**: the best candidates, and one put together from them (what both players share from the best of all, each player's
  own from its own best), with ``seeds`` other seeds each. The best of these is the result.

A candidate's score is the mean over players of its best validation score, shifted and scaled to mean 0 and deviation 1 over the
candidates of the round, so that a player with large rewards counts no more than the other. Scores and chosen settings are kept in
the folder; the same call resumes an interrupted search.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from metaduel.benchmarks.core.metrics import Array
from metaduel.benchmarks.core.report import Sheet, number
from metaduel.benchmarks.core.trainings import best_score, learn_steps
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.spec import Role
from metaduel.meta.learners.methods import find_method
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.recommended import advised

Space = Mapping[str, Sequence[Any]]  # values of every setting that is searched

# The support of a few episodes and the steps along it decide whether an update helps.
ADAPTING: Space = {
    "inner_discount": (0.0, 0.5, 0.9, 1.0),
    "inner_clip": (0.0, 0.4, 2.0),
    "inner_lr": (0.2, 0.5, 1.0, 2.0),
    "outer_lr": (0.001, 0.003, 0.006),
    "discount": (0.95, 0.99),
}
PRETRAINING: Space = {
    "inner_discount": (0.0, 0.5, 0.9, 1.0),
    "inner_clip": (0.0, 0.4, 2.0),
    "outer_lr": (0.0005, 0.002, 0.006),
    "discount": (0.95, 0.99),
}
REMEMBERING: Space = {
    "outer_lr": (0.0005, 0.001, 0.002),
    "discount": (0.95, 0.97, 0.99),
    "entropy": (0.0, 0.003, 0.01),
}
_DRAWS = 100  # per candidate, after which fewer different ones than asked for are taken
_OPTIONS = {"game": "GAME", "method": "--method", "seed": "--seeds"}
_OPTIONS |= dict.fromkeys(("iterations", "player_steps", "validate_every"), "--steps")  # these follow from it


@dataclass(frozen=True)
class Search:
    """The size of a search.

    Attributes:
        candidates: trainings of the first round.
        finalists: candidates of the last round, beside the one that is put together.
        seeds: seeds of each in the last round.
        steps: steps of its own that every player plays in a training.
        settings: settings of all trainings, by name.
        space: values of the settings to search, by name; empty: those of the method's kind.
    """

    candidates: int = 12
    finalists: int = 2
    seeds: int = 2
    steps: int = 1_000_000
    settings: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("candidates", "finalists", "seeds", "steps"):
            check_whole(name, getattr(self, name))
        if self.finalists > self.candidates:
            raise InvalidInputError(f"finalists={self.finalists!r} must be at most candidates={self.candidates!r}")
        for name, value in (*self.settings.items(), *self.space.items()):
            if name in _OPTIONS:
                raise InvalidInputError(
                    f"{name}={value!r} is no setting of a search's trainings: give {_OPTIONS[name]}"
                )
        for name, values in self.space.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise InvalidInputError(f"{name}={values!r} must be a list of values to try, such as [0.0, 0.9]")
            if name in self.settings:
                raise InvalidInputError(f"{name}={self.settings[name]!r} is set and searched: leave one out")


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        settings: the best settings, by name, without those of all trainings.
        sheets: both rounds' tables.
    """

    settings: dict[str, Any]
    sheets: tuple[Sheet, ...]


def tune(game: str, method: str, folder: AnyPath, search: Search) -> Found:
    """Search, and write ``folder/tuned.yaml`` (a config file of the best settings) and ``folder/tuning.md``.

    Raises:
        InvalidInputError: a setting that cannot work or has no effect, or a folder of another search; nothing was written.
    """
    target = as_path(folder, "folder")
    start = advised(game, method)
    base = start.override(**search.settings)
    space = {
        name: tuple(values) for name, values in (search.space or _space(base)).items() if name not in search.settings
    }
    own = _own(base, space, search.settings)
    tried = list(_draw(base, space, own, search.candidates))
    configs = [base.override(**settings) for settings in tried]  # refuses bad values before anything is trained
    for name, choices in ({name: (value,) for name, value in search.settings.items()} | search.space).items():
        # The value that a method has anyway is never refused: another one tells whether the setting has an effect.
        choice = next((one for one in choices if one != _value(start, name)), choices[0])
        with_it = [config.override(**{name: choice}) for config in configs]
        if not any(_has_effect(config, name) for config in with_it):
            with_it[0].refuse_idle([name])
    made_with = {"game": base.family, "method": method, "search": asdict(search), "candidates": tried}
    _check(target / "search.json", made_with)

    first = _train(base, tried, target / "first", search, [0])
    order = np.argsort(-_standard(first).mean(1))
    best = tried[int(order[0])]
    put_together = dict(best)
    for column, role in enumerate(base.roles):
        mine = tried[int(np.argmax(first[:, column]))]
        put_together |= {name: mine[name] for name in own.get(role, ()) if name in mine}
    finalists = [tried[int(i)] for i in order[: search.finalists]]
    if put_together not in finalists:
        finalists.append(put_together)
    last = _train(base, finalists, target / "last", search, range(1, 1 + search.seeds))
    chosen = finalists[int(np.argmax(_standard(last).mean(1)))]
    found = Found(chosen, (_sheet("First round", base, tried, first), _sheet("Last round", base, finalists, last)))
    values = base.override(**chosen).to_dict()
    write_atomic(target / "tuned.yaml", yaml.safe_dump(values, sort_keys=False).encode())
    write_atomic(target / "tuning.md", "\n".join(sheet.markdown() for sheet in found.sheets).encode())
    return found


def _space(base: TrainConfig) -> Space:
    """The settings that are worth a search, by what the method has."""
    kind = find_method(base.method)
    if kind.memory is not None:
        space = REMEMBERING
    else:
        space = ADAPTING if kind.configure(kind.settings()).steps else PRETRAINING
    return {name: values for name, values in space.items() if _has_effect(base, name)}


def _has_effect(config: TrainConfig, name: str) -> bool:
    try:
        config.refuse_idle([name])
    except InvalidInputError:
        return False
    return True


def _own(base: TrainConfig, space: Space, given: Mapping[str, Any]) -> dict[Role, list[str]]:
    """Per player the searched settings that it has of its own; the adversary's are left out where they are ``given``."""
    if len(base.roles) < 2:
        return {}
    parts = [base, base.learner, base.loss]
    names = [name for name in space if any(hasattr(part, f"adversary_{name}") for part in parts)]
    theirs = [f"adversary_{name}" for name in names]
    return {"protagonist": names, "adversary": [name for name in theirs if name not in given]}


def _draw(base: TrainConfig, space: Space, own: Mapping[Role, Sequence[str]], n: int) -> Iterator[dict[str, Any]]:
    """Different candidates, ``n`` at most; the first is what ``base`` has."""
    names = dict(space)
    for name in own.get("adversary", ()):
        names.setdefault(name, space[name.removeprefix("adversary_")])
    present = {name: _value(base, name) for name in names}
    for name, value in present.items():
        if value is None and name.startswith("adversary_"):
            present[name] = present[name.removeprefix("adversary_")]
    seen = [present]
    yield present
    rng = np.random.default_rng(0)
    for _ in range(_DRAWS * n):
        if len(seen) == n:
            return
        drawn = {name: values[int(rng.integers(len(values)))] for name, values in names.items()}
        if drawn not in seen:
            seen.append(drawn)
            yield drawn


def _value(config: TrainConfig, name: str) -> Any:
    return next((getattr(part, name) for part in (config, config.learner, config.loss) if hasattr(part, name)), None)


def _train(
    base: TrainConfig, candidates: Sequence[Mapping[str, Any]], folder: Path, search: Search, seeds: Sequence[int]
) -> Array:
    """Mean scores over seeds [candidates, players] of trainings, several in one process."""
    plans = []
    for (i, settings), seed in itertools.product(enumerate(candidates), seeds):
        plans.append((base.override(**settings).override(seed=seed), search.steps, folder / f"{i}-{seed}"))
    apart: dict[str, list[int]] = {}
    for i, (config, _, _) in enumerate(plans):  # settings that change shapes are trained apart
        apart.setdefault(json.dumps(config.world, sort_keys=True, default=str), []).append(i)
    for own in apart.values():
        learn_steps([plans[i] for i in own], quiet=False)
    scores: Array = np.array([[best_score(path, role) for role in base.roles] for _, _, path in plans])
    means: Array = scores.reshape(len(candidates), len(seeds), len(base.roles)).mean(1)
    return means


def _standard(scores: Array) -> Array:
    """Of each player, mean 0 and deviation 1 over candidates."""
    spread = scores.std(0)
    standard: Array = (scores - scores.mean(0)) / np.where(spread > 0, spread, 1.0)
    return standard


def _sheet(title: str, base: TrainConfig, candidates: Sequence[Mapping[str, Any]], scores: Any) -> Sheet:
    names = list(candidates[0])
    standard = _standard(scores).mean(1)
    rows = [
        (str(i), *(f"{candidates[i][name]:g}" if isinstance(candidates[i][name], float) else str(candidates[i][name])
                   for name in names), *(number(value) for value in scores[i]), number(standard[i]))
        for i in np.argsort(-standard)
    ]  # fmt: skip
    header = ("candidate", *names, *(f"{role}'s score" for role in base.roles), "both, scaled")
    note = "A score is the best validation return of a training, a mean over the shots after adaptation."
    return Sheet(f"{title}: {base.method} on {base.game}", header, tuple(rows), note)


def _check(path: Path, made_with: Mapping[str, Any]) -> None:
    """Refuse a folder of another search; otherwise write what this one is made with."""
    plain = json.loads(json.dumps(made_with, default=str))
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != plain:
            raise InvalidInputError(f"{path.parent} holds another search: name another folder")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(plain, indent=1) + "\n").encode())
