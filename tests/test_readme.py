"""The README's snippets run, in order, as a newcomer would run them; all names in it exist."""

import re
from pathlib import Path

import pytest

from metaduel.envs.core import registry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "choosing-settings.md").read_text()


def test_snippets_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", registry.specs())  # a snippet registers a family
    namespace = {}
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) == 8
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), namespace)
    assert namespace["run"].protagonist.adapter.adapts
    assert namespace["run"].protagonist.policy.lasting
    assert namespace["adapted"].rates.shape[0] == 3
    assert not len(namespace["run"].protagonist.rates)  # the last run's player remembers instead
    assert namespace["adapted"] is not namespace["run"].protagonist
    assert namespace["table"].values("method")[:3] == ["MAML", "random start", "eight directions"]
    assert {"fine-tuned PPO", "scripted: flee"} <= set(namespace["table"].values("method"))
    assert "ShortNavigation" in registry.specs()
    assert {path.name for path in Path("runs/mine/evaluation").iterdir()} >= {
        "results.csv.gz",
        "report.md",
        "shots.png",
    }


@pytest.mark.parametrize(
    ("folder", "target"),
    [
        (folder, target)
        for folder, page in (("", README), ("docs", SETTINGS))
        for target in re.findall(r"\]\(([^)#]+)", page)
    ],
)
def test_links_lead_somewhere(folder, target):
    assert (ROOT / folder / target).exists()


def test_commands_exist():
    from metaduel import cli

    named = set(re.findall(r"(?:`|    |^)metaduel (\w+)", README + SETTINGS, re.MULTILINE))
    assert named <= {command for command in dir(cli)} | {"list"}
