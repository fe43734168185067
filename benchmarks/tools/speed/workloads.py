"""The workloads that commits are compared on, as plain values.

Training has the settings of the comparison of all methods (``benchmarks/suites/reproduce-comparison.yaml``), at 20, 100 and 400
tasks. W1 is one meta-iteration on 2-D navigation: 20 tasks, 20 episodes each, 100 steps, one second-order inner step, two layers
of 64 units. W2 and W3 are chains of Meta-MAPG against learning personas with an LSTM of 64 units, 8 batches of 64 episodes, on
rock-paper-scissors (50 steps) and the iterated prisoner's dilemma (150).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from metaduel.benchmarks.core import suite

W1: dict[str, Any] = {
    "game": "Navigation", "method": "maml", "roles": ["protagonist"], "against_protagonist": ["idle"], "fixed": {"push": 0.0},
    "tasks": 20, "episodes": 20, "steps": 1, "inner_lr": 0.1, "validation_tasks": 1,
}  # fmt: skip
PERSONAS = 5  # of an iteration of W2 and W3
CHAIN: dict[str, Any] = {
    "method": "meta_mapg", "roles": ["protagonist"], "persona_share": 1.0, "learned_share": 0.0, "tasks": PERSONAS,
    "episodes": 64, "steps": 7, "network": "lstm", "hidden": [64], "exact_discount": True, "inner_lr_per": "step",
    "validation_tasks": 1,
}  # fmt: skip
W2 = {
    **CHAIN, "game": "RockPaperScissors", "against_protagonist": ["random"],
    "discount": 0.9, "inner_discount": 0.9, "inner_lr": 0.01,
}  # fmt: skip
W3 = {
    **CHAIN, "game": "IteratedPrisonersDilemma", "against_protagonist": ["tit_for_tat"],
    "discount": 0.96, "inner_discount": 0.96, "inner_lr": 0.1,
}  # fmt: skip
PROTOCOL: dict[str, Any] = {"shots": 3, "episodes": 5, "test_episodes": 10, "task_count": 10}
GAMES = ("Sumo", "Pursuit", "Goalkeeper")
METHODS = ("maml", "fomaml", "joint")
SIZES = {20: (4, 1), 100: (2, 1), 400: (1, 0)}  # tasks: iterations that are timed, and before them


class Workload(NamedTuple):
    """A workload.

    Attributes:
        name: for the reader.
        unit: of its work in a second, ``steps/s``; or of its cost, ``s`` or ``MiB``.
        kind: one of ``kinds.KINDS``.
        arguments: the kind's.
        threads: torch's threads.
    """

    name: str
    unit: str
    kind: str
    arguments: dict[str, Any]
    threads: int = 1


def compared(method: str, **more: Any) -> dict[str, Any]:
    """Settings of the comparison of all methods, with little validation."""
    content = suite.settings("comparison")
    own = content["methods"][method]
    chosen = {**content["settings"], **own["settings"], **own["trials"][0], "validation_tasks": 1}
    return {"method": method, **chosen, **more}


def steps() -> list[Workload]:
    """Environment steps: the raw core, and a Gymnasium vector environment that resets its rows."""
    made = []
    for game in GAMES:
        for batch in (64, 4096):
            least = 1000 * batch
            made += [
                Workload(f"{game}, {batch:,} rows, raw", "steps/s", "core", {"game": game, "batch": batch, "least": least}),
                Workload(
                    f"{game}, {batch:,} rows, with autoreset", "steps/s", "vector",
                    {"env": f"metaduel/{game}-v0", "batch": batch, "least": least},
                ),
            ]  # fmt: skip
    return made


def training() -> list[Workload]:
    """Environment steps in training."""
    made = []
    for game in GAMES:
        for method in METHODS:
            for tasks, (timed, skipped) in SIZES.items():
                settings = compared(method, game=game, tasks=tasks, compile=False)
                arguments = {"settings": settings, "timed": timed, "skipped": skipped}
                made.append(Workload(f"{game}, {method}, {tasks} tasks", "steps/s", "training", arguments))
    return made


def compiled() -> list[Workload]:
    """The same with compiled steps, at 20 and 400 tasks; a package that compiles nothing trains as it does."""
    return [
        one._replace(
            name=f"{one.name}, compiled",
            arguments={**one.arguments, "skipped": 1, "settings": {**one.arguments["settings"], "compile": True}},
        )
        for one in training()
        if one.arguments["settings"]["tasks"] != 100
    ]


def stacked() -> list[Workload]:
    """Five seeds x two rates in one process; one after the other where the package does not stack runs."""
    return [
        Workload(
            f"{game}, {method}, 20 tasks, 10 runs", "steps/s", "stacked",
            {"settings": compared(method, game=game), "seeds": 5, "rates": [0.002, 0.006], "few": 1, "many": 3},
        )
        for game in GAMES
        for method in METHODS
    ]  # fmt: skip


def navigation() -> list[Workload]:
    """W1, with Adam and TRPO outside."""
    arguments = {"timed": 5, "skipped": 1, "each": 1}
    return [
        Workload(
            f"W1, {name}, {threads} {'thread' if threads == 1 else 'threads'}",
            "s",
            "training",
            {"settings": {**W1, "method": method}, **arguments},
            threads,
        )
        for name, method in (("Adam", "maml"), ("TRPO", "maml_trpo"))
        for threads in (1, 2)
    ]


def chains() -> list[Workload]:
    """W2 and W3, per persona."""
    arguments = {"timed": 1, "skipped": 0, "each": PERSONAS}
    return [
        Workload(f"{name}, chain of one persona", "s", "training", {"settings": settings, **arguments})
        for name, settings in (("W2", W2), ("W3", W3))
    ]


def remembering() -> list[Workload]:
    """RL^2."""
    arguments = {"settings": compared("rl2", game="Pursuit"), "timed": 1, "skipped": 0}
    return [Workload("Pursuit, RL², 60 tasks", "steps/s", "training", arguments)]


def evaluation() -> list[Workload]:
    """Cells of a few-shot evaluation."""
    arguments = {"settings": compared("fomaml", game="Pursuit"), "seeds": 5, "protocol": PROTOCOL}
    return [Workload("Pursuit, five runs of first-order MAML", "cells/s", "evaluation", arguments)]


def memory() -> list[Workload]:
    """The memory of ten stacked runs."""
    arguments = {"settings": W1, "seeds": 10, "iterations": 2}
    return [Workload("W1, Adam, 10 runs", "MiB", "memory", arguments)]


SMALL: dict[str, Any] = {"tasks": 2, "episodes": 2, "horizon": 5}


def smallest(workloads: list[Workload]) -> list[Workload]:
    """The first workload, so small that it is over at once: for a look at whether all is there."""
    first = workloads[0]
    arguments = dict(first.arguments)
    for name, value in (("least", 1), ("batch", 4), ("timed", 1), ("few", 1), ("many", 2), ("seeds", 2)):
        if name in arguments:
            arguments[name] = value
    if arguments.get("each", 1) > 1:  # chains: one for each task
        arguments["each"] = SMALL["tasks"]
    if "settings" in arguments:
        arguments["settings"] = {**arguments["settings"], **SMALL}
    if "protocol" in arguments:
        arguments["protocol"] = {**PROTOCOL, "episodes": 2, "test_episodes": 2, "task_count": 2}
    return [first._replace(name=f"{first.name}, smallest", arguments=arguments)]
