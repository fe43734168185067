"""The command line. Each subcommand is one small function; what they do lives in the rooms.

Nothing here imports torch at the top: ``--help`` and ``list`` answer at once, and ``main`` sets OMP_WAIT_POLICY in time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from metaduel.benchmarks.core.terminal import write_plainly
from metaduel.cli.common import PATHS
from metaduel.cli.evaluation import evaluate, exploit, headroom, signal
from metaduel.cli.games import gallery, info, list_games, watch
from metaduel.cli.studies import classification, demo, dynamics, generation, published, reproduce
from metaduel.cli.tools import clouds, digests, pages, proofs, speed
from metaduel.cli.training import adapt, methods, train, tune
from metaduel.envs.core.errors import InvalidInputError

# In the order in which --help lists them.
COMMANDS: tuple[Callable[..., Any], ...] = (
    *(info, watch, gallery, train, tune, evaluate, exploit, reproduce, methods, adapt, headroom, signal, demo),
    *(published, dynamics, clouds, speed, proofs, pages, digests),
)

app = tyro.extras.SubcommandApp()
app.command(name="list")(list_games)
for _command in COMMANDS:
    app.command(_command)

_studies = tyro.extras.SubcommandApp()
for _command in (classification, generation):
    _studies.command(_command)
app.command(_studies, name="study", help="Run one of our own studies on tasks that are data.")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; bad input is one line on standard error and exit code 2."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported: spinning threads starve others
    write_plainly()
    try:
        app.cli(
            prog="metaduel",
            description="Two-player games, and agents that learn to adapt to their tasks and opponents in few episodes.",
            args=args,
            config=(tyro.conf.FlagCreatePairsOff,),
            registry=PATHS,
        )
    except InvalidInputError as error:
        print(f"metaduel: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output left, as in `metaduel list | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # a file that cannot be read or written
        print(f"metaduel: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
