"""Policy-gradient learners in PyTorch, and anything else that can take a seat.

What is named here is public; the modules below it are not. Each name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaduel.envs.core.lazy import exports

if TYPE_CHECKING:
    from metaduel.agents.adapters.arena import GameArena as GameArena
    from metaduel.agents.adapters.numpy_objects import NumpyAdapter as NumpyAdapter
    from metaduel.agents.adapters.numpy_objects import NumpyLearner as NumpyLearner
    from metaduel.agents.adapters.protocol import Adapter as Adapter
    from metaduel.agents.adapters.protocol import BadPlayer as BadPlayer
    from metaduel.agents.adapters.protocol import Experience as Experience
    from metaduel.agents.adapters.protocol import FixedPlayer as FixedPlayer
    from metaduel.agents.adapters.protocol import SeatInfo as SeatInfo
    from metaduel.agents.adapters.protocol import adaptation as adaptation
    from metaduel.agents.adapters.sb3 import SB3Adapter as SB3Adapter
    from metaduel.agents.networks import Convolutional as Convolutional
    from metaduel.agents.networks import Dense as Dense
    from metaduel.agents.networks import Network as Network
    from metaduel.agents.policies.base import Policy as Policy
    from metaduel.agents.policies.base import Weights as Weights
    from metaduel.agents.policies.base import stack as stack
    from metaduel.agents.policies.mlp import MLPPolicy as MLPPolicy
    from metaduel.agents.policies.module import ModulePolicy as ModulePolicy
    from metaduel.agents.policies.recurrent import GRUPolicy as GRUPolicy
    from metaduel.agents.policies.recurrent import LSTMPolicy as LSTMPolicy
    from metaduel.agents.policies.recurrent import RecurrentPolicy as RecurrentPolicy
    from metaduel.agents.policies.tabular import TabularPolicy as TabularPolicy
    from metaduel.agents.sb3 import freeze as freeze
    from metaduel.agents.trajectories import Carry as Carry
    from metaduel.agents.trajectories import Trajectories as Trajectories

_PLACES = {
    "adaptation": "metaduel.agents.adapters.protocol",
    "Adapter": "metaduel.agents.adapters.protocol",
    "BadPlayer": "metaduel.agents.adapters.protocol",
    "Carry": "metaduel.agents.trajectories",
    "Convolutional": "metaduel.agents.networks",
    "Dense": "metaduel.agents.networks",
    "Experience": "metaduel.agents.adapters.protocol",
    "FixedPlayer": "metaduel.agents.adapters.protocol",
    "freeze": "metaduel.agents.sb3",
    "GameArena": "metaduel.agents.adapters.arena",
    "GRUPolicy": "metaduel.agents.policies.recurrent",
    "LSTMPolicy": "metaduel.agents.policies.recurrent",
    "MLPPolicy": "metaduel.agents.policies.mlp",
    "ModulePolicy": "metaduel.agents.policies.module",
    "Network": "metaduel.agents.networks",
    "NumpyAdapter": "metaduel.agents.adapters.numpy_objects",
    "NumpyLearner": "metaduel.agents.adapters.numpy_objects",
    "Policy": "metaduel.agents.policies.base",
    "RecurrentPolicy": "metaduel.agents.policies.recurrent",
    "SB3Adapter": "metaduel.agents.adapters.sb3",
    "SeatInfo": "metaduel.agents.adapters.protocol",
    "stack": "metaduel.agents.policies.base",
    "TabularPolicy": "metaduel.agents.policies.tabular",
    "Trajectories": "metaduel.agents.trajectories",
    "Weights": "metaduel.agents.policies.base",
}

__all__ = list(_PLACES)
__getattr__, __dir__ = exports(__name__, _PLACES)
