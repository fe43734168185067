"""A scripted player that is not marked informed must not act on contexts that its role is not shown."""

import pytest
import torch

from metaduel.envs.core import noise
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import View, make_game
from metaduel.envs.core.registry import specs
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.tasks import generate
from metaduel.envs.players.scripted import scripted

ROWS, STEPS = 64, 24
# Reads payoffs, but only for the sign of its own last reward, which every player receives.
REWARD_ALONE = "win_stay_lose_shift"


def actions(duel, seat, player, params, others):
    """What a player does on given states: those of ``params``, looked at with the contexts ``others``."""
    key = torch.arange(ROWS)
    rows = duel.reset(params, key, torch.zeros_like(key))
    memory, done = torch.zeros(ROWS, player.memory), []
    for _ in range(STEPS):
        numbers = noise.uniform(rows.key, rows.step, noise.SEAT[seat], player.noise)
        view = View(others, rows.state, duel.observe(rows)[seat], rows.step)
        action, memory = player.act(view, memory, numbers)
        done.append(action)
        moves = [spec_action(duel, role, rows) for role in ROLES]
        rows, _ = duel.step(rows, (moves[0], moves[1]))
    return torch.stack(done)


def spec_action(duel, role, rows):
    space = duel.action_space(role)
    u = noise.uniform(rows.key, rows.step, noise.PICK, 2)
    return (u[:, 0] * int(space.n)).long() if hasattr(space, "n") else u * 2 - 1


@pytest.mark.parametrize("spec", specs().values(), ids=lambda spec: spec.name)
def test_blind_players_do_not_read_hidden_contexts(spec):
    duel = Duel(make_game(spec))
    params = duel.game.params(generate(spec, "train", ROWS, seed=1))
    fresh = duel.game.params(generate(spec, "train", ROWS, seed=2))
    for seat, role in enumerate(ROLES):
        hidden = {c.name: getattr(fresh, c.name) for c in spec.contexts if role not in c.visible_to}
        others = params._replace(**hidden)
        for name, player in scripted(spec, role).items():
            same = torch.equal(actions(duel, seat, player, params, params), actions(duel, seat, player, params, others))
            if name != REWARD_ALONE:
                assert same == (not player.informed), f"{role} {name}"
