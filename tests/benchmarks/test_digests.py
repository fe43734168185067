"""Digests are written, read again and compared."""

import json

import pytest

from metaduel import cli
from metaduel.benchmarks.tools import digests
from metaduel.envs.core.errors import InvalidInputError

KNOWN = {"steps": {"Pursuit": "aa", "Sumo": "bb"}, "tables": {"maml": "cc"}}


def test_what_is_written_is_read_again(tmp_path):
    digests.write(KNOWN, tmp_path / "digests.json")
    assert digests.read(tmp_path / "digests.json") == KNOWN
    assert json.loads((tmp_path / "digests.json").read_text()).keys() == {"processor", "torch", "digests"}


def test_only_what_was_known_and_is_another_now_differs():
    found = {"steps": {"Pursuit": "aa", "Sumo": "xx", "New": "dd"}}
    assert digests.differences(KNOWN, KNOWN) == []
    assert digests.differences(KNOWN, found) == ["steps: Sumo: bb, now xx", "tables: maml: cc, now None"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digests": 3}', '{"digests": {"steps": 3}}'])
def test_a_file_without_digests_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InvalidInputError, match="holds no digests"):
        digests.read(tmp_path / "a.json")


def test_the_command_exits_with_1_where_something_differs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digests, "measure", lambda: KNOWN | {"tables": {"maml": "other"}})
    digests.write(KNOWN, tmp_path / "known.json")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["digests", "--check", str(tmp_path / "known.json"), "--out", str(tmp_path / "found.json")])
    assert stopped.value.code == 1
    assert capsys.readouterr().out == "differs: tables: maml: cc, now other\n2 of 3 digests are as they were\n"
    with pytest.raises(SystemExit) as stopped:
        cli.main(["digests", "--check", str(tmp_path / "found.json")])
    assert stopped.value.code == 0
