"""docs/clients.md: its table names all tests of the matrix and no others, and its snippets run."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = (HERE.parent.parent / "docs" / "clients.md").read_text(encoding="utf-8")
CELL = re.compile(r"`([\w/]+)::(\w+)`(, [^|]+)?")
HEAVY = ("ray", "torchrl", "tianshou")


def rows():
    """The cells of each client's row of the table."""
    lines = PAGE[PAGE.index("| client |") :].split("\n\n")[0].splitlines()
    assert lines[0] == "| client | single | vector | parallel | AEC |"
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in line.strip("|").split("|")] for line in lines[2:])}


def test_every_cell_names_a_test_or_a_reason():
    named = set()
    for client, cells in rows().items():
        assert len(cells) == 4, client
        for cell in cells:
            found = CELL.fullmatch(cell)
            assert found or re.fullmatch(r"not supported: .{10,}", cell), cell
            if found:
                file, test = found.group(1, 2)
                assert f"\ndef {test}(" in (HERE / f"{file}.py").read_text(encoding="utf-8"), cell
                named.add((file, test))
    kinds = "single|vector|parallel|aec|wrappers|maskable_single|maskable_vector"
    there = {
        (str(file.relative_to(HERE).with_suffix("")), test)
        for file in HERE.rglob("test_*.py")
        for test in re.findall(rf"\ndef (test_(?:{kinds}))\(", file.read_text(encoding="utf-8"))
    }
    assert named == there


SNIPPETS = re.findall(r"## ([\w -]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("snippet", [text for _, text in SNIPPETS], ids=[title for title, _ in SNIPPETS])
def test_snippets_run(snippet):
    assert PAGE.count("```python") == len(SNIPPETS)
    for name in HEAVY:
        if f"from {name}" in snippet:
            pytest.importorskip(name, reason='needs the extra "clients": make test-clients')
    exec(compile(snippet, "docs/clients.md", "exec"), {})
    if "from ray" in snippet:
        import ray

        ray.shutdown()
