"""The process in which workloads of one package run: ``python -P -m metaduel.benchmarks.tools.speed.worker``.

It reads a request per line from its input, and answers each with a line. Requests and answers are JSON. What a workload prints
goes to standard error. An older package gets this folder in place of its own, so that both are measured by the same code.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Any

import torch


def answer(request: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked: ``make`` a workload, ``warm`` it, ``play`` it, or time its ``floor``.

    Args:
        request: ``do``, and for ``make`` the ``kind``, the ``threads`` and the ``arguments``.
        made: holds the workload between requests.
    """
    if request["do"] == "make":
        from metaduel.benchmarks.tools.speed.kinds import KINDS

        made.clear()  # what it held is freed first
        torch.set_num_threads(request["threads"])
        made["it"] = KINDS[request["kind"]](request["threads"], **request["arguments"])
        return {}
    found = getattr(made["it"], request["do"])()
    return {} if found is None else {"work": found.work, "cost": found.cost}


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until there are no more; what fails is told."""
    import metaduel

    print(json.dumps({"package": next(iter(metaduel.__path__))}), file=answers, flush=True)
    made: dict[str, Any] = {}
    for line in requests:
        try:
            found = answer(json.loads(line), made)
        except Exception as error:  # an older package may lack anything; the process that asked decides what that means
            found = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=answers, flush=True)


def main() -> None:
    """Serve, with what was standard output."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
