"""Other environments on this machine, in the same run as ours: none of them is needed by the package.

A peer is timed as its users step it: with random actions that were drawn before, and resets as its own documentation has them.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.speed.kinds import VectorSteps
from metaduel.benchmarks.tools.speed.measure import median_time
from metaduel.benchmarks.tools.speed.pairs import price, shown

ACTIONS_AHEAD = 8  # sets of random actions, taken in turn


class Peer(NamedTuple):
    """An environment to time.

    Attributes:
        name: for the reader.
        needs: modules that must be there.
        install: how to get them.
        rate: its steps per second, of so many environments; all players of an environment move in a step.
        batches: numbers of environments.
    """

    name: str
    needs: tuple[str, ...]
    install: str
    rate: Callable[[int, float], float]
    batches: tuple[int, ...] = (1, 64, 4096)


def vector(env: str, mode: str) -> Callable[[int, float], float]:
    """The rate of a Gymnasium vector environment with resets."""

    def rate(batch: int, seconds: float) -> float:
        steps = VectorSteps(1, env, batch, 100 * batch, mode)
        steps.warm()
        played = [steps.play()]
        while len(played) < 3 or sum(one.cost for one in played) < seconds:
            played.append(steps.play())
        return 1 / sorted(map(price, played))[len(played) // 2]

    return rate


def simple_tag(batch: int, seconds: float) -> float:
    """mpe2's: one environment in Python, whose episodes have 25 steps."""
    simple_tag_v3: Any = importlib.import_module("mpe2.simple_tag_v3")
    env = simple_tag_v3.parallel_env(max_cycles=25)
    env.reset(seed=0)
    for agent in env.possible_agents:
        env.action_space(agent).seed(0)
    ahead = [{agent: env.action_space(agent).sample() for agent in env.agents} for _ in range(ACTIONS_AHEAD)]

    def episode() -> None:
        env.reset()
        for actions in itertools.islice(itertools.cycle(ahead), 25):
            env.step(actions)

    return batch * 25 / median_time(episode, seconds, time.process_time)


def jax_simple_tag(batch: int, seconds: float) -> float:
    """JaxMARL's: environments under ``vmap``, 25 steps under ``scan``, compiled before the measurement; ``step`` resets."""
    jax: Any = importlib.import_module("jax")
    jaxmarl: Any = importlib.import_module("jaxmarl")
    env = jaxmarl.make("MPE_simple_tag_v3")
    keys = jax.random.split(jax.random.PRNGKey(0), batch)
    _, start = jax.vmap(env.reset)(keys)

    def step(state: Any, key: Any) -> tuple[Any, Any]:
        chosen, played = jax.random.split(key)
        actions = {agent: jax.random.randint(chosen, (batch,), 0, 5) for agent in env.agents}
        _, state, reward, _, _ = jax.vmap(env.step)(jax.random.split(played, batch), state, actions)
        return state, reward

    several = jax.jit(lambda state: jax.lax.scan(step, state, jax.random.split(jax.random.PRNGKey(1), 25)))
    return batch * 25 / median_time(lambda: jax.block_until_ready(several(start)), seconds, time.process_time)


PEERS = (
    Peer("ours: Pursuit, with autoreset", (), "", vector("metaduel/Pursuit-v0", "vector_entry_point")),
    Peer("ours: CartPole, with autoreset", (), "", vector("metaduel/CartPole-v0", "vector_entry_point")),
    Peer("Gymnasium: CartPole, its own vector environment", (), "", vector("CartPole-v1", "vector_entry_point")),
    Peer("mpe2: simple_tag", ("mpe2",), "pip install mpe2", simple_tag, (1,)),
    Peer("JaxMARL: simple_tag", ("jax", "jaxmarl"), "pip install jaxmarl", jax_simple_tag),
)


@configured(1)
def peers_sheet(seconds: float, dry: bool = False) -> Sheet:
    """Environment steps per second of ours and of others.

    Args:
        seconds: minimum time of one measurement.
        dry: with few environments alone.
    """
    numbers = sorted({batch for peer in PEERS for batch in peer.batches})[: 1 if dry else None]
    rows = []
    for peer in PEERS:
        missing = [name for name in peer.needs if importlib.util.find_spec(name) is None]
        if missing:
            rows.append((peer.name, f"not installed: {peer.install}", *[""] * (len(numbers) - 1)))
            continue
        rates = [peer.rate(batch, seconds) if batch in peer.batches else None for batch in numbers]
        rows.append((peer.name, *("" if rate is None else shown(1 / rate, "steps/s") for rate in rates)))
    header = ("environment", *(f"{batch:,}" for batch in numbers))
    note = (
        "By number of environments, on one thread, in the process's own processor time. A step is one of all players of an "
        "environment; ours hold a scripted opponent that decides."
    )
    return Sheet("Environment steps per second of peers", header, tuple(rows), note)
