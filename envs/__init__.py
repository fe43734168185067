"""The task distribution: parameterised two-player games, their tasks, opponents and adapters.

What is named here is public; the modules below it are not. Each name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaduel.envs.core.lazy import exports

if TYPE_CHECKING:
    from metaduel.envs.adapters.batched import BatchedEnv as BatchedEnv
    from metaduel.envs.adapters.gymnasium import SeatEnv as SeatEnv
    from metaduel.envs.adapters.pettingzoo import env as env
    from metaduel.envs.adapters.pettingzoo import parallel_env as parallel_env
    from metaduel.envs.adapters.vector import SeatVectorEnv as SeatVectorEnv
    from metaduel.envs.contract import ContractBroken as ContractBroken
    from metaduel.envs.contract import check_game as check_game
    from metaduel.envs.core.duel import Duel as Duel
    from metaduel.envs.core.duel import Transition as Transition
    from metaduel.envs.core.errors import InvalidInputError as InvalidInputError
    from metaduel.envs.core.game import Game as Game
    from metaduel.envs.core.game import Outcome as Outcome
    from metaduel.envs.core.game import View as View
    from metaduel.envs.core.game import make_game as make_game
    from metaduel.envs.core.golden import Golden as Golden
    from metaduel.envs.core.spec import ROLES as ROLES
    from metaduel.envs.core.spec import Context as Context
    from metaduel.envs.core.spec import GameSpec as GameSpec
    from metaduel.envs.core.spec import Task as Task
    from metaduel.envs.core.tasks import frozen_json as frozen_json
    from metaduel.envs.core.tasks import frozen_tasks as frozen_tasks
    from metaduel.envs.players.scripted import Option as Option
    from metaduel.envs.players.scripted import Scripted as Scripted
    from metaduel.envs.render.screen import Canvas as Canvas

_PLACES = {
    "BatchedEnv": "metaduel.envs.adapters.batched",
    "Canvas": "metaduel.envs.render.screen",
    "check_game": "metaduel.envs.contract",
    "Context": "metaduel.envs.core.spec",
    "ContractBroken": "metaduel.envs.contract",
    "Duel": "metaduel.envs.core.duel",
    "env": "metaduel.envs.adapters.pettingzoo",
    "frozen_json": "metaduel.envs.core.tasks",
    "frozen_tasks": "metaduel.envs.core.tasks",
    "Game": "metaduel.envs.core.game",
    "GameSpec": "metaduel.envs.core.spec",
    "Golden": "metaduel.envs.core.golden",
    "InvalidInputError": "metaduel.envs.core.errors",
    "make_game": "metaduel.envs.core.game",
    "Option": "metaduel.envs.players.scripted",
    "Outcome": "metaduel.envs.core.game",
    "parallel_env": "metaduel.envs.adapters.pettingzoo",
    "ROLES": "metaduel.envs.core.spec",
    "Scripted": "metaduel.envs.players.scripted",
    "SeatEnv": "metaduel.envs.adapters.gymnasium",
    "SeatVectorEnv": "metaduel.envs.adapters.vector",
    "Task": "metaduel.envs.core.spec",
    "Transition": "metaduel.envs.core.duel",
    "View": "metaduel.envs.core.game",
}

__all__ = list(_PLACES)
__getattr__, __dir__ = exports(__name__, _PLACES)
