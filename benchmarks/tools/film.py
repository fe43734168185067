"""Videos of one player adapting: the same task and the same episode after every shot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from metaduel.agents.rollout import Learner
from metaduel.envs.core.arguments import AnyPath
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.game import Player
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, Role, Task, other
from metaduel.envs.core.tasks import task_rows
from metaduel.envs.players.names import load_player, player_name
from metaduel.envs.render.film import film
from metaduel.envs.render.screen import Frame, Screen, check_video, write_video
from metaduel.meta.adaptation.few_shot import adapt_and_test
from metaduel.meta.runs.agent import Agent, AgentPlayer
from metaduel.meta.runs.load import Run


def film_adaptation(
    run: Run, role: Role, opponent: Any, task: Task, path: AnyPath, shots: int = 3, episodes: int = 5, seed: int = 0
) -> list[float]:
    """Adapt a run's player to one task and opponent, and film the same episode at shots 0 to the last.

    Args:
        run: the run.
        role: the player's role.
        opponent: the player in the other seat, as ``load_player`` takes it.
        task: the task's contexts.
        path: an .mp4 or .gif file.
        shots: number of updates.
        episodes: episodes per update.
        seed: seed of the adaptation and of the filmed episode.

    Returns:
        The player's mean return over 100 other episodes at every shot.

    Raises:
        InvalidInputError: a player without inner rates, no such opponent, bad numbers, another file than a video, or no render
            extra; before anything is played.
    """
    for name, value in (("shots", shots), ("episodes", episodes)):
        check_whole(name, value)
    agent, spec = run.agent(role), run.duel.spec
    names = {role: run.config.method, other(role): player_name(opponent)}
    screen = Screen(spec, "rgb_array", (names[ROLES[0]], names[ROLES[1]]))
    screen.prepare()
    check_video(path)
    if not agent.adapter.adapts:
        raise InvalidInputError(
            f"the {role} was trained without adaptation: it has no inner rates (train it with steps above 0)"
        )
    rival = load_player(run.duel, other(role), opponent)
    result = adapt_and_test(
        run.duel, agent.adapter, role, task_rows(spec, [task], {}), [rival], shots=shots, episodes=episodes,
        test_episodes=100, adapt_seed=derive_seed(seed, Purpose.ADAPT), test_seed=derive_seed(seed, Purpose.TEST),
    )  # fmt: skip
    stages = [agent.after(cast(Learner, player), shots=shot) for shot, player in enumerate(result.players)]
    returns = result.returns.mean((1, 2, 3)).tolist()
    write_video(path, _frames(run, role, stages, rival, task, screen, seed), spec.fps)
    screen.close()
    return returns


def _frames(
    run: Run, role: Role, stages: list[Agent], rival: Player, task: Task, screen: Screen, seed: int
) -> Iterator[Frame]:
    for shot, agent in enumerate(stages):
        player = AgentPlayer(agent)
        pair = (player, rival) if role == ROLES[0] else (rival, player)
        yield from film(run.duel, pair, task, screen, derive_seed(seed, Purpose.TEST), 0, f"shot {shot}")
