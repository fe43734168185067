"""The entries of an evaluation: players that adapt or not, each as an ``Adapter`` with a name and a training seed.

| entry | player |
|---|---|
| ``"runs/mine"``, a ``Path``, ``"run:FOLDER"``, a ``Run`` | a run folder: its players with the rates that they learned |
| an ``Agent``, the folder of a saved one | one player of a run, adapted before or not |
| an ``Adapter`` | any object with ``start(seat, rows, seed)`` and ``update(player, experience)`` |
| an object with ``begin`` and ``act`` | a learner in NumPy, see ``agents.adapters.numpy_objects`` |
| a model of Stable-Baselines3 | fine-tuned by its own ``learn`` |
| any other object that ``load_player`` takes: ``freeze(model)``, a policy, an object with ``predict`` | plays as it is |
| ``"sb3:FILE"``, ``"FILE.zip"`` | a saved model as it is |
| ``"sb3:FILE?trust=PPO"`` | the same, loaded with its own code, and fine-tuned |
| ``"lead"``, ``"lead(noise=0.1)"``, a ``core.Player`` | a player that does not adapt |
| ``"module:name"`` | any other entry, or a function that makes one |
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from metaduel.agents.adapters.numpy_objects import NumpyAdapter
from metaduel.agents.adapters.protocol import Adapter, FixedPlayer
from metaduel.agents.adapters.sb3 import SB3Adapter, globals_kept
from metaduel.agents.sb3 import load_trusted, why_not_alone
from metaduel.benchmarks.core.few_shot import Contender, contender
from metaduel.benchmarks.core.summary import RANDOM, SCRATCH
from metaduel.benchmarks.core.table import UNTRAINED
from metaduel.envs.core.arguments import as_path, several
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, one_line
from metaduel.envs.core.fit import misfit
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, GameSpec, Role
from metaduel.envs.players.names import LOADERS, is_player, load_player, player_name
from metaduel.envs.players.scripted import scripted
from metaduel.meta.runs.agent import Agent
from metaduel.meta.runs.checkpoint import holds_players, read_config
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import Run, SavedAgent, load
from metaduel.meta.runs.players import Network, make_duel

SCRIPT = "scripted: "
RESERVED = (RANDOM, SCRATCH)  # names of baselines


@dataclass(frozen=True)
class Entry:
    """One entry of an evaluation.

    Attributes:
        name: its name in the table's column ``method``.
        seed: seed of its training; ``UNTRAINED`` for an untrained player.
        make: makes its contender for a role, in the game as it is played.
        why_not: returns why it cannot take a role's seat; None: it can.
        run: the run, for the entry of a run folder.
        config: settings of the run that trained it, for a run or an agent: it plays that run's game.
        described: a line about it for the report.
        source: its origin, in a few words.
    """

    name: str
    seed: int
    make: Callable[[Duel, Role], Contender]
    why_not: Callable[[Duel, Role], str | None]
    run: Run | None = None
    config: TrainConfig | None = None
    described: str = ""
    source: str = ""


Entries = Any  # one of the module's table, a sequence of them, or a mapping from names to one or a sequence of them


def entries_of(given: Entries, spec: GameSpec | None = None, network: Network | None = None) -> list[Entry]:
    """All entries. A ``module:name`` leaves the present folder on Python's path, see ``path_kept``.

    Args:
        given: see ``Entries``. In a mapping, a sequence holds one entry for each training seed.
        spec: the game, if it is known; scripted names need it.
        network: makes the networks of runs with their own, see ``load``.

    Raises:
        InvalidInputError: no entry, an invalid entry, two entries of one name and seed, or a ``network`` that no entry has.
    """
    found: list[Entry] = []
    pairs: Iterable[tuple[Any, Any]] = (
        given.items() if isinstance(given, Mapping) else [(None, one) for one in several(given)]
    )
    opened = [
        (name, [(one, _opened(one, network)) for one in (several(value) if name is not None else [value])])
        for name, value in pairs
    ]
    spec = spec or next(filter(None, (_game_of(*pair) for _, some in opened for pair in some)), None)
    for name, some in opened:
        if name is not None and (not isinstance(name, str) or not name):
            raise InvalidInputError(f"entries: the name {name!r} must be a string")
        if name is not None and (name in RESERVED or name.startswith(SCRIPT)):
            raise InvalidInputError(f"entries: the name {name!r} is that of a baseline: give another")
        for index, (one, run) in enumerate(some):
            entry = _entry(one, name, spec, network) if run is None else _folder(*run, name)
            seed = index if len(some) > 1 and entry.seed == UNTRAINED else entry.seed
            found.append(replace(entry, seed=seed, source=_word(one)))
    if not found:
        raise InvalidInputError("entries=[] must hold at least one run folder, learner or player")
    seen: dict[tuple[str, int], int] = {}
    for i, entry in enumerate(found):
        key = (entry.name, entry.seed)
        if key in seen:
            trained = "" if entry.seed == UNTRAINED else f" with seed {entry.seed}"
            raise InvalidInputError(
                f"{entry.source} and {found[seen[key]].source} are both {entry.name}{trained}: give one of them, "
                "or names in a mapping"
            )
        seen[key] = i
    if network is not None and all(entry.config is None or entry.config.network != "own" for entry in found):
        raise InvalidInputError(
            f"network={network!r} has no effect without a run with a network of its own among the entries: leave it out"
        )
    return found


@contextmanager
def path_kept() -> Iterator[None]:
    """Take the present folder off Python's path at the end, if an entry put it there: a learner may import more as it plays."""
    folder = os.getcwd()
    there = folder in sys.path
    try:
        yield
    finally:
        if not there and folder in sys.path:
            sys.path.remove(folder)


def _opened(value: Any, network: Network | None) -> tuple[str, Run] | None:
    """The name of a folder, and the run or saved agent in it; None for anything but a folder."""
    if not isinstance(value, (str, os.PathLike)):
        return None
    text = os.fspath(value)
    folder = as_path(text.removeprefix("run:"), "entries")
    if not (text.startswith("run:") or holds_players(folder) or folder.is_dir()):
        return None
    own = read_config(folder).get("network") == "own"
    return folder.name, load(folder, network=network if own else None)


def _game_of(value: Any, opened: tuple[str, Run] | None) -> GameSpec | None:
    """The game of a run, an agent, or the folder of one; None for anything else."""
    if opened is not None:
        return opened[1].duel.spec
    if isinstance(value, Run):
        return value.duel.spec
    return find(value.family) if isinstance(value, Agent) and value.family else None


def _entry(value: Any, name: str | None, spec: GameSpec | None, network: Network | None) -> Entry:
    if isinstance(value, (str, os.PathLike)):
        return _named(os.fspath(value), name, spec, network)
    if isinstance(value, SavedAgent):
        return _saved(value, name)
    if isinstance(value, Run):
        return _run(value, name, f"{value.config.game}, {value.config.method}")
    if isinstance(value, Agent):
        return _agent(value, name)
    if isinstance(value, type):
        raise InvalidInputError(f"entries: {value.__name__} is a class: give {value.__name__}(), an object of it")
    if _is_sb3(value):
        return _adapter(SB3Adapter(value), name or type(value).__name__, _spaces_of(value))
    if callable(getattr(value, "start", None)) and callable(getattr(value, "update", None)):
        return _adapter(value, name or type(value).__name__)
    if callable(getattr(value, "begin", None)):
        return _adapter(NumpyAdapter(value), name or type(value).__name__)
    if is_player(value):
        return _fixed(value, name or player_name(value))
    raise InvalidInputError(
        f"entries: {_word(value)} is none: give a run folder, a learner with begin and act, an Adapter, a model of "
        "Stable-Baselines3, a player, or a player's name"
    )


def _named(text: str, name: str | None, spec: GameSpec | None, network: Network | None) -> Entry:
    """The entry that a string names, which is no folder's."""
    prefix, colon, rest = text.partition(":")
    file = rest if colon and prefix == "sb3" else text if text.partition("?")[0].endswith(".zip") else None
    if file is not None:
        return _file(file, name)
    if (
        colon
        and prefix.isidentifier()
        and all(part.isidentifier() for part in rest.split("."))
        and _known(spec, prefix)
    ):
        pass  # GAME:NAME is a scripted name
    elif colon and all(part.isidentifier() for part in (*prefix.split("."), *rest.split("."))):
        return _imported(prefix, rest, text, name, spec, network)
    return _scripted(text, name, spec)


def _known(spec: GameSpec | None, prefix: str) -> bool:
    return spec is not None and prefix.lower() == spec.name.lower()


def _imported(
    module: str, attribute: str, text: str, name: str | None, spec: GameSpec | None, network: Network | None
) -> Entry:
    """``module:name``, from the present folder or anywhere else on the path."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # ``path_kept`` takes it off again
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the module is foreign code
        why = one_line(error, 200)
        raise InvalidInputError(f"entries: {text!r}: {type(error).__name__}: {why}") from error
    try:
        made = found() if isinstance(found, type) or (callable(found) and not hasattr(found, "act")) else found
    except Exception as error:  # foreign code
        raise InvalidInputError(f"entries: {text!r}: {attribute}() raises {type(error).__name__}: {error}") from error
    if isinstance(made, (str, os.PathLike)):
        raise InvalidInputError(f"entries: {text!r} makes {made!r}, must make a learner or a player")
    return _entry(made, name or attribute, spec, network)


def _folder(folder: str, run: Run, name: str | None) -> Entry:
    return _saved(run, name or folder) if isinstance(run, SavedAgent) else _run(run, name, folder)


def _run(run: Run, name: str | None, described: str) -> Entry:
    config = run.config
    method = name or ("informed" if config.informed else config.method)
    best = ", ".join(f"{role} of iteration {number}" for role, number in run.iterations.items())
    steps = f" or {config.environment_steps:,} environment steps" if config.environment_steps else ""
    line = f"{described}: {method}, seed {config.seed}, {config.iterations} iterations{steps} ({best})"

    def why_not(duel: Duel, role: Role) -> str | None:
        if run.duel.spec.id != duel.spec.id:
            return f"it was trained on {run.duel.spec.id}, this is {duel.spec.id}"
        return None if role in run.agents else f"it trained {', '.join(run.agents)} alone"

    return Entry(method, config.seed, lambda duel, role: contender(run, role, method), why_not, run, config, line)


def _saved(run: SavedAgent, name: str | None) -> Entry:
    (agent,) = run.agents.values()
    return _agent(agent, name)


def _agent(agent: Agent, name: str | None) -> Entry:
    config = agent.config if isinstance(agent.config, TrainConfig) else None

    def own(duel: Duel) -> Duel:
        """The game as the agent sees it."""
        return duel if config is None or not config.informed else make_duel(config)

    def why_not(duel: Duel, role: Role) -> str | None:
        seen = own(duel)
        return agent.why_not(duel.spec.id, role, seen.observation_space(role), seen.action_space(role))

    def make(duel: Duel, role: Role) -> Contender:
        return Contender(label, UNTRAINED, role, own(duel), agent.adapter)

    label = name or "agent"
    return Entry(label, UNTRAINED, make, why_not, config=config)


def _adapter(adapter: Adapter, name: str, why_not: Callable[[Duel, Role], str | None] | None = None) -> Entry:
    return Entry(
        name,
        UNTRAINED,
        lambda duel, role: Contender(name, UNTRAINED, role, duel, adapter),
        why_not or (lambda duel, role: None),
    )


def _fixed(given: Any, label: str) -> Entry:
    """A player that does not adapt, as ``load_player`` takes it."""

    def make(duel: Duel, role: Role) -> Contender:
        return Contender(label, UNTRAINED, role, duel, FixedPlayer(load_player(duel, role, given)))

    def why_not(duel: Duel, role: Role) -> str | None:
        try:
            load_player(duel, role, given)
        except InvalidInputError as error:
            return str(error)
        return None

    return Entry(label, UNTRAINED, make, why_not)


def _scripted(text: str, name: str | None, spec: GameSpec | None) -> Entry:
    if spec is None:
        known = "no folder or file of this name, and scripted players need game=..."
        raise InvalidInputError(f"entries: {text!r}: {known}")
    duel, entry = Duel(make_game(spec)), _fixed(text, name or f"{SCRIPT}{text}")
    if all(entry.why_not(duel, role) is not None for role in ROLES):
        names = sorted({player for role in ROLES for player in scripted(spec, role)})
        raise InvalidInputError(
            f"entries: {text!r} is no folder, no file, and no scripted player of {spec.name}: {', '.join(names)}"
        )
    return entry


def _file(text: str, name: str | None) -> Entry:
    """A saved model: as it is, or, where its code is trusted, fine-tuned."""
    path, _, query = text.partition("?")
    label = name or Path(path).name.removesuffix(".zip")
    options = dict(parse_qsl(query))
    trusted = options.get("trust")
    if trusted is None:
        return _fixed(f"sb3:{text}", label)
    if others := sorted(options.keys() - {"trust"}):
        raise InvalidInputError(f"entries: {text!r}: {', '.join(others)} has no effect beside trust: leave it out")
    with globals_kept():
        model = load_trusted(as_path(path), trusted)
    return _adapter(SB3Adapter(model), label, _spaces_of(model))


def opponents_of(given: Any) -> tuple[tuple[str, Any], ...]:
    """Opponents of an explicit list, by name: whatever ``load_player`` takes, and run folders and .zip files without a prefix.
    Models and agents play as they are. A mapping names them.

    Raises:
        InvalidInputError: no opponent, an invalid one, or two of one name.
    """
    pairs = list(given.items()) if isinstance(given, Mapping) else [(None, one) for one in several(given)]
    if not pairs:
        raise InvalidInputError("opponents=[] must hold at least one player")
    found: dict[str, Any] = {}
    for name, value in pairs:
        player = _opponent(value)
        label = name or player_name(player)
        if label in found:
            raise InvalidInputError(f"opponents: two of them are called {label!r}: give names in a mapping")
        found[label] = player
    return tuple(found.items())


def _opponent(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return player_name(value)
    if isinstance(value, str):
        if value and holds_players(as_path(value)):
            return f"run:{value}"
        return f"sb3:{value}" if value.endswith(".zip") and value.partition(":")[0] not in LOADERS else value
    if is_player(value):
        return value
    raise InvalidInputError(
        f"opponents: {_word(value)} is no player: give a scripted name, run:FOLDER, sb3:FILE, an Agent, a Run, a player of the "
        "core, or a model of Stable-Baselines3"
    )


def _is_sb3(value: Any) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("learn", "predict", "save", "set_env"))


def _spaces_of(model: Any) -> Callable[[Duel, Role], str | None]:
    def why_not(duel: Duel, role: Role) -> str | None:
        seat = duel.observation_space(role), duel.action_space(role)
        return misfit(model.observation_space, model.action_space, *seat) or why_not_alone(model)

    return why_not


def _word(value: object) -> str:
    if isinstance(value, (str, os.PathLike)):
        return one_line(value, 100)
    if type(value).__repr__ is object.__repr__:
        return one_line(
            f"{type(value).__module__}.{type(value).__qualname__}", 100
        )  # an address says nothing to a reader
    return one_line(repr(value), 100)
