"""Any ``nn.Module`` as a policy, through ``functional_call`` under ``vmap``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metaduel.agents.policies.base import SCALE, SHIFT, ActionSpace, Policy, Weights, adapting
from metaduel.agents.runtime import torch_defaults
from metaduel.envs.core.errors import InvalidInputError


class ModulePolicy(Policy):
    """Any ``nn.Module`` that maps observations [M, d] to means or logits [M, A].

    Args:
        build: makes the module; called once per ``init``, under the seed.
        observation_size: d.
        action_space: Box or Discrete.
        initial_log_std: see ``Policy``.
        mask: see ``Policy``.

    Raises:
        InvalidInputError: the module has buffers (such as batch statistics), which cannot be adapted per task, or its
            output has another shape.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        observation_size: int,
        action_space: ActionSpace,
        initial_log_std: float = 0.0,
        mask: slice | None = None,
    ) -> None:
        super().__init__(observation_size, action_space, initial_log_std, mask)
        self._build = build
        with torch.random.fork_rng(devices=[]), torch_defaults():  # the template must not advance the global generator
            self._module = build()
        if buffers := [name for name, _ in self._module.named_buffers()]:
            raise InvalidInputError(
                f"policy module has buffers {buffers}: a policy must be a function of its parameters"
            )
        with torch.no_grad():
            nothing = torch.zeros(3, observation_size, dtype=torch.float32, device="cpu")
            shape = tuple(self._module(nothing).shape)
        if shape != (3, self.action_size):
            raise InvalidInputError(
                f"policy module maps [3, {observation_size}] to {list(shape)}; must be [3, {self.action_size}]"
            )

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """Fresh weights of one player, as the module's own initialisation makes them."""
        with torch.random.fork_rng(devices=[]), torch_defaults():
            torch.default_generator.manual_seed(seed)  # that of the CPU alone
            module = self._build()
        weights = {name: value.detach().to(dtype).clone() for name, value in module.named_parameters()}
        if not self.discrete:
            weights["log_std"] = torch.full((self.action_size,), self.initial_log_std, dtype=dtype, device="cpu")
        return weights

    def outputs(self, prepared: Weights, observation: Tensor) -> Tensor:
        """Means or logits [N, M, A]."""
        own = {name: value for name, value in adapting(prepared).items() if name != "log_std"}
        seen = observation
        if SHIFT in prepared:
            seen = (observation - prepared[SHIFT].unsqueeze(1)) * prepared[SCALE].unsqueeze(1)
        result: Tensor = vmap(lambda w, x: functional_call(self._module, w, (x,)))(own, seen)
        return self._masked(result, observation)
