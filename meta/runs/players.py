"""A run's policies, and their initial weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from gymnasium import spaces
from torch import nn

from metaduel.agents.policies.base import ActionSpace, Policy, Weights
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.module import ModulePolicy
from metaduel.agents.policies.recurrent import RECURRENT
from metaduel.agents.policies.statistics import InputStatistics
from metaduel.agents.policies.tabular import PerState
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import Role, other
from metaduel.meta.learners.methods import find_method
from metaduel.meta.runs.config import RunConfig, TrainConfig

Network = Callable[[int, int], nn.Module]  # (size of observations, number of actions or of action dimensions): a module


def make_duel(config: TrainConfig) -> Duel:
    """The run's game."""
    informed = config.roles if config.informed else ()
    return Duel(make_game(config.spec), config.horizon or None, informed)


def make_policy(config: RunConfig, simulator: Simulator, role: Role, network: Network | None = None) -> Policy:
    """A role's policy network."""
    size, own = simulator.observation_space(role).shape[0], simulator.action_space(role)
    policy = policy_of(config, size, own, simulator.action_space(other(role)), network, simulator.mask(role))
    feed_forward = network is None and not any(policy.carried)
    return PerState(policy) if feed_forward and size == simulator.states else policy


def policy_of(
    config: RunConfig,
    observation_size: int,
    action_space: ActionSpace,
    other_space: ActionSpace,
    network: Network | None = None,
    mask: slice | None = None,
) -> Policy:
    """The network of the settings; ``network`` makes it if it is the user's own module.

    Raises:
        InvalidInputError: ``network`` is missing, not needed, or makes a module that cannot be a policy.
    """
    if (config.network == "own") != (network is not None):
        raise InvalidInputError(
            "this run has a network of its own: give the function that makes it, as network=..., in Python"
            if network is None
            else f"network={network!r}: this run has a network of kind {config.network!r}, and needs no function that makes one"
        )
    if network is not None:
        actions = int(action_space.n) if isinstance(action_space, spaces.Discrete) else int(action_space.shape[0])
        return ModulePolicy(
            partial(network, observation_size, actions), observation_size, action_space, config.initial_log_std, mask
        )
    memory, log_std = find_method(config.method).memory, config.initial_log_std
    if memory is not None:
        return memory(observation_size, action_space, other_space, config.hidden[-1], log_std, mask)
    if config.network in RECURRENT:
        return RECURRENT[config.network](observation_size, action_space, config.hidden[-1], log_std, mask)
    return MLPPolicy(observation_size, action_space, config.hidden, log_std, config.context, mask=mask)


def input_statistics(policies: Mapping[Role, Policy], config: RunConfig) -> dict[Role, InputStatistics]:
    """Empty statistics of the roles whose inputs are normalised, see ``RunConfig.normalise_observations``; rewards among the
    inputs always are.
    """
    found = {role: InputStatistics(policy, bool(config.normalise_observations)) for role, policy in policies.items()}
    return {role: own for role, own in found.items() if own}


def initial_weights(
    policies: Mapping[Role, Policy], seed: int, statistics: Mapping[Role, InputStatistics] | None = None
) -> dict[Role, Weights]:
    """The weights at the start of a run with this seed, with those that will normalise inputs where there are ``statistics``."""
    weights = {
        role: policy.init(derive_seed(seed, Purpose.INIT, i)) for i, (role, policy) in enumerate(policies.items())
    }
    for role, own in (statistics or {}).items():
        weights[role] |= own.neutral
    return weights
