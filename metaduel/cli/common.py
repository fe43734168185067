"""Parts that subcommands share: kinds of arguments, the names of tasks, and the messages of a command that stops."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro
import yaml
from rich.console import Console

from metaduel.envs.core.arguments import as_path
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import GameSpec, Task
from metaduel.envs.core.tasks import check_task, find_task

GameName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GAME")]
PlayerName = Annotated[str | None, tyro.conf.arg(metavar="PLAYER")]

PATHS = tyro.constructors.ConstructorRegistry()


@PATHS.primitive_rule
def _path(
    argument: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
    """Paths with ``~``: shells leave it alone in ``--out=~/runs``."""
    if argument.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda texts: as_path(texts[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def parse_task(spec: GameSpec, text: str) -> Task:
    """A task of ``spec``: SPLIT:INDEX of a frozen list, or JSON.

    Raises:
        InvalidInputError: neither of them, or a task that the game does not have.
    """
    if not text.lstrip().startswith("{"):
        return find_task(spec, text)
    try:
        return check_task(spec, json.loads(text))
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"task={text!r} is not JSON ({error.msg} at character {error.pos})") from None


def parse_setting(text: str) -> tuple[str, Any]:
    """A setting's name and value: ``name=value`` in YAML, and numbers such as 1e-3, which YAML takes for words."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidInputError(f"--set {text!r} must be NAME=VALUE, such as --set horizon=20")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InvalidInputError(f"--set {text!r}: {value!r} is not YAML ({str(error).splitlines()[0]})") from None
    if isinstance(parsed, str):
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    return name, parsed


def wide_console() -> Console:
    """A console on which the widest tables have room, also where the output goes to a file, unless COLUMNS is set."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 130
    return console


def stopped(error: Exception) -> NoReturn:
    """End with exit code 1 and one line: a training cannot continue."""
    print(f"metaduel: {error}", file=sys.stderr)
    sys.exit(1)


def resumable(*command: str) -> None:
    """Print on standard error the command that resumes an interrupted one."""
    print(f"metaduel: stopped and saved; resume with: {shlex.join(['metaduel', *command])}", file=sys.stderr)
