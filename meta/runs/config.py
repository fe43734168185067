"""The settings of a training run, as frozen dataclasses that become ``config.yaml`` and the command line."""

from __future__ import annotations

import math
import os
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from gymnasium import spaces

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.recurrent import RECURRENT
from metaduel.envs.core.arguments import several
from metaduel.envs.core.errors import InvalidInputError, check_whole, unknown, without_effect
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, GameSpec, Role, other
from metaduel.envs.players.names import check_name, player_name
from metaduel.meta.learners.joint import JointConfig
from metaduel.meta.learners.maml import MAMLConfig
from metaduel.meta.learners.methods import METHODS, find_method
from metaduel.meta.learners.rl2 import RL2Config, check_chains

LEARNED = "learned"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings of every training run.

    Attributes:
        method: see `metaduel methods`.
        seed: seed of all random numbers.
        iterations: outer steps.
        environment_steps: most environment steps, both seats of a game counted once; the run ends there even if iterations are
            left. 0: no limit.
        player_steps: steps of its own, in training tasks whose loss it uses, that every learner is to play; the run ends when all
            of them have, even if iterations or environment steps are left. In a duel both players count theirs. 0: no limit.
        tasks: tasks per iteration and player.
        opponents_at_once: scripted opponents that a player meets in an iteration, in turn: each costs small operations of its own
            at every step, and with few of them outer steps go to and fro between what each asks for. 0: all.
        episodes: episodes per task and shot in training.
        horizon: the most steps of an episode, which is cut off there; losses are per step of it. 0: the family's own; a
            user's own environments have none and need the number.
        network: ``mlp``; or ``gru`` or ``lstm``: a memory that lasts for one episode, with the last of ``hidden`` as its width,
            whose inputs include the previous action and reward. Methods that adapt by remembering have a network of their own.
            ``own``: a module of your own, see ``train_meta_adversarial``.
        hidden: widths of the policy networks.
        initial_log_std: initial value of a Gaussian policy's log standard deviation.
        context: number of inputs of the policy networks that are weights themselves, in which an update can encode the task.
        normalise_observations: shift and scale observations to mean 0 and deviation 1 over all training steps so far. The
            statistics belong to the checkpoint, and do not change while a player adapts. None: in methods that adapt by
            remembering. Rewards among a network's inputs are always divided by their deviation.
        warm_start: the folder of a run whose best weights are the start of this one; it has the same roles, or more, and
            networks. Empty: new weights. A run that has begun does not need that folder any more.
        learner: the meta-learner's settings, of the method's own class.
        loss: settings of the loss.
        validate_every: iterations between validations, which also write checkpoints.
        validation_tasks: number of validation tasks.
        threads: number of torch's threads; part of the run, since sums over large tensors differ between thread counts.
        compile: play episodes by compiled steps, which needs a C++ compiler. ``auto``: where there is one and the run is long
            enough to save more time than compiling takes; ``config.yaml`` records what it became, since compiled steps differ in
            the last digits. Families' own games only.
    """

    method: str = "maml"
    seed: int = 0
    iterations: int = 200
    environment_steps: int = 0
    player_steps: int = 0
    tasks: int = 20
    opponents_at_once: int = 2
    episodes: int = 10
    horizon: int = 0
    network: Literal["mlp", "gru", "lstm", "own"] = "mlp"
    hidden: tuple[int, ...] = (64, 64)
    initial_log_std: float = -0.5
    context: int = 0
    normalise_observations: bool | None = None
    warm_start: str = ""
    learner: MAMLConfig = field(default_factory=MAMLConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    validate_every: int = 25
    validation_tasks: int = 20
    threads: int = 1
    compile: Literal["auto", True, False] = "auto"

    def __post_init__(self) -> None:
        for own in fields(self):
            if own.type.startswith("tuple["):
                object.__setattr__(self, own.name, tuple(several(getattr(self, own.name))))
        settings = _settings_of(self.method, self.learner)
        for own in fields(self.learner):
            if own.name not in settings.__dataclass_fields__ and getattr(self.learner, own.name) != own.default:
                _refuse_of_others(self.method, own.name, getattr(self.learner, own.name))
        object.__setattr__(self, "learner", settings)
        if self.normalise_observations is None:
            object.__setattr__(self, "normalise_observations", find_method(self.method).memory is not None)
        _ = self.configured  # refuses an unknown method, and settings that contradict it
        fitting = find_method(self.method).surrogates
        if self.objective.kind not in fitting:
            raise InvalidInputError(
                f"surrogate={self.loss.surrogate!r}: method {self.method} needs {' or '.join(map(repr, fitting))}; "
                "leave surrogate out to have it"
            )
        for name in ("iterations", "tasks", "episodes", "validate_every", "validation_tasks", "threads"):
            check_whole(name, getattr(self, name))
        for name in ("opponents_at_once", "environment_steps", "player_steps"):
            check_whole(name, getattr(self, name), 0)
        if isinstance(self.horizon, bool) or not isinstance(self.horizon, int) or self.horizon < 0:
            raise InvalidInputError(f"horizon={self.horizon!r} must be a whole number of at least 0 steps")
        if not all(type(width) is int and width >= 1 for width in self.hidden):
            raise InvalidInputError(f"hidden={self.hidden!r} must be whole numbers of at least 1 unit")
        if (
            isinstance(self.context, bool)
            or not isinstance(self.context, int)
            or self.context < 0
            or (self.context and (not self.hidden or self.network == "own"))
        ):
            raise InvalidInputError(
                f"context={self.context!r} must be a whole number, and 0 without hidden layers or with a network of your own"
            )
        if find_method(self.method).memory is not None:
            for name in ("exact_discount", "inner_clip", "adversary_inner_clip"):
                if getattr(self.loss, name):
                    raise InvalidInputError(
                        f"{name}={getattr(self.loss, name)!r}: method {self.method} has no use for it; leave it out"
                    )
            check_chains(self.learner, self.loss, self.tasks)
        if self.network == "own" and find_method(self.method).memory is not None:
            raise InvalidInputError(f"network='own': method {self.method} has a network of its own; leave network out")
        recurrent = self.network in RECURRENT or find_method(self.method).memory is not None
        if recurrent and (self.context or not self.hidden):
            raise InvalidInputError(
                f"hidden={self.hidden!r}, context={self.context}: a network with a memory needs a width, and has no context"
            )
        if not math.isfinite(self.initial_log_std):
            raise InvalidInputError(f"initial_log_std={self.initial_log_std!r} must be a finite number")

    @property
    def family(self) -> str | None:
        """The family's id; None: environments of a user's own."""
        return None

    @property
    def learning(self) -> tuple[Role, ...]:
        """The roles of players that update within a task."""
        return ROLES

    @property
    def configured(self) -> MAMLConfig:
        """The learner's settings, adjusted to the method."""
        return find_method(self.method).configure(self.learner)

    @property
    def chain_episodes(self) -> int:
        """Episodes that are played one after another in an iteration; 0: the method plays no chains."""
        return self.learner.chain(self.episodes) if isinstance(self.learner, RL2Config) else 0

    @property
    def objective(self) -> LossConfig:
        """The loss's settings, with the method's surrogate if none is named."""
        return replace(self.loss, surrogate=self.loss.surrogate or find_method(self.method).surrogates[0])

    @property
    def fine_tuning_steps(self) -> int:
        """Updates with tuned step sizes in validation, of methods without an inner step; 0: validated with the method's own."""
        return 0 if self.configured.steps else self.learner.steps

    @property
    def episodes_per_batch(self) -> int:
        """Episodes per task and batch: a method without an inner step plays all shots' episodes at once."""
        return self.episodes * (1 if self.configured.steps else self.learner.steps + 1)

    def refuse_idle(self, given: Collection[str]) -> None:
        """Refuse settings that were chosen for this run and have no effect beside the others.

        Files of settings are shared between methods, so that one that has no effect in a file is no mistake.

        Args:
            given: names of the chosen settings, those of the learner and the loss among them.

        Raises:
            InvalidInputError: the first of them without effect.
        """
        for name, why in self._idle():
            if name in given:
                value = next(getattr(part, name) for part in (self, self.learner, self.loss) if hasattr(part, name))
                raise without_effect(name, value, why)

    def _idle(self) -> Iterator[tuple[str, str]]:
        """Settings without effect, whatever their value, and why."""
        for name in find_method(self.method).idle(self.learner):
            yield name, f"method {self.method} has no use for it"
        if find_method(self.method).memory is not None and self.network != "mlp":
            yield "network", f"method {self.method} has a network of its own"
        if self.network == "own":
            yield "hidden", "the network is your own"
        if "adversary" not in self.learning:
            for name in ("adversary_inner_discount", "adversary_inner_clip", "adversary_inner_lr"):
                yield name, "the adversary does not learn"
        if isinstance(self.learner, JointConfig) and not self.fine_tuning_steps:
            for name in ("fine_tuning_lrs", "adapts"):
                yield name, self._unadapted

    @property
    def _unadapted(self) -> str:
        """Why there is no fine-tuning."""
        return "steps=0: the players are validated as they are"

    def to_dict(self) -> dict[str, Any]:
        """Plain YAML-able values; the game or environment comes first."""
        values = _plain(asdict(self))
        return {name: values[name] for name in dict.fromkeys((*_required(self), *values))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; unknown settings and wrong types are named."""
        method = values.get("method", "maml") if isinstance(values, Mapping) else None
        settings = find_method(method).settings if isinstance(method, str) else MAMLConfig
        result = build(cls, values, "", {"learner": settings})
        assert isinstance(result, cls)
        return result

    def override(self, **changes: Any) -> Self:
        """A copy with some settings changed; a name of the learner's or the loss's settings is found there."""
        if isinstance(changes.get("warm_start"), os.PathLike):
            changes["warm_start"] = os.fspath(changes["warm_start"])
        changed: dict[str, dict[str, Any]] = {"": {}, "learner": {}, "loss": {}}
        method = _convert(str, changes.get("method", self.method), "method")
        if self.normalise_observations == (find_method(self.method).memory is not None):
            changed[""]["normalise_observations"] = None  # another method has its own default
        base = {"learner": _settings_of(method, self.learner), "loss": self.loss}
        nested_types = {where: type(base[where]) for where in _NESTED}
        hints = {where: typing.get_type_hints(kind) for where, kind in (("", type(self)), *nested_types.items())}
        for name, value in changes.items():
            where = next((w for w, known in hints.items() if name in known), None)
            if where is None:
                _refuse_of_others(method, name, value)
                raise unknown("setting", name, set().union(*hints.values()))
            changed[where][name] = _convert(hints[where][name], value, name)
        own = changed[""]
        nested = {where: replace(own.pop(where, base[where]), **changed[where]) for where in _NESTED}
        return replace(self, **own, **nested)


_NESTED = ("learner", "loss")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """A training run on a family.

    Attributes:
        game: the family.
        roles: the players that learn; a player that does not learn is a scripted opponent of the other.
        learned_share: share of a player's tasks that it plays against the other learner; the rest is divided between
            personas and the scripted opponents named in ``against_protagonist`` and ``against_adversary``. None: all of them for
            methods whose opponent is the other learner (``Method.meets``: self-play, RARL), half of them for others.
        persona_share: share of a player's tasks that it plays against personas, which learn during the meeting, each from a
            start of its own (see ``metaduel.meta.problems.personas``).
        persona_lr: step size of a persona's updates; None: 1 where the family has personas of its own, else ``inner_lr``.
        against_protagonist: scripted players that the protagonist meets in training; empty: the family's train split.
        against_adversary: scripted players that the adversary meets in training; empty: the family's train split.
        fixed: contexts held at one value in every task, for example {"push": 0}.
        informed: show the learners every context (informed players, the ceiling for adaptation).
        version: the family's version, recorded so that a run is not taken for one on a later version; None: the present one.
    """

    game: str
    roles: tuple[Role, ...] = ROLES
    learned_share: float | None = None
    persona_share: float = 0.0
    persona_lr: float | None = None
    against_protagonist: tuple[str, ...] = ()
    against_adversary: tuple[str, ...] = ()
    fixed: dict[str, float] = field(default_factory=dict)
    informed: bool = False
    version: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        spec = find(self.game)
        if self.version not in (None, spec.version):
            raise InvalidInputError(
                f"version={self.version!r}: the run is on version {self.version} of {spec.name}, whose version is now "
                f"{spec.version}: train it again"
            )
        object.__setattr__(self, "version", spec.version)
        if not self.roles or len(set(self.roles)) != len(self.roles):
            raise InvalidInputError(f"roles={self.roles!r} must name protagonist, adversary, or both once")
        for role in self.roles:
            spec.check_role(role)
        for name, share in (("learned_share", self._learned), ("persona_share", self.persona_share)):
            if not 0 <= share <= 1:
                raise InvalidInputError(f"{name}={share!r} must be in [0, 1]")
        if self.persona_share and not find_method(self.method).personas:
            raise InvalidInputError(
                f"persona_share={self.persona_share!r}: method {self.method} cannot meet personas; set it to 0, or use "
                "method maml"
            )
        if len(self.roles) == 2 and self._learned + self.persona_share > 1:
            raise InvalidInputError(
                f"persona_share={self.persona_share!r} and learned_share={self._learned!r} must be at most 1 together"
            )
        if self.persona_lr is not None and not self.persona_lr > 0:
            raise InvalidInputError(f"persona_lr={self.persona_lr!r} must be above 0")
        _check_met(self)
        for name, value in self.fixed.items():
            if name not in spec.context_names:
                raise unknown(f"context of {spec.name}", name, spec.context_names)
            spec.contexts[spec.context_names.index(name)].check(value, spec.name)
        for role in ROLES:
            for name in self.opponents(role):
                check_name(spec, other(role), name)

    def _idle(self) -> Iterator[tuple[str, str]]:
        """See ``RunConfig``."""
        personas = self.met["persona"]
        for name, why in super()._idle():
            # A persona without a rate of its own takes the learner's.
            if name not in ("inner_lr", "adversary_inner_lr") or not personas or self.persona_lr is not None:
                yield name, why
        if self.informed and not self.configured.steps and not personas:
            update = (
                "inner_discount",
                "adversary_inner_discount",
                "inner_clip",
                "adversary_inner_clip",
                "inner_baseline",
            )
            yield from ((name, self._unadapted) for name in update)
        if not personas:
            yield "persona_lr", f"persona_share={self.persona_share:g} of {self.tasks} tasks is no persona"
        if len(self.roles) == 1:
            yield "learned_share", f"only the {self.roles[0]} learns"
            yield "momentum", f"it is for two learners, and only the {self.roles[0]} learns"
        for role in ROLES:
            if role not in self.roles:
                yield f"against_{role}", f"the {role} does not learn"
            elif not self.met["scripted"]:
                yield (
                    f"against_{role}",
                    f"no task is left for scripted opponents beside learned_share={self._learned:g}",
                )
        if not self.met["scripted"]:
            yield "opponents_at_once", "no task is left for scripted opponents"
        if all(isinstance(self.spec.action_spaces[role], spaces.Discrete) for role in self.roles):
            yield "initial_log_std", f"actions of {self.spec.name} are discrete"

    def override(self, **changes: Any) -> Self:
        """See ``RunConfig``; another game has its own version."""
        return super().override(**({"version": None} if "game" in changes else {}) | changes)

    @property
    def learning(self) -> tuple[Role, ...]:
        """See ``RunConfig``; where personas are met, they learn in the other seat."""
        return ROLES if self.met["persona"] else self.roles

    @property
    def spec(self) -> GameSpec:
        """The family."""
        return find(self.game)

    @property
    def family(self) -> str:
        """See ``RunConfig``."""
        return self.spec.id

    @property
    def fine_tuning_steps(self) -> int:
        """See ``RunConfig``; informed players see what others adapt to, and play as they are."""
        return 0 if self.informed else super().fine_tuning_steps

    @property
    def _unadapted(self) -> str:
        """See ``RunConfig``."""
        return "informed players do not adapt" if self.informed else super()._unadapted

    @property
    def world(self) -> dict[str, Any]:
        """What names the game, the networks and the opponents: runs in which all of it is equal share them, and can be trained
        together.
        """
        names = (
            *("game", "version", "horizon", "fixed", "informed", "roles", "against_protagonist", "against_adversary"),
            *("network", "hidden", "initial_log_std", "context", "threads"),
        )
        own = {name: getattr(self, name) for name in names}
        return own | {
            "method": self.method if find_method(self.method).memory is not None else "any without a memory",
            "persona_share": "above 0" if self.persona_share else 0,
        }

    @property
    def _learned(self) -> float:
        """``learned_share``, or the method's own."""
        return _share_of(self.method) if self.learned_share is None else self.learned_share

    @property
    def met(self) -> dict[str, int]:
        """Number of a player's tasks against each kind of peer: ``learned``, ``persona``, ``scripted``."""
        learned = round(self._learned * self.tasks) if len(self.roles) == 2 else 0
        personas = min(round(self.persona_share * self.tasks), self.tasks - learned)
        return {"learned": learned, "persona": personas, "scripted": self.tasks - learned - personas}

    def opponents(self, role: Role) -> tuple[str, ...]:
        """Scripted opponents that ``role`` meets in training."""
        named = self.against_protagonist if role == "protagonist" else self.against_adversary
        return named or self.spec.opponents[other(role)]["train"]


@dataclass(frozen=True, kw_only=True)
class ForeignConfig(RunConfig):
    """A training run on a user's own PettingZoo environments: ``parallel_env (foreign)``.

    Attributes:
        environment: the environment's own name.
        agents: its two agents: the protagonist, the adversary.
        spaces: per agent its observation and action space, as text.
        scripted: per learner, the names of the scripted players that it meets; they are given as ``opponents``.
        roles: the players that learn; a player that does not learn is a scripted opponent of the other.
        learned_share: share of a player's tasks that it plays against the other learner, where it has scripted opponents, too;
            None: see ``TrainConfig``. A player without scripted opponents only meets the other learner.
    """

    environment: str
    agents: tuple[str, ...]
    spaces: tuple[str, ...]
    scripted: dict[Role, tuple[str, ...]] = field(default_factory=dict)
    roles: tuple[Role, ...] = ROLES
    learned_share: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compile is True:
            raise without_effect("compile", True, "environments of your own are not made of tensors")
        object.__setattr__(self, "compile", False)
        if not self.roles or len(set(self.roles)) != len(self.roles) or not set(self.roles) <= set(ROLES):
            raise InvalidInputError(f"roles={self.roles!r} must name protagonist, adversary, or both once")
        for role, names in self.scripted.items():
            if role not in self.roles or not names:
                why = "has no effect: that role does not learn" if role in ROLES else "must be of a role"
                raise InvalidInputError(f"opponents[{role!r}] {why if names else 'is empty: leave it out'}")
        if self.learned_share is not None:
            if not 0 <= self.learned_share <= 1:
                raise InvalidInputError(f"learned_share={self.learned_share!r} must be in [0, 1]")
            if len(self.roles) < 2 or not self.scripted:
                raise InvalidInputError(
                    f"learned_share={self.learned_share!r} has no effect unless both roles learn and meet scripted opponents, "
                    "too: leave it out"
                )
        for role in self.roles:
            if role not in self.scripted and not self.met["learned"]:
                raise InvalidInputError(
                    f"opponents: the {role} meets no player: give it scripted opponents"
                    + (", or set learned_share above 0" if len(self.roles) == 2 else "")
                )
        _check_met(self)

    @property
    def learning(self) -> tuple[Role, ...]:
        """See ``RunConfig``."""
        return self.roles

    @property
    def met(self) -> dict[str, int]:
        """Number of tasks against each kind of peer, of a player with scripted opponents: ``learned``, ``scripted``."""
        share = _share_of(self.method) if self.learned_share is None else self.learned_share
        learned = round((share if self.scripted else 1.0) * self.tasks) if len(self.roles) == 2 else 0
        return {"learned": learned, "scripted": self.tasks - learned}


def _share_of(method: str) -> float:
    """The share of tasks against the other learner, where none is named."""
    return 1.0 if find_method(method).meets else 0.5


def _check_met(config: TrainConfig | ForeignConfig) -> None:
    """Refuse a method that needs learning opponents, if a player meets none."""
    learned, personas = config.met["learned"], config.met.get("persona")
    if find_method(config.method).meets and len(config.roles) == 2 and not learned:
        raise InvalidInputError(
            f"learned_share={config.learned_share!r}: {config.method} needs tasks on which the learners meet; set it above 0"
        )
    if "peer" in getattr(config.configured, "terms", ()) and not (learned or personas):
        more = "" if personas is None else "set persona_share above 0, or "
        raise InvalidInputError(
            f"method={config.method!r} shapes how opponents learn, and no opponent learns: {more}train both roles with "
            "learned_share above 0, or use method meta_pg"
        )


def _settings_of(method: str, learner: MAMLConfig) -> MAMLConfig:
    """Settings as the method's own class: values other than defaults are kept; the rest takes the method's own defaults."""
    settings = find_method(method).settings
    if type(learner) is settings:
        return learner
    chosen = {f.name: value for f in fields(learner) if (value := getattr(learner, f.name)) != f.default}
    return settings(**{f.name: chosen[f.name] for f in fields(settings) if f.name in chosen})


def _refuse_of_others(method: str, name: str, value: Any) -> None:
    """Raise if a setting that ``method`` does not have belongs to another method."""
    owners = [other for other, kind in METHODS.items() if name in kind.settings.__dataclass_fields__]
    if owners:
        raise InvalidInputError(
            f"{name}={value!r}: method {method} has no such setting; leave it out, or use method {' or '.join(owners)}"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def build(kind: Any, values: Any, path: str = "", chosen: Mapping[str, Any] | None = None) -> Any:
    """Make a dataclass of plain values, such as a YAML file holds.

    Args:
        kind: the dataclass.
        values: a mapping of its fields.
        path: the place of the values, for messages.
        chosen: types that replace some fields' own.

    Raises:
        InvalidInputError: an unknown field, with the nearest known one; a missing one; a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise InvalidInputError(f"{path or 'config'}={values!r} must be a mapping of settings")
    hints = typing.get_type_hints(kind) | dict(chosen or {})
    arguments = {}
    for name, value in values.items():
        if name not in hints:
            raise unknown(f"setting of {path}" if path else "setting", name, hints)
        arguments[name] = _convert(hints[name], value, f"{path}.{name}" if path else name)
    for name in _required(kind):
        if name not in arguments:
            raise InvalidInputError(f"{path or 'config'}: the setting {name} is missing")
    return kind(**arguments)


def _required(kind: Any) -> list[str]:
    return [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]


def _convert(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    if is_dataclass(hint):
        return value if type(value) is hint else build(hint, value, path)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):  # X | None
        return None if value is None else _convert(typing.get_args(hint)[0], value, path)
    if origin is typing.Literal:
        if not any(value == one and type(value) is type(one) for one in typing.get_args(hint)):
            raise unknown(f"value of {path}", value, map(str, typing.get_args(hint)))
        return value
    if origin is tuple:
        return tuple(_convert(typing.get_args(hint)[0], item, path) for item in several(value))
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(typing.get_args(hint)[1], item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, np.generic):  # a number of NumPy's
        value = value.item()
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, os.PathLike):
        return player_name(value)  # only players are named by paths
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and type(value) is hint:
        return value
    raise InvalidInputError(f"{path}={value!r} must be of type {getattr(hint, '__name__', hint)}")
