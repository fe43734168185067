"""What an update from five episodes of Pursuit knows: its direction against the direction of the gate."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from metaduel.agents.policies.base import stack
from metaduel.envs.core.spec import ROLES, other
from metaduel.envs.core.tasks import sample_tasks, task_rows
from metaduel.envs.players.names import load_player, names
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.players import make_duel, make_policy

SUITE = Path(__file__).parents[2] / "benchmarks" / "suites" / "pursuit.yaml"
CONFIG = TrainConfig.from_dict(yaml.safe_load(SUITE.read_text()))


def cosine(role, **loss):
    """Mean cosine between an untrained network's first update of its output bias and the gate."""
    duel, spec = make_duel(CONFIG), CONFIG.spec
    policy = make_policy(CONFIG, duel, role)
    opponents = [load_player(duel, other(role), name) for name in names(spec, other(role), "train")]
    rows = task_rows(spec, sample_tasks(spec, 30, "train", 5), {})
    groups, rows = [(opponent, len(rows)) for opponent in opponents], rows.repeat(len(opponents), 1)
    against = "against_adversaries" if role == "protagonist" else "against_protagonists"
    matchups = Matchups(rows, **{against: groups})
    problem = DuelProblem(duel, {role: policy}, matchups, CONFIG.episodes, 77, replace(CONFIG.loss, **loss))
    weights = {name: w.contiguous().requires_grad_() for name, w in stack(policy.init(3), len(rows)).items()}
    support = problem.draw({role: weights}, 0).losses({role: weights}).support[role].sum()
    update = -torch.autograd.grad(support, weights["layer2.bias"])[0]
    gate = duel.game.params_from_rows(rows).gate
    return torch.cosine_similarity(update, gate).mean().item()


@pytest.mark.parametrize("role", ROLES)
def test_the_next_reward_alone_tells_where_the_gate_is(role):
    far = {"inner_discount": 0.95, "inner_clip": 0.0}
    assert cosine(role) > 0.85
    assert cosine(role, **far) < 0.6
