"""Our MAML beside the published one on 2-D navigation: ``python -m metaduel.benchmarks.published RUN [RUN ...]``.

The authors' protocol as they ran it: their 40 test goals, 40 trajectories per update, sampled actions, returns after 0 to 3
updates. The published figures are those of the authors' result files (Finn, Abbeel and Levine, ICML 2017).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from metaduel.agents.runtime import configure
from metaduel.benchmarks.metrics import estimate
from metaduel.benchmarks.report import RNG_SEED, Sheet, cell, number
from metaduel.envs.errors import InvalidInputError
from metaduel.envs.navigation.cases import published_tasks
from metaduel.envs.noise import derive_seed
from metaduel.envs.opponents import load_player
from metaduel.meta.agent import load
from metaduel.meta.few_shot import adapt_and_test
from metaduel.meta.source import task_rows

PUBLISHED = {
    "MAML": (-40.41, -11.68, -3.33, -3.23),
    "pretrained": (-40.81, -19.73, -11.72, -8.47),
    "random": (-82.66, -57.96, -53.84, -46.81),
}
TRAJECTORIES, SHOTS = 40, 3
ADAPT, TEST = 110, 111  # purposes of the seeds, apart from those of other protocols


def returns(folder: Path) -> np.ndarray:
    """Mean return of a run's protagonist per shot and goal: [4, 40]."""
    run = load(folder)
    agent = run.protagonist
    if run.config.game != "Navigation" or run.config.fixed.get("push") != 0 or run.config.informed:
        raise InvalidInputError(
            f"{folder} is no run of Navigation with push fixed at 0 (benchmarks/suites/navigation.yaml)"
        )
    return (
        adapt_and_test(
            run.duel, agent.policy, "protagonist", agent.weights, agent.rates, agent.loss,
            task_rows(run.duel.spec, published_tasks(), {}), [load_player(run.duel, "adversary", "idle")],
            shots=SHOTS, episodes=TRAJECTORIES, test_episodes=TRAJECTORIES,
            adapt_seed=derive_seed(run.config.seed, ADAPT), test_seed=derive_seed(run.config.seed, TEST),
        )
        .returns[:, 0]
        .mean(-1)
        .double()
        .numpy()
    )  # fmt: skip


def sheet(folders: Sequence[Path]) -> Sheet:
    """Rows: the published methods, each run, and the mean over runs."""
    found = np.stack([returns(folder) for folder in folders])  # [runs, 4, 40]
    header = ("method", *(f"after {shot} updates" for shot in range(SHOTS + 1)))
    rows = [(f"{name} (published)", *(number(value) for value in row)) for name, row in PUBLISHED.items()]
    rows += [(str(f.name), *(number(value) for value in run.mean(1))) for f, run in zip(folders, found, strict=True)]
    mean = [cell(estimate(found[:, shot], RNG_SEED)) for shot in range(SHOTS + 1)]
    rows.append((f"ours, mean of {len(folders)} seeds", *mean))
    note = "40 published goals, 40 trajectories per update, sampled actions; 95% t intervals over seeds."
    return Sheet("2-D navigation, push = 0", header, tuple(rows), note)


def main(arguments: Sequence[str]) -> int:
    """Print the table for the run folders named."""
    configure(1)
    try:
        if not arguments:
            raise InvalidInputError("name at least one run folder of benchmarks/suites/navigation.yaml")
        made = sheet([Path(name) for name in arguments])
    except InvalidInputError as error:
        print(f"published: {error}", file=sys.stderr)
        return 2
    Console().print(made.rich())
    print(made.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
