"""Models of Stable-Baselines3 as players: ``sb3:FILE``, a model itself, and anything that speaks its ``predict``.

A saved model is a zip that holds pickles, which can run code. ``sb3:FILE`` runs none: it loads the weights of
``policy.pth`` (tensors only) into an ``MlpPolicy`` of PPO, A2C or sb3-contrib's MaskablePPO built from the seat's own spaces, and
checks the policy against the plain text of the ``data`` entry. Other algorithms and policies need ``sb3:FILE?trust=ALGORITHM``.

However a model comes, an ``MlpPolicy`` of these three plays in torch, and any other through its ``predict``: the same model plays
the same actions. A model that was trained with masks is told in turn-based games which actions are legal.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from metaduel.agents.policies.base import ILLEGAL
from metaduel.agents.policies.distributions import Categorical, Gaussian
from metaduel.agents.runtime import torch_defaults
from metaduel.envs.adapters.legal import LegalDiscrete
from metaduel.envs.core import noise as noise_
from metaduel.envs.core.arguments import as_path
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, one_line, unknown
from metaduel.envs.core.fit import misfit
from metaduel.envs.core.game import Player, View
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import ROLES, Role

if TYPE_CHECKING:
    from stable_baselines3.common.policies import ActorCriticPolicy

Array = npt.NDArray[Any]
Space = spaces.Box | spaces.Discrete
Legal = Callable[[View], Tensor]  # which actions are legal in a view: [B, n] bool

LIMIT = 64 << 20  # bytes: the largest entry that is read; 16 million parameters
_ARGUMENTS = ("state", "episode_start", "deterministic")  # of SB3's predict, beside the observation
OPTIONS = ("sample", "trust")
ACTIVATIONS: dict[str, type[nn.Module]] = {
    f"<class 'torch.nn.modules.activation.{cls.__name__}'>": cls
    for cls in (nn.ELU, nn.GELU, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Tanh)
}
# policy_kwargs that affect only training or the critic's input: no action depends on them.
_HARMLESS = ("log_std_init", "normalize_images", "optimizer_class", "optimizer_kwargs", "ortho_init", "full_std")
_FLATTEN = "<class 'stable_baselines3.common.torch_layers.FlattenExtractor'>"
_MODULE, _CLASS = "stable_baselines3.common.policies", "ActorCriticPolicy"
# Policies whose networks are those of ``_CLASS``, and whether they take masks.
_MASKED: dict[tuple[str, str], bool] = {
    (_MODULE, _CLASS): False,
    ("sb3_contrib.common.maskable.policies", "MaskableActorCriticPolicy"): True,
}


def load_player(duel: Duel, role: Role, path: str) -> Player:
    """Make the player that ``sb3:PATH`` names.

    ``FILE`` alone plays the most probable action (the mean), as SB3's ``predict(deterministic=True)`` does;
    ``FILE?sample=1`` samples from the policy, with the seat's own noise, as a mixed strategy needs.
    ``FILE?trust=SAC`` loads with that algorithm's own ``load``, **which runs code from the file**, and plays
    deterministically. ``.zip`` may be left out, and ``~`` is the home folder.
    Statistics of a ``VecNormalize`` wrapper are not in the file: a model that was trained behind one plays badly.

    Args:
        duel: the game whose spaces the model must have.
        role: the seat.
        path: the file, with an option or without.

    Raises:
        InvalidInputError: a file that is missing, broken or too large, whose spaces are not the seat's, or that holds
            anything but an ``MlpPolicy`` of PPO, A2C or MaskablePPO and is not trusted.
    """
    name, question, query = path.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if question and (len(options) != 1 or next(iter(options)) not in OPTIONS):
        raise InvalidInputError(f"sb3:{path}: after the question mark must come sample=1 or trust=ALGORITHM")
    if options.get("sample", "1") != "1":
        raise InvalidInputError(f"sb3:{path}: sample={options['sample']!r} must be 1, or left out for the mode")
    file = as_path(name if name and os.path.isfile(as_path(name)) else f"{name}.zip")
    if not os.path.isfile(file):  # false, not an error, for names that no file system takes
        raise InvalidInputError(f"sb3:{name}: there is no such file; it must be a model saved by Stable-Baselines3")
    if "trust" in options:
        return _model_player(duel, role, load_trusted(file, options["trust"]), f"sb3:{file}")
    policy, algorithm = _load_weights(file, duel.observation_space(role), duel.action_space(role))
    legal = legal_in(duel, role) if _MASKED[algorithm] else None
    return MlpPlayer(policy, "sample" in options, legal, file.stem)


def model_player(simulator: Simulator, role: Role, model: Any) -> Player:
    """The player of a model, or of anything else with ``predict``, in ``role``'s seat: live, as it is at each step.

    It plays the most probable action (the mean). A recurrent model's state is kept for each row.

    Raises:
        InvalidInputError: spaces that are not the seat's, or a model that was trained with ``VecNormalize``.
    """
    return _model_player(simulator, role, model, f"opponent={type(model).__name__}")


def _model_player(simulator: Simulator, role: Role, model: Any, who: str) -> Player:
    seen, done = simulator.observation_space(role), simulator.action_space(role)
    why = misfit(getattr(model, "observation_space", None), getattr(model, "action_space", None), seen, done)
    why = why or why_not_alone(model)
    if why is not None:
        raise InvalidInputError(f"{who}: {why}")
    policy, name = getattr(model, "policy", model), type(model).__name__
    if is_mlp(policy) and speaks_for_policy(model):
        return MlpPlayer(policy, False, legal_in(simulator, role) if _MASKED[_kind(policy)] else None, name)
    return PredictPlayer(model, True, seen, done, legal_in(simulator, role))


def why_not_alone(model: Any) -> str | None:
    """Why a model cannot play without what it was trained in; None: it can."""
    normalised = getattr(model, "get_vec_normalize_env", None)
    if callable(normalised) and normalised() is not None:
        return "its model was trained with VecNormalize, whose statistics are not part of it: not supported"
    return None


def speaks_for_policy(model: Any) -> bool:
    """Whether ``model.predict`` is that of its policy, as in the libraries' own classes, and does nothing of its own before or
    after.
    """
    library = getattr(type(model).predict, "__module__", "").partition(".")[0]
    return library in ("stable_baselines3", "sb3_contrib")


def is_mlp(policy: Any) -> bool:
    """Whether an ``MlpPlayer`` plays a policy's actions."""
    return (
        _kind(policy) in _MASKED
        and str(type(policy.features_extractor)) == _FLATTEN
        and not getattr(policy, "use_sde", False)
        and not policy.squash_output
        and isinstance(policy.observation_space, spaces.Box)
        and isinstance(policy.action_space, (spaces.Box, spaces.Discrete))
    )


def _kind(policy: Any) -> tuple[str, str]:
    return type(policy).__module__, type(policy).__qualname__


def legal_in(simulator: Simulator, role: Role) -> Legal | None:
    """Tells which actions ``role`` may choose in a view, [B, n] bool; None: all always are legal."""
    if isinstance(simulator, Duel):
        game, seat = simulator.game, ROLES.index(role)
        return (lambda view: game.legal(view.params, view.state)[seat]) if simulator.spec.turn_based else None
    mask = simulator.mask(role)
    return None if mask is None else lambda view: view.observation[:, mask] > 0


def freeze(model: Any, sample: bool = False) -> FrozenModel:
    """A copy of a model's policy as it is now, which takes a seat (``opponent=freeze(model)``) and does not change when the model
    is trained further: for self-play, where a learner meets earlier versions of itself.

    It copies the policy alone, in memory, and leaves the model and all global random generators as they are.

    Args:
        model: a model of Stable-Baselines3 or sb3-contrib, on- or off-policy.
        sample: draw actions from the policy with the seat's noise, as a mixed strategy needs; else play the most probable action.

    Raises:
        InvalidInputError: no such model, one that was trained with ``VecNormalize``, a policy that Python cannot copy, or
            ``sample`` for anything but an ``MlpPolicy`` of PPO, A2C or MaskablePPO.
    """
    name, policy = type(model).__name__, getattr(model, "policy", None)
    if not isinstance(policy, nn.Module) or not callable(getattr(policy, "set_training_mode", None)):
        raise InvalidInputError(f"model={name} must be a model of Stable-Baselines3, with a policy")
    if (why := why_not_alone(model)) is not None:
        raise InvalidInputError(f"model={name}: {why}")
    if not speaks_for_policy(model):
        raise InvalidInputError(f"model={name} has a predict of its own, which a copy of its policy would leave out")
    if sample and not is_mlp(policy):
        raise InvalidInputError(
            f"sample=True: only an MlpPolicy of PPO, A2C or MaskablePPO is sampled, {name} is not one"
        )
    return FrozenModel(copied_policy(policy), f"{name} at {model.num_timesteps} steps", sample)


def copied_policy(policy: Any) -> Any:
    """A copy of a policy as it is now, on the CPU, to play and not to learn: without optimizers, which are larger than it is.

    Raises:
        InvalidInputError: a policy that Python cannot copy.
    """
    optimizers = (
        one for part in policy.modules() for one in vars(part).values() if isinstance(one, torch.optim.Optimizer)
    )
    try:
        with torch_defaults():
            twin = _copied(policy, {id(one): None for one in optimizers}, torch.device("cpu"))
    except Exception as error:  # whatever a policy of its own holds
        raise InvalidInputError(
            f"{type(policy).__name__} cannot be copied ({one_line(error)}): give it a __deepcopy__"
        ) from None
    twin.to("cpu").set_training_mode(False)
    return twin


def _copied(value: Any, memo: dict[int, Any], device: torch.device | None = None) -> Any:
    """Python's deep copy, also of what holds results of a computation, as a policy holds its last distribution."""
    with _Detached(device):
        return copy.deepcopy(value, memo)


class _Detached(TorchFunctionMode):
    """Inside, tensors other than parameters are copied without their gradients, with which torch refuses to copy them."""

    def __init__(self, device: torch.device | None) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__:
            return args[0].detach().to(self.device or args[0].device, copy=True)
        return func(*args, **(kwargs or {}))


class FrozenModel:
    """A model as it was when it was frozen, see ``freeze``: it takes a seat, and speaks ``predict``.

    Args:
        policy: a policy that no other object holds.
        name: for infos and tables.
        sample: draw actions with the seat's noise; else their mode.
    """

    def __init__(self, policy: Any, name: str, sample: bool = False) -> None:
        self.policy, self.name, self.sample = policy, name, sample
        self.observation_space, self.action_space = policy.observation_space, policy.action_space

    def __repr__(self) -> str:
        return f"FrozenModel({self.name}{', sampled' if self.sample else ''})"

    def predict(self, observation: Array, *args: Any, **kwargs: Any) -> tuple[Array, tuple[Array, ...] | None]:
        """See Stable-Baselines3."""
        with torch_defaults():
            found: tuple[Array, tuple[Array, ...] | None] = self.policy.predict(observation, *args, **kwargs)
        return found

    def player_for(self, simulator: Simulator, role: Role) -> Player:
        """Its player for a seat; see ``load_player``."""
        player = _model_player(simulator, role, self.policy, f"opponent={self.name}")
        if isinstance(player, MlpPlayer):
            return MlpPlayer(player.policy, self.sample, player.legal, self.name)
        assert isinstance(player, PredictPlayer)
        player.name = self.name
        return player


class MlpPlayer:
    """A player around SB3's ``MlpPolicy`` of PPO, A2C and MaskablePPO, batched in torch. The policy stays where it is and is
    not copied: one that is trained on plays on as it becomes.

    Args:
        policy: the policy.
        sample: draw actions from the policy with the seat's noise; else its mode.
        legal: tells which actions are legal in a view; None: all.
        name: for infos and tables.
    """

    memory = 0

    def __init__(
        self, policy: ActorCriticPolicy, sample: bool = False, legal: Legal | None = None, name: str = "MlpPolicy"
    ) -> None:
        self.policy, self.sample, self.legal, self.name = policy, sample, legal, name
        space = policy.action_space
        self._bounds: tuple[Tensor, Tensor] | None = None
        self.noise = 1 if sample else 0
        if isinstance(space, spaces.Box):
            self._bounds = (torch.from_numpy(space.low), torch.from_numpy(space.high))
            self.noise = 2 * math.ceil(space.shape[0] / 2) if sample else 0

    def __repr__(self) -> str:
        return f"MlpPlayer({self.name}, {'sampled' if self.sample else 'mode'})"

    def __deepcopy__(self, memo: dict[int, Any]) -> MlpPlayer:
        twin = memo[id(self)] = copy.copy(self)
        twin.policy = _copied(self.policy, memo)
        return twin

    def player_for(self, simulator: Simulator, role: Role) -> MlpPlayer:
        """Itself, where its policy has the seat's spaces; one that takes masks is given those of the game."""
        own, seen, done = self.policy, simulator.observation_space(role), simulator.action_space(role)
        if (why := misfit(own.observation_space, own.action_space, seen, done)) is not None:
            raise InvalidInputError(f"opponent={self.name}: {why}")
        legal = legal_in(simulator, role) if self.legal is None and _MASKED.get(_kind(own)) else None
        return self if legal is None else MlpPlayer(own, self.sample, legal, self.name)

    @torch.no_grad()
    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Choose; see ``core.Player.act``. Actions are cut to the space, as SB3 cuts them."""
        observation, policy = view.observation, self.policy
        features = policy.pi_features_extractor(observation.to(policy.device, torch.float32))
        outputs = policy.action_net(policy.mlp_extractor.forward_actor(features)).to(observation.device)
        if self._bounds is None:
            if self.legal is not None:
                outputs = torch.where(self.legal(view), outputs, ILLEGAL)
            categorical = Categorical(torch.log_softmax(outputs, -1))
            return (categorical.sample(noise) if self.sample else categorical.mode()), memory
        if self.sample:
            normals = noise_.normal(noise)[:, : outputs.shape[1]].to(outputs.dtype)
            outputs = Gaussian(outputs, policy.log_std.to(outputs.device)).sample(normals)
        low, high = (bound.to(outputs.device) for bound in self._bounds)
        return torch.clamp(outputs, low, high).to(observation.dtype), memory


class Predictor(Protocol):
    """The interface of SB3's models, and of many others."""

    def predict(
        self,
        observation: Array,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Choose actions for a batch of observations [B, d]; ``episode_start``: [B] bool."""
        ...


class PredictPlayer:
    """A player around anything with SB3's ``predict``, batched over rows; slower than a player in torch.

    A recurrent agent's state lives in the rows' memory, so that one player can serve many batches at once. The constructor
    calls the agent on made-up observations to find the state's shape.

    Args:
        agent: has ``predict``, which takes observations and, where it names them, ``state``, ``episode_start`` and
            ``deterministic``, and returns actions and a state: None, an array, or a tuple of arrays.
        deterministic: passed on. If false, the agent's own random numbers make its actions: not reproducible by seed.
        observation_space: the seat's; the agent's own by default.
        action_space: the seat's; the agent's own by default.
        legal: tells which actions are legal in a view; passed on as ``action_masks`` if ``predict`` takes them. None: all.

    Raises:
        InvalidInputError: an agent without ``predict``, or whose ``predict`` takes or returns anything else, or whose state is
            not arrays with one entry for each row.
    """

    noise = 0

    def __init__(
        self,
        agent: Predictor,
        deterministic: bool = True,
        observation_space: spaces.Box | None = None,
        action_space: Space | None = None,
        legal: Legal | None = None,
    ) -> None:
        if not callable(getattr(agent, "predict", None)):
            raise InvalidInputError(f"agent={agent!r} must have a method predict, as Stable-Baselines3's models have")
        self.agent, self.name = agent, type(agent).__name__
        self.deterministic = deterministic
        self.legal = legal if takes_masks(agent) else None
        seen = observation_space or getattr(agent, "observation_space", None)
        acts = action_space or getattr(agent, "action_space", None)
        if not isinstance(seen, spaces.Box) or not isinstance(acts, (spaces.Box, spaces.Discrete)):
            raise InvalidInputError(
                f"agent={agent!r} names no spaces that a seat has: pass observation_space, action_space"
            )
        self.observation_space, self.action_space = seen, acts
        self._taken = _taken(agent)
        self._bare = False  # whether the state is one array, not a tuple
        self._axes: list[int] = []  # per array of the state: the rows' axis
        self._shapes: list[tuple[int, ...]] = []  # and its shape for one row, without that axis
        self._dtypes: list[Any] = []
        for two, three in zip(self._probe(2), self._probe(3), strict=True):
            axes = [i for i, (m, n) in enumerate(zip(two.shape, three.shape, strict=True)) if (m, n) == (2, 3)]
            if len(axes) != 1:
                raise InvalidInputError(
                    f"agent={agent!r}: its state's shapes {two.shape} and {three.shape} have no row axis"
                )
            self._axes.append(axes[0])
            self._shapes.append(tuple(n for i, n in enumerate(two.shape) if i != axes[0]))
            self._dtypes.append(two.dtype)
        self.memory = sum(math.prod(shape) for shape in self._shapes)

    def __repr__(self) -> str:
        return f"PredictPlayer({self.name}{'' if self.deterministic else ', sampled'})"

    def __deepcopy__(self, memo: dict[int, Any]) -> PredictPlayer:
        twin = memo[id(self)] = copy.copy(self)
        try:
            twin.agent = _copied(self.agent, memo)
        except Exception as error:  # a model of Stable-Baselines3 holds its environments, whose wrappers have no copies
            raise InvalidInputError(
                f"agent={self.name} cannot be copied ({one_line(error)}): of a model, freeze(model) can"
            ) from None
        return twin

    def player_for(self, simulator: Simulator, role: Role) -> PredictPlayer:
        """Itself, where it has the seat's spaces; an agent that takes masks is given those of the game."""
        seen, done = simulator.observation_space(role), simulator.action_space(role)
        why = misfit(self.observation_space, self.action_space, seen, done) or why_not_alone(self.agent)
        if why is not None:
            raise InvalidInputError(f"opponent={self.name}: {why}")
        legal = legal_in(simulator, role) if self.legal is None and takes_masks(self.agent) else None
        return self if legal is None else PredictPlayer(self.agent, self.deterministic, seen, done, legal)

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Choose; see ``core.Player.act``.

        Raises:
            InvalidInputError: the agent's actions have the wrong shape, are NaN, or are not in the action space.
        """
        start = (view.step == 0).cpu().numpy()
        # Copies: an agent that works in place must not reach the game's tensors.
        observation = view.observation.detach().cpu().numpy().astype(self.observation_space.dtype)
        state = self._unpack(memory.cpu().numpy()) if self.memory and not start.all() else None
        masks = {} if self.legal is None else {"action_masks": self.legal(view).cpu().numpy()}
        actions, state = self._predict(observation, state, start, self.deterministic, masks)
        if self.memory:
            memory = torch.from_numpy(self._pack(_arrays(state))).to(memory)
        return self._checked(np.asarray(actions), len(start)).to(view.observation.device), memory

    def _checked(self, actions: Array, rows: int) -> Tensor:
        space = self.action_space
        if actions.shape == (rows, *(space.shape or ())) and np.isfinite(actions).all():
            if isinstance(space, spaces.Box):
                return torch.from_numpy(np.clip(actions, space.low, space.high).astype(space.dtype))
            if bool(((actions >= space.start) & (actions < space.start + space.n)).all()):
                return torch.from_numpy(actions.astype(np.int64))
        raise InvalidInputError(
            f"agent={self.agent!r} predicts actions of shape {actions.shape} for {rows} rows: must be finite, in {space}"
        )

    def _probe(self, rows: int) -> list[Array]:
        space = self.observation_space
        observation = np.broadcast_to(np.clip(np.zeros(space.shape), space.low, space.high), (rows, *space.shape))
        start = np.ones(rows, np.bool_)
        _, state = self._predict(observation.astype(space.dtype), None, start, True, {})
        self._bare = isinstance(state, np.ndarray)
        return _arrays(state)

    def _predict(
        self, observation: Array, state: Any, start: Array, deterministic: bool, masks: dict[str, Any]
    ) -> tuple[Any, Any]:
        given: dict[str, Any] = {"state": state, "episode_start": start, "deterministic": deterministic}
        with torch_defaults():
            found: Any = self.agent.predict(observation, **{name: given[name] for name in self._taken}, **masks)
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise InvalidInputError(
                f"agent={self.agent!r}: predict must return actions and a state (None: no state), not {type(found).__name__}"
            )
        return found[0], found[1]

    def _pack(self, state: list[Array]) -> Array:
        rows = [np.moveaxis(array, axis, 0) for array, axis in zip(state, self._axes, strict=True)]
        return np.concatenate([row.reshape(len(row), -1).astype(np.float64) for row in rows], 1)

    def _unpack(self, memory: Array) -> Array | tuple[Array, ...]:
        parts = np.split(memory, np.cumsum([math.prod(shape) for shape in self._shapes])[:-1], axis=1)
        state = tuple(
            np.moveaxis(part.reshape(-1, *shape), 0, axis).astype(dtype)
            for part, shape, axis, dtype in zip(parts, self._shapes, self._axes, self._dtypes, strict=True)
        )
        return state[0] if self._bare else state


def _taken(agent: Predictor) -> tuple[str, ...]:
    """Which of SB3's arguments ``predict`` takes by name beside the observation."""
    try:
        signature = inspect.signature(agent.predict)
    except (TypeError, ValueError):  # not every callable has one
        return _ARGUMENTS
    by_name = {
        name for name, one in signature.parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    every = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    taken = tuple(name for name in _ARGUMENTS if every or name in by_name)
    try:
        signature.bind(None, **dict.fromkeys(taken))
    except TypeError:
        raise InvalidInputError(
            f"agent={agent!r}: its predict{signature} must take an observation first, and by name any of "
            f"{', '.join(_ARGUMENTS)}"
        ) from None
    return taken


def takes_masks(agent: Predictor) -> bool:
    """Whether ``predict`` takes ``action_masks``."""
    with suppress(TypeError, ValueError):  # not every callable has a signature
        return "action_masks" in inspect.signature(agent.predict).parameters
    return False


def _arrays(state: Any) -> list[Array]:
    if state is None:
        return []
    arrays = list(state) if isinstance(state, (tuple, list)) else [state]
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise InvalidInputError(
            f"an agent's state must be None, an array or a tuple of arrays, not {type(state).__name__}"
        )
    return arrays


def load_trusted(file: Path, name: str) -> Any:
    """Load a model with the algorithm's own class; this runs code from the file.

    Raises:
        InvalidInputError: an unknown algorithm, or a file that it cannot load.
    """
    from stable_baselines3.common.base_class import BaseAlgorithm

    algorithms: dict[str, Any] = {}
    for package in ("stable_baselines3", "sb3_contrib"):  # the second is an optional package, often not installed
        with suppress(ImportError):
            members = vars(importlib.import_module(package)).items()
            algorithms |= {n: c for n, c in members if isinstance(c, type) and issubclass(c, BaseAlgorithm)}
    if name not in algorithms:
        raise unknown("algorithm in trust", name, algorithms)
    try:
        # Without this, loading a model that was trained with a seed seeds every global generator.
        with torch_defaults():
            return algorithms[name].load(file, device="cpu", custom_objects={"seed": None})
    except Exception as error:
        raise InvalidInputError(f"sb3:{file}: {name}.load failed: {one_line(error)}") from None


def _load_weights(
    file: Path, observation_space: spaces.Box, action_space: Space
) -> tuple[ActorCriticPolicy, tuple[str, str]]:
    """Build an MlpPolicy of the seat's spaces and fill it from the file's tensors; only tensors are unpickled. Also the kind of
    policy that the file holds, of those in ``_MASKED``.
    """
    text, weights = _read_entries(file)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInputError(f"sb3:{file}: its data entry is not JSON: the file is corrupt") from None
    if not isinstance(data, dict):
        raise InvalidInputError(f"sb3:{file}: its data entry is not a JSON object: the file is corrupt")
    kind = _check_algorithm(file, data)
    _check_space(file, "observation", data.get("observation_space"), observation_space, ())
    keys = ("low", "high") if isinstance(action_space, spaces.Box) else ("n", "start")
    _check_space(file, "action", data.get("action_space"), action_space, keys)
    widths, activation = _architecture(file, data.get("policy_kwargs"))
    tensors = _read_tensors(file, weights)
    # Before the network is built, so that the file's content bounds its size.
    _check_shapes(file, tensors, _expected_shapes(widths, observation_space, action_space))

    from stable_baselines3.common.policies import ActorCriticPolicy

    with torch.random.fork_rng(devices=[]), torch_defaults():  # its constructor draws from the global generator
        policy = ActorCriticPolicy(
            observation_space, action_space, lambda _: 0.0, net_arch=widths, activation_fn=activation, ortho_init=False
        )
    policy.load_state_dict(tensors)
    policy.set_training_mode(False)
    return policy, kind


def _read_entries(file: Path) -> tuple[bytes, bytes]:
    """The entries ``data`` and ``policy.pth``, each of at most ``LIMIT`` bytes."""
    found = []
    try:
        with zipfile.ZipFile(file) as archive:
            for name in ("data", "policy.pth"):
                if name not in archive.namelist():
                    raise InvalidInputError(
                        f"sb3:{file}: has no entry {name}: it is truncated, or no model saved by SB3"
                    )
                size = archive.getinfo(name).file_size
                if size > LIMIT:
                    raise InvalidInputError(f"sb3:{file}: entry {name} has {size} bytes, at most {LIMIT} are read")
                with archive.open(name) as entry:
                    found.append(entry.read(LIMIT))
    except InvalidInputError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds on hostile files
        raise InvalidInputError(f"sb3:{file}: is not a whole zip file: {one_line(error)}") from None
    return found[0], found[1]


def _read_tensors(file: Path, content: bytes) -> dict[str, Tensor]:
    """The state dict in ``policy.pth``: plain tensors by name, none of them larger than the file may be."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:  # torch's own format is a zip too
            total = sum(info.file_size for info in archive.infolist())
        if total > LIMIT:
            raise InvalidInputError(f"sb3:{file}: policy.pth unpacks to {total} bytes, at most {LIMIT} are read")
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except InvalidInputError:
        raise
    except Exception as error:  # not a plain state dict of tensors
        raise InvalidInputError(f"sb3:{file}: policy.pth is not tensors alone: {one_line(error)}") from None
    if not isinstance(tensors, dict) or not all(type(t) is Tensor and _is_plain(t) for t in tensors.values()):
        raise InvalidInputError(f"sb3:{file}: policy.pth must map names to dense floating-point tensors")
    # A view can claim a huge shape over a few stored numbers.
    if sum(tensor.numel() for tensor in tensors.values()) > LIMIT // 4:
        raise InvalidInputError(f"sb3:{file}: policy.pth has more than {LIMIT // 4} parameters")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidInputError(f"sb3:{file}: {name} in policy.pth has numbers that are NaN or infinite")
    return tensors


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.is_floating_point()


def _check_algorithm(file: Path, data: Mapping[str, Any]) -> tuple[str, str]:
    """Check for PPO, A2C or MaskablePPO with a policy in ``_MASKED`` itself, by the names that ``data`` holds beside its pickles;
    which policy it is.
    """
    policy = data.get("policy_class")
    policy = policy if isinstance(policy, dict) else {}
    module, made_by = str(policy.get("__module__")), str(policy.get("__init__"))
    kind = module, made_by.removeprefix("<function ").partition(".__init__ ")[0]
    if kind not in _MASKED or not made_by.startswith(f"<function {kind[1]}.__init__ "):
        words = made_by.removeprefix("<function ").partition(".__init__")[0]
        raise _refuse(file, f"its policy is {module}.{words}, not {_MODULE}.{_CLASS}")
    ppo = "clip_range" in data and "n_epochs" in data
    a2c = "normalize_advantage" in data and "batch_size" not in data
    if not (ppo or a2c):
        raise _refuse(file, "its algorithm is neither PPO nor A2C")
    if data.get("use_sde"):
        raise _refuse(file, "its policy explores with gSDE (use_sde=True)")
    return kind


def _architecture(file: Path, written: Any) -> tuple[dict[str, list[int]], type[nn.Module]]:
    """Widths of the policy's and the critic's layers, and the activation, from the text of ``policy_kwargs``."""
    kwargs = written if isinstance(written, dict) else {"policy_kwargs": written}
    kwargs = {key: value for key, value in kwargs.items() if key not in (":type:", ":serialized:", *_HARMLESS)}
    activation = str(kwargs.pop("activation_fn", "<class 'torch.nn.modules.activation.Tanh'>"))
    if activation not in ACTIVATIONS:
        raise _refuse(file, f"its activation is {activation[:80]}")
    if kwargs.pop("features_extractor_class", _FLATTEN) != _FLATTEN:
        raise _refuse(file, "its policy has a features extractor of its own")
    kwargs.pop("share_features_extractor", None)  # flattening has no weights: shared or not is the same
    for key in ("features_extractor_kwargs", "use_sde", "squash_output", "use_expln"):
        if not kwargs.get(key):
            kwargs.pop(key, None)
    net_arch = kwargs.pop("net_arch", None)
    if kwargs:
        raise _refuse(file, f"its policy was made with {', '.join(map(str, kwargs))}"[:120])
    if isinstance(net_arch, list) and len(net_arch) == 1 and isinstance(net_arch[0], dict):
        net_arch = net_arch[0]  # the form of older releases
    if net_arch is None:
        net_arch = [64, 64]
    if isinstance(net_arch, list):
        net_arch = {"pi": net_arch, "vf": net_arch}
    if not isinstance(net_arch, dict) or not set(net_arch) <= {"pi", "vf"}:
        raise _refuse(file, f"its net_arch is {str(net_arch)[:80]}")
    widths = {key: net_arch.get(key, []) for key in ("pi", "vf")}
    for layers in widths.values():
        if not isinstance(layers, list) or not all(type(n) is int and 0 < n <= LIMIT for n in layers):
            raise _refuse(file, f"its net_arch is {str(net_arch)[:80]}")
    return widths, ACTIVATIONS[activation]


def _expected_shapes(
    widths: Mapping[str, list[int]], observation_space: spaces.Box, action_space: Space
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an MlpPolicy's weights."""
    inputs = math.prod(observation_space.shape)
    actions = int(action_space.n) if isinstance(action_space, spaces.Discrete) else action_space.shape[0]
    shapes: dict[str, tuple[int, ...]] = {} if isinstance(action_space, spaces.Discrete) else {"log_std": (actions,)}
    for key, name, head, outputs in (("pi", "policy", "action", actions), ("vf", "value", "value", 1)):
        width = inputs
        for i, units in enumerate(widths[key]):
            shapes[f"mlp_extractor.{name}_net.{2 * i}.weight"] = (units, width)
            shapes[f"mlp_extractor.{name}_net.{2 * i}.bias"] = (units,)
            width = units
        shapes |= {f"{head}_net.weight": (outputs, width), f"{head}_net.bias": (outputs,)}
    return shapes


def _check_shapes(file: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    for name in (*expected, *tensors):
        if name not in tensors or name not in expected:
            where = "missing from" if name not in tensors else "too much in"
            raise InvalidInputError(f"sb3:{file}: {str(name)[:80]} is {where} policy.pth, by the net_arch in its data")
        if tuple(tensors[name].shape) != expected[name]:
            raise InvalidInputError(
                f"sb3:{file}: {name} in policy.pth has shape {tuple(tensors[name].shape)}, "
                f"by the spaces and net_arch it must be {expected[name]}"
            )


def _check_space(file: Path, kind: str, written: Any, ours: Space, keys: tuple[str, ...]) -> None:
    """Compare the text of a space with the seat's: class, dtype, shape, and the numbers in ``keys`` to the printed digits."""
    theirs = written if isinstance(written, dict) else {}
    classes = (spaces.Box,) if isinstance(ours, spaces.Box) else (spaces.Discrete, LegalDiscrete)
    same = theirs.get(":type:") in [str(cls) for cls in classes]
    same = same and theirs.get("dtype") == str(ours.dtype) and theirs.get("_shape") == list(ours.shape or ())
    for key in keys:
        same = same and _same_numbers(theirs.get(key), np.asarray(getattr(ours, key)))
    if not same:
        cls = str(theirs.get(":type:", "")).rpartition(".")[2].strip("'>")
        words = ", ".join(f"{key.strip('_')} {theirs[key]}" for key in ("_shape", "n", *keys) if theirs.get(key))
        raise _mismatch(file, kind, f"{cls} of {words}" if theirs else written, ours)


def _same_numbers(text: Any, ours: Array) -> bool:
    try:
        numbers = np.array([float(word) for word in str(text).strip("[]").split()])
    except ValueError:  # longer spaces are written with an ellipsis
        return False
    return numbers.shape == (ours.size,) and bool(np.allclose(numbers, ours.reshape(-1), rtol=1e-6, atol=1e-8))


def _mismatch(file: Path, kind: str, theirs: object, ours: Space) -> InvalidInputError:
    return InvalidInputError(f"sb3:{file}: its {kind} space is {one_line(theirs)}, the seat's is {one_line(ours)}")


def _refuse(file: Path, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"sb3:{file}: {one_line(why)}; only an MlpPolicy of PPO, A2C or MaskablePPO is loaded without running the file's code. "
        f"If you trust the file, write sb3:{file}?trust=ALGORITHM (PPO, SAC, ...)"
    )
