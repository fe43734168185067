"""The runner of the reproductions: cells are played once, in as many sittings as it takes; other versions don't mix in."""

import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from metaduel.benchmarks.core import suite
from metaduel.benchmarks.core import table as tables
from metaduel.benchmarks.core.suite import Cell
from metaduel.benchmarks.studies import reproduce
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find

SPEC = find("Pursuit")


def rows(method, spec=SPEC, tasks=("held_out:0", "held_out:1")):
    return tables.from_returns(
        np.ones((1, 1, 2, 1)), spec, role="protagonist", method=method, seed=0, task_split="held_out", tasks=tasks,
        opponent_split="held_out", opponents=["guard"], actions="sampled",
    )  # fmt: skip


def cells(played, stop=None, spec=SPEC, lr=0.1, tasks=("held_out:0", "held_out:1")):
    def play(name):
        def work(folder):
            if name == stop:
                raise KeyboardInterrupt
            played.append(name)
            return rows(name, spec, tasks)

        return work

    return [Cell(name, spec, {"lr": lr}, play(name)) for name in ("a", "b", "c")]


@pytest.fixture
def chain(monkeypatch):
    """Makes cells that other processes can play, each of which needs the one two places before it."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    playable = importlib.import_module("playable")

    def make(*names):
        made = []
        for name in names:
            needs = made[-2:-1]
            work = partial(playable.work, tuple(one.name for one in needs), rows(name))
            made.append(Cell(name, SPEC, {}, work, tuple(one.stem for one in needs)))
        return made

    return make


def test_an_interrupted_suite_goes_on_where_it_was(tmp_path):
    played = []
    with pytest.raises(KeyboardInterrupt):
        suite.play(cells(played, stop="b"), tmp_path, quiet=True)
    assert played == ["a"]
    assert suite.play(cells(played), tmp_path, quiet=True).table.values("method") == ["a", "b", "c"]
    assert played == ["a", "b", "c"]
    suite.play(cells(played), tmp_path, quiet=True)
    assert played == ["a", "b", "c"]


def test_a_fresh_clone_goes_on_from_kept_tables_of_the_same_settings_alone(tmp_path):
    played, keep = [], tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        suite.play(cells(played, stop="c"), tmp_path / "one", quiet=True, keep=keep)
    assert len(list(keep.iterdir())) == 4  # written as cells finish
    assert "settings" not in json.loads(next(keep.glob("a-*.json")).read_text())
    table = suite.play(cells(played), tmp_path / "two", quiet=True, keep=keep).table
    assert table.values("method") == played == ["a", "b", "c"]
    assert suite.play(cells(played), tmp_path / "two", quiet=True).seconds >= 0  # as if it had been played there
    suite.play(cells(played, lr=0.2), tmp_path / "three", quiet=True, keep=keep)
    assert played == ["a", "b", "c"] * 2
    assert len(list(keep.iterdir())) == 12


def test_cells_that_were_finished_without_being_kept_are_kept_later(tmp_path):
    played, keep = [], tmp_path / "kept"
    suite.play(cells(played), tmp_path / "one", quiet=True)
    suite.play(cells(played), tmp_path / "one", quiet=True, keep=keep)
    suite.play(cells(played), tmp_path / "two", quiet=True, keep=keep)
    assert played == ["a", "b", "c"]


def test_kept_tables_that_have_changed_or_are_of_another_version_are_refused(tmp_path):
    keep = tmp_path / "kept"
    suite.play(cells([]), tmp_path / "one", quiet=True, keep=keep)
    with pytest.raises(InvalidInputError, match="two versions of a family do not mix"):
        suite.play(cells([], spec=replace(SPEC, version=SPEC.version + 1)), tmp_path / "two", quiet=True, keep=keep)
    path = next(keep.glob("b-*.csv.gz"))
    rows("other").write(path)
    with pytest.raises(InvalidInputError, match="not the table that was kept"):
        suite.play(cells([]), tmp_path / "three", quiet=True, keep=keep)
    path.unlink()
    with pytest.raises(InvalidInputError, match="not a kept cell"):
        suite.play(cells([]), tmp_path / "three", quiet=True, keep=keep)


def test_cells_that_follow_from_the_rows_of_others_are_played_after_them(tmp_path):
    played = []

    class Two(suite.Suite):
        def cells(self):
            return cells(played)[:2]

        def following(self, table):
            return [cell for cell in cells(played) if cell.name not in table.values("method")]

        def report(self, table, out):
            return suite.Report([], {"".join(table.values("method")): ""})

    found = suite.run("two", Two(title="", about="", differs=""), tmp_path, quiet=True)
    assert list(found.pictures) == ["abc"]
    assert "3 cells" in (tmp_path / "report.md").read_text()
    suite.run("two", Two(title="", about="", differs=""), tmp_path, quiet=True)
    assert played == ["a", "b", "c"]


def test_a_suite_goes_on_from_cells_with_tasks_ids_of_earlier_versions(tmp_path):
    played, old, new = [], ("0526144824", "457e695297"), ["t0526144824", "t457e695297"]
    with pytest.raises(KeyboardInterrupt):
        suite.play(cells(played, stop="b", tasks=old), tmp_path, quiet=True)
    table = suite.play(cells(played, tasks=new), tmp_path, quiet=True).table
    assert played == ["a", "b", "c"]
    assert table.values("task") == new
    assert table.pair("a", "c", "protagonist", 0)[0].shape == (1, 2)


def test_cells_are_played_at_once_when_what_they_need_is_there(tmp_path, capsys, chain):
    found = suite.play(chain("a", "b", "c", "d", "e"), tmp_path, workers=2)
    assert found.table.values("method") == ["a", "b", "c", "d", "e"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("0/5 done")
    assert lines[0].endswith("a; b")
    assert lines[-1].startswith("5/5 done")


def test_a_cell_that_fails_in_another_process_says_why_and_the_others_stay(tmp_path, chain):
    with pytest.raises(InvalidInputError, match="out of order"):
        suite.play(chain("a", "broken", "c", "d"), tmp_path, quiet=True, workers=2)
    assert list(tmp_path.glob("cells/a*.json"))
    assert not list(tmp_path.glob("cells/broken*"))


INTERRUPTED = """
import sys
from functools import partial
from pathlib import Path
sys.path.append({here!r})
import playable
from metaduel.benchmarks.core import suite
from metaduel.envs.core.registry import find

if __name__ == "__main__":
    cell = suite.Cell("slow", find("Pursuit"), {{}}, partial(playable.save_when_interrupted, None))
    suite.play([cell], Path("suite"), workers=2)
"""


def test_ctrl_c_lets_cells_save_though_other_processes_are_idle(tmp_path):
    (tmp_path / "main.py").write_text(INTERRUPTED.format(here=str(Path(__file__).parent)))
    process = subprocess.Popen(
        [sys.executable, "main.py"], cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("suite/work/*/begun")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode
    assert list(tmp_path.glob("suite/work/*/saved"))
    assert "KeyboardInterrupt" in error
    assert "BrokenProcessPool" not in error


def test_needs_that_no_cell_makes_are_named(tmp_path, chain):
    with pytest.raises(InvalidInputError, match=r"'c' needs .*which no cell before it makes"):
        suite.play(chain("a", "b", "c")[1:], tmp_path, quiet=True, workers=2)
    with pytest.raises(InvalidInputError, match="workers=0"):
        suite.play(chain("a"), tmp_path, quiet=True, workers=0)


def test_rows_without_a_record_are_of_a_cell_that_is_not_finished(tmp_path):
    played = []
    suite.play(cells(played), tmp_path, quiet=True)
    next((tmp_path / "cells").glob("b-*.json")).unlink()
    suite.play(cells(played), tmp_path, quiet=True)
    assert played == ["a", "b", "c", "b"]


def test_other_settings_are_other_cells(tmp_path):
    played = []
    suite.play(cells(played), tmp_path, quiet=True)
    suite.play(cells(played, lr=0.2), tmp_path, quiet=True)
    assert played == ["a", "b", "c"] * 2


def test_another_version_of_a_family_is_refused_before_anything_is_played(tmp_path):
    played = []
    suite.play(cells(played)[:2], tmp_path, quiet=True)
    path = next((tmp_path / "cells").glob("b-*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"family": "metaduel/Pursuit-v7"}))
    with pytest.raises(
        InvalidInputError, match=r"b-.*csv\.gz holds results of metaduel/Pursuit-v7, and this is metaduel/Pursuit-v0"
    ):
        suite.play(cells(played), tmp_path, quiet=True)
    assert played == ["a", "b"]


def test_a_record_that_is_none_is_named(tmp_path):
    suite.play(cells([]), tmp_path, quiet=True)
    next((tmp_path / "cells").glob("a-*.json")).write_text("{")
    with pytest.raises(InvalidInputError, match=r"a-.*\.json: not the record of a finished cell"):
        suite.play(cells([]), tmp_path, quiet=True)


@pytest.mark.parametrize("name", suite.names())
def test_every_file_makes_cells_that_differ(name):
    made = reproduce.make(suite.settings(name)).cells()
    assert len({cell.name for cell in made}) == len({cell.stem for cell in made}) == len(made)
    assert all(json.loads(json.dumps(cell.settings)) for cell in made)
    for cell in made:  # other processes play them, after those that they need
        assert pickle.loads(pickle.dumps(cell)).stem == cell.stem
    stems = [cell.stem for cell in made]
    assert all(stems.index(needed) < i for i, cell in enumerate(made) for needed in cell.needs)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(InvalidInputError, match=r"unknown reproduction 'lolla' \(did you mean 'lola'\?\)"):
        suite.settings("lolla")
    with pytest.raises(InvalidInputError, match=r"unknown protocol 'peer' \(did you mean 'peers'\?\)"):
        reproduce.make(suite.settings("peers") | {"protocol": "peer"})
    with pytest.raises(InvalidInputError, match=r"unknown setting 'epoch' \(did you mean 'epochs'\?\)"):
        reproduce.make(suite.settings("lola") | {"epoch": 3})
    values = suite.settings("peers")
    known = values["trained"]
    for key, wrong, message in (
        (
            "trained",
            known | {"A": {"method": "meta_mapgg"}},
            r"unknown method 'meta_mapgg' \(did you mean 'meta_mapg'\?\)",
        ),
        ("trained", known | {"A": {"methods": "meta_pg"}}, r"unknown setting 'methods' \(did you mean 'method'\?\)"),
        (
            "games",
            {"RockPaperScisors": {**values["games"]["IteratedPrisonersDilemma"], "static": []}},
            "RockPaperScissors",
        ),
    ):
        with pytest.raises(InvalidInputError, match=message):
            reproduce.make({**values, "claims": [], key: wrong}).cells()


@pytest.mark.parametrize("workers", [1, 2])
def test_cells_that_are_trained_together_are_trained_once(tmp_path, chain, workers):
    """Those that wait, whose needs are there; a cell that is finished is not trained for again."""
    playable = importlib.import_module("playable")
    a, b, c, d = chain("a", "b", "c", "d")
    log = tmp_path / "log"
    log.mkdir()
    mine = [replace(one, together=playable.together("first", log)) for one in (a, b)]
    later = [replace(one, needs=(a.stem,), together=playable.together("second", log)) for one in (c, d)]
    suite.play(mine[:1], tmp_path, quiet=True)
    assert playable.trained(log) == [["a"]]
    found = suite.play([*mine, *later], tmp_path, quiet=True, workers=workers)
    assert found.table.values("method") == ["a", "b", "c", "d"]
    assert sorted(playable.trained(log)) == [["a"], ["b"], ["c", "d"]]


def test_a_training_that_fails_keeps_its_own_cell_alone_from_being_played(tmp_path, chain):
    log = tmp_path / "log"
    log.mkdir()
    together = importlib.import_module("playable").together("all", log)
    with pytest.raises(InvalidInputError, match="it diverged"):
        suite.play([replace(one, together=together) for one in chain("a", "broken")], tmp_path, quiet=True)
    assert list(tmp_path.glob("cells/a*.json"))
    assert not list(tmp_path.glob("cells/broken*"))
