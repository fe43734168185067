"""The games' pages: made of docstrings and measurements, and up to date in the repository."""

import json
from pathlib import Path

import pytest

from metaduel import cli
from metaduel.benchmarks.tools import pages
from metaduel.envs.core import measured as lying
from metaduel.envs.core import registry
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES
from metaduel.envs.players.scripted import scripted

DOCS = Path(__file__).parents[2] / "docs" / "games"
ROW = {"player": "informed, entropy bonus 0", "kind": "informed", "mean": 1.0, "low": 0.9, "high": 1.1, "rise": 0.02}
FOUND = {
    "players": [ROW, {**ROW, "player": "sweep", "kind": "scripted", "mean": 0.25, "rise": 0.0}],
    "informed": "informed, entropy bonus 0",
    "best": "sweep",
    "headroom": {"mean": 0.75, "low": 0.7, "high": 0.8},
    "share": 0.35,
    "trained_share": 0.31,
    "recurrent_share": 0.1,
    "random_start_share": 0.2,
    "verdict": "adaptation pays",
}
CERTIFICATE = {
    "game": "Pursuit-v0",
    "command": "metaduel headroom Pursuit",
    "budget": {"seeds": 5, "iterations": 300, "steps": 4000},
    "roles": dict.fromkeys(ROLES, FOUND),
}


@pytest.mark.parametrize("package", registry.families())
def test_the_committed_pages_are_what_the_measurements_say(package):
    specs = registry.families()[package]
    name = package.rpartition(".")[2]
    assert (DOCS / f"{name}.md").read_text() == pages.page(specs), "run `make pages`"
    assert (DOCS / f"{name}.png").is_file()


def test_the_committed_index_is_what_the_measurements_say():
    assert (DOCS / "README.md").read_text() == pages.index(), "run `make pages`"


@pytest.mark.parametrize("spec", registry.specs().values(), ids=lambda spec: spec.name)
def test_every_scripted_player_is_rated_and_every_held_out_one_is_unlike_the_training_ones(spec):
    for role in ROLES:
        found = lying.measured(spec)["panel"][role]
        assert set(found["ratings"]) == set(scripted(spec, role))
        assert set(found["nearest"]) == set(spec.opponents[role][OPPONENT_SPLITS[1]])
        for near in found["nearest"].values():
            assert near["name"] in spec.opponents[role][OPPONENT_SPLITS[0]]
            assert near["disagreement"] > 0
        # The panel spans weak to strong: the best is surely better than the worst.
        last, *_, first = sorted(found["ratings"].values(), key=lambda rated: rated["mu"])
        assert first["mu"] - 2 * first["sigma"] > last["mu"] + 2 * last["sigma"]


def test_a_page_tells_everything_of_a_certificate(monkeypatch):
    panel = lying.measured(find("Pursuit"))["panel"]
    monkeypatch.setattr(pages, "measured", lambda spec: {"headroom": CERTIFICATE, "panel": panel})
    text = pages.page([find("Pursuit")])
    assert "### Headroom as adversary: adaptation pays" in text
    assert "| informed, entropy bonus 0 | informed | 1.000 | [0.900, 1.100] | +0.020 |" in text
    assert (
        "(informed, entropy bonus 0) over the best non-adapting player (sweep): 0.750 [0.700, 0.800]; its lower end is 35%"
        in text
    )
    assert (
        "| [Pursuit](pursuit.md) | adversary | 0.750 [0.700, 0.800] | 35% | 31% | 0.20 | 0.10 | adaptation pays |"
        in pages.index()
    )
    monkeypatch.setattr(pages, "measured", lambda spec: {})
    assert "has not been measured for this version yet: `metaduel headroom Pursuit`" in pages.page([find("Pursuit")])


def test_a_certificate_of_another_version_is_refused(tmp_path):
    path = tmp_path / "headroom.json"
    path.write_text(json.dumps({**CERTIFICATE, "game": "Pursuit-v1"}))
    with pytest.raises(InvalidInputError, match="is of Pursuit-v1, not of Pursuit-v0"):
        pages.read_certificate(path, find("Pursuit"))


def test_the_command_writes_nothing_where_one_certificate_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pages, "write_atomic", lambda path, content: pytest.fail(f"wrote {path}"))
    for game, text in (("Navigation", json.dumps({**CERTIFICATE, "game": "Navigation-v0"})), ("Pursuit", "half of it")):
        folder = tmp_path / "runs" / f"headroom-{game}"
        folder.mkdir(parents=True)
        (folder / "headroom.json").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["pages", "--docs", str(tmp_path / "docs"), "--runs", str(tmp_path / "runs")])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "not a certificate of `metaduel headroom`" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "docs").exists()
