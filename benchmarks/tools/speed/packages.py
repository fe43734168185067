"""The packages that are measured: this one, and that of another commit; each in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from metaduel.benchmarks.tools.speed.kinds import Played
from metaduel.envs.core.errors import InvalidInputError, one_line

HERE = Path(__file__).resolve().parent  # of the tools, in the repository also where they are reached by a link
REPOSITORY = HERE.parents[2]
ROOMS = ("envs", "agents", "meta", "benchmarks", "metaduel/cli")


class WorkloadFailed(RuntimeError):
    """A workload did not run."""


class Worker:
    """A process in which one package's workloads run; a context manager, which ends it.

    Args:
        path: the folder that holds the package; None: the package of this process.
    """

    def __init__(self, path: Path | None = None) -> None:
        environment = dict(os.environ)
        if path is not None:
            environment["PYTHONPATH"] = str(path)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        # -P: the folder that this is called in is no package, though it may hold a folder of that name.
        command = [sys.executable, "-P", "-m", "metaduel.benchmarks.tools.speed.worker"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, env=environment
        )
        found = Path(self._read()["package"])
        if path is not None and not found.is_relative_to(path):
            self.__exit__()
            raise WorkloadFailed(f"the package of {path} was asked for, but {found} was imported")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def ask(self, do: str, **more: Any) -> Played | None:
        """Send a request, see ``worker``, and wait for its answer.

        Raises:
            WorkloadFailed: the workload failed, or the process ended.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps({"do": do, **more}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._ended() from None
        found = self._read()
        if "failed" in found:
            raise WorkloadFailed(one_line(found["failed"], 300))
        return Played(found["work"], found["cost"]) if found else None

    def _read(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        found: dict[str, Any] = json.loads(line)
        return found

    def _ended(self) -> WorkloadFailed:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return WorkloadFailed(f"its process ended with exit code {code}{': ' + lines[-1] if lines else ''}")


def git(*arguments: str, repository: Path = REPOSITORY) -> bytes:
    """What git prints.

    Raises:
        InvalidInputError: there is no git, no repository, or git refuses.
    """
    if shutil.which("git") is None:
        raise InvalidInputError("comparing commits needs git, which is not installed")
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True)
    if done.returncode:
        raise InvalidInputError(one_line(done.stderr.decode(errors="replace")))
    return done.stdout


def commit_of(ref: str, repository: Path = REPOSITORY) -> str:
    """A commit's short hash.

    Raises:
        InvalidInputError: there is no such commit, or no repository.
    """
    git("rev-parse", "--git-dir", repository=repository)  # no repository is another fault than no such commit
    try:
        found = git("rev-parse", "--verify", "--quiet", "--short", f"{ref}^{{commit}}", "--", repository=repository)
    except InvalidInputError:
        raise InvalidInputError(
            f"compare={ref!r} must be a commit, branch or tag of the repository, such as HEAD~1"
        ) from None
    return found.decode().splitlines()[0]


def present() -> str:
    """The short hash of the commit that this package is of; + where files were changed since. Empty: no repository."""
    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return commit_of("HEAD") + ("+" if changed.strip() else "")
    except InvalidInputError:
        return ""


@contextlib.contextmanager
def package_of(ref: str, repository: Path = REPOSITORY) -> Iterator[Path]:
    """A temporary folder with the package of a commit, and these tools in place of its own.

    Raises:
        InvalidInputError: there is no such commit, or it holds no package of four rooms.
    """
    commit = commit_of(ref, repository)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        source, package = folder / "source", folder / "path" / "metaduel"
        with tarfile.TarFile(fileobj=io.BytesIO(git("archive", commit, repository=repository))) as archive:
            archive.extractall(source, filter="data")
        missing = [room for room in ROOMS if not (source / room).exists() and not (source / f"{room}.py").exists()]
        if missing:
            raise InvalidInputError(f"compare={ref!r}: commit {commit} has no {missing[0]}: name a later one")
        tools = source / "benchmarks" / "tools" / "speed"
        shutil.rmtree(tools, ignore_errors=True)
        shutil.copytree(HERE, tools)
        (tools.parent / "__init__.py").touch()
        package.mkdir(parents=True)
        for file in list((source / "metaduel").iterdir()):
            if file.is_file():
                shutil.move(file, package)
        for room in ROOMS:
            if (source / room).is_dir():
                shutil.move(source / room, package / Path(room).name)
        yield package.parent
