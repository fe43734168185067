"""The gradient-based learners against hand-worked quadratics, and the contract of every learner: the same numbers again."""

import gymnasium
import numpy as np
import pytest
import torch

from metaduel.agents.policies.module import ModulePolicy
from metaduel.agents.rollout import Learner, Seated, Sitting, rollout
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find
from metaduel.envs.players.names import load_player
from metaduel.envs.players.play import play
from metaduel.meta.adaptation.inner import step_sizes
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.problems.problem import Losses
from metaduel.meta.runs.agent import AgentPlayer
from metaduel.meta.runs.checkpoint import load_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner, train
from metaduel.meta.runs.trainer import LAST

ROLES = ("protagonist", "adversary")
TINY = TrainConfig(game="Navigation").override(
    iterations=3, tasks=4, episodes=2, horizon=5, steps=2, hidden=(4,), validate_every=1, validation_tasks=2
)
CURVATURE = {"body": 0.8, "head": 2.0}
MINIMA = {  # of three tasks
    "body": torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64),
    "head": torch.tensor([0.5, 0.0, -1.5], dtype=torch.float64),
}
START = {"body": 3.0, "head": -1.0}
RATE = 0.3


class Quadratic:
    """L(body, head) = sum of h / 2 (w - c_i)^2 over the two weights: support and query alike, the same at every shot."""

    tasks = dict.fromkeys(ROLES[:1], 3)
    environment_steps = 0

    def draw(self, players, shot):
        return self

    def losses(self, players, joint=False):
        weights = players["protagonist"]
        terms = [h / 2 * (weights[name][:, 0] - MINIMA[name]) ** 2 for name, h in CURVATURE.items()]
        loss = {"protagonist": terms[0] + terms[1]}
        return Losses(loss, loss)


def made(method, **settings):
    config = METHODS[method].configure(METHODS[method].settings(inner_lr=RATE, **settings))
    start = {"protagonist": {name: torch.tensor([value], dtype=torch.float64) for name, value in START.items()}}
    return METHODS[method].learner(start, config, {"protagonist": ("head",)})


def gradient(learner):
    weights, rates = learner.gradients(Quadratic())["protagonist"]
    return {name: float(value) for name, value in weights.items()}, rates


def shrink(name, steps, rate=RATE):
    """The factor by which an update multiplies w - c, to the power of the number of updates."""
    return (1 - rate * CURVATURE[name]) ** steps


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_reptile_moves_to_the_adapted_weights(steps):
    # w_K - c = (1 - a h)^K (w - c), so w - w_K = (1 - (1 - a h)^K) (w - c), whose mean over tasks has the mean of c.
    ours, rates = gradient(made("reptile", steps=steps))
    for name, value in ours.items():
        assert value == pytest.approx((1 - shrink(name, steps)) * (START[name] - float(MINIMA[name].mean())), rel=1e-12)
    assert not rates.any()


def test_reptiles_rate_may_shrink_from_update_to_update():
    # Rates a and a / 2: w_2 - c = (1 - a h / 2) (1 - a h) (w - c).
    ours, _ = gradient(learner := made("reptile", steps=2, inner_decay=0.5))
    for name, value in ours.items():
        left = shrink(name, 1, RATE / 2) * shrink(name, 1)
        assert value == pytest.approx((1 - left) * (START[name] - float(MINIMA[name].mean())), rel=1e-6)
    assert learner.rates("protagonist")[:, 0].tolist() == pytest.approx([RATE, RATE / 2])


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("method", ["maml", "fomaml", "anil", "meta_sgd"])
def test_gradients_equal_those_of_the_loss_after_adaptation(method, steps):
    # Query loss h / 2 (w_K - c)^2 with w_K - c = s^K (w - c), s = 1 - a h: second order h s^(2K) (w - c), first order
    # h s^K (w - c). A weight that does not adapt has s = 1.
    ours, rates = gradient(made(method, steps=steps, outer_shots="last"))
    for i, (name, value) in enumerate(ours.items()):
        adapts = method != "anil" or name == "head"
        rate = RATE if adapts else 0.0
        gap = START[name] - MINIMA[name]
        power = steps if method == "fomaml" else 2 * steps
        assert value == pytest.approx(float((CURVATURE[name] * shrink(name, power, rate) * gap).mean()), rel=1e-12)
        # d / d log a_K: -a h s^(K-1) (w - c) . h s^K (w - c).
        last = -rate * CURVATURE[name] ** 2 * shrink(name, 2 * steps - 1, rate) * (gap**2).mean()
        assert float(rates[-1, i]) == pytest.approx(float(last), rel=1e-12, abs=1e-15)


def test_anil_leaves_the_body_alone_and_says_so_in_its_rates():
    learner = made("anil", steps=2)
    assert learner.rates("protagonist").tolist() == [[0.0, pytest.approx(RATE)]] * 2
    per_number = made("anil", steps=1, inner_lr_per="number").rates("protagonist")
    assert per_number.tolist() == [[0.0, pytest.approx(RATE)]]


def test_meta_sgd_has_a_rate_for_every_number():
    start = {"protagonist": {"w": torch.zeros(3, 2), "b": torch.zeros(2)}}
    learner = MAML(start, METHODS["meta_sgd"].configure(MAMLConfig(steps=2)))
    assert learner.rates("protagonist").shape == (2, 8)
    stacked = {"w": torch.zeros(5, 3, 2), "b": torch.zeros(5, 2)}
    sizes = step_sizes(torch.arange(8.0), stacked)
    assert sizes[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert sizes[1].tolist() == [6, 7]
    with pytest.raises(InvalidInputError, match=r"3 step sizes: must be 1, 2 \(weight tensors\) or 8"):
        step_sizes(torch.ones(3), stacked)


def test_a_rate_per_step_is_one_number():
    assert made("maml", steps=3, inner_lr_per="step").rates("protagonist").shape == (3, 1)


@pytest.mark.parametrize("method", METHODS)
def test_every_learner_gives_the_same_numbers_again_and_interrupted(method, tmp_path, monkeypatch):
    config = TINY.override(method=method)
    train(config, tmp_path / "one", quiet=True)
    original = DuelSource.problem

    def problem(self, iteration):
        if iteration == 2:
            raise KeyboardInterrupt
        return original(self, iteration)

    monkeypatch.setattr(DuelSource, "problem", problem)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "two", quiet=True)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "two" / LAST)[1]["iteration"] == 2
    train(config, tmp_path / "two", resume=True, quiet=True)
    one, two = (load_checkpoint(tmp_path / name / LAST)[0] for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_rarl_moves_one_player_at_a_time():
    settings = {"protagonist_turns": 2, "adversary_turns": 1}
    config = TINY.override(method="rarl", **settings)
    source = DuelSource(config)
    learner = make_learner(config, source)
    for turn in ("protagonist", "protagonist", "adversary", "protagonist"):
        before = {role: {n: v.detach().clone() for n, v in weights.items()} for role, weights in learner.start.items()}
        learner.update(source.problem(0))
        for role, weights in learner.start.items():
            moved = any(not torch.equal(value, before[role][name]) for name, value in weights.items())
            assert moved == (role == turn)
    again = make_learner(config, source)
    again.load(learner.state())
    assert again.turn == learner.turn == "protagonist"


def test_rarl_takes_the_step_of_joint_training(monkeypatch):
    # The first step of the protagonist: Adam's, from the same gradient.
    source = DuelSource(TINY.override(method="joint"))
    joint, rarl = (make_learner(TINY.override(method=name), source) for name in ("joint", "rarl"))
    gradients = joint.gradients(source.problem(0))["protagonist"][0]
    ours = {}
    monkeypatch.setattr(rarl.starts, "step", lambda role, gradient, lr_scale: ours.update({role: gradient}) or {})
    rarl.update(source.problem(0))
    assert list(ours) == ["protagonist"]
    assert all(torch.equal(value, gradients[name]) for name, value in ours["protagonist"].items())


@pytest.mark.parametrize(
    "method", [name for name in METHODS if METHODS[name].configure(METHODS[name].settings()).steps]
)
def test_every_adapting_learner_adapts_a_loaded_player(method, tmp_path):
    train(TINY.override(method=method, iterations=1), tmp_path / "run", quiet=True)
    player = load(tmp_path / "run").protagonist
    env = gymnasium.make("metaduel/Navigation-v0", opponent="idle", task="held_out:0", horizon=5)
    adapted = player.adapt(env, shots=1, episodes=2)
    changed = {name for name, value in adapted.weights.items() if not torch.equal(value, player.weights[name])}
    if METHODS[method].memory is not None:
        assert not changed
        before = player.begin(1).memory
        assert not torch.equal(adapted.carry.memory, before)
        assert torch.equal(adapted.begin(3).memory, adapted.carry.memory.expand(1, 3, -1))
        assert player.carry is None  # it is left as it was
        return
    assert changed <= ({"layer1.weight", "layer1.bias", "log_std"} if method == "anil" else set(player.weights))
    assert "layer1.weight" in changed


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("reptile", {"peer": True}, "peer=True: Reptile differentiates no update; use method maml"),
        ("reptile", {"inner_decay": 1.5}, "inner_decay=1.5 must be above 0 and at most 1"),
        ("reptile", {"inner_decay": 0.5, "steps": 1}, "inner_decay=0.5 has no effect with 1 update"),
        ("reptile", {"steps": 0}, "steps=0: Reptile needs at least 1 update"),
        ("rarl", {"peer": True}, "peer=True: RARL has no updates to differentiate"),
        ("rarl", {"adversary_turns": 0}, "adversary_turns=0 must be a whole number of at least 1"),
        ("rarl", {"roles": ("adversary",)}, "RARL trains both players in turn"),
        ("fomaml", {"peer": True}, "peer=True: first-order MAML differentiates no update"),
        ("rl2", {"exact_discount": True}, "exact_discount=True: method rl2 has no use for it"),
        ("latent", {"inner_clip": 2.0}, "inner_clip=2.0: method latent has no use for it"),
        ("rl2", {"surrogate": "dice"}, "surrogate='dice': method rl2 needs 'lvc'"),
        ("rl2", {"adapts": "head"}, "adapts='head': no weight adapts, a memory does"),
        ("rl2", {"steps": 0}, "steps=0: must be at least 1, or there is nothing to remember"),
        ("meta_sgd", {"learn_inner_lr": False}, "learn_inner_lr=False: learned step sizes are what Meta-SGD is"),
    ],
)
def test_settings_that_contradict_the_method_are_refused_at_once(method, settings, message, tmp_path):
    with pytest.raises(InvalidInputError) as error:
        train(TrainConfig(game="Navigation").override(method=method, **settings), tmp_path / "run", quiet=True)
    assert not list(tmp_path.iterdir())
    assert message in str(error.value)


def test_anil_without_a_head_is_refused():
    policy = ModulePolicy(lambda: torch.nn.Linear(2, 2), 2, find("Navigation").action_spaces["protagonist"])
    assert policy.head_names == ()
    with pytest.raises(InvalidInputError, match="the protagonist's policy has no head of its own; use method maml"):
        MAML(
            {"protagonist": policy.init(0)}, METHODS["anil"].configure(MAMLConfig()), {"protagonist": policy.head_names}
        )


@pytest.mark.parametrize("settings", [{"method": "rl2"}, {"method": "latent"}, {"network": "gru"}, {"network": "lstm"}])
def test_a_player_with_a_memory_is_the_same_in_every_place(settings, tmp_path):
    train(TINY.override(iterations=2, hidden=(6,), horizon=0, **settings), tmp_path / "run", quiet=True)
    run = load(tmp_path / "run")
    agent, duel = run.protagonist, run.duel
    weights = {name: value.unsqueeze(0) for name, value in agent.weights.items()}
    params, zeros = duel.game.params([{}] * 2), torch.zeros(2, dtype=torch.int64)
    idle = load_player(duel, "adversary", "idle")

    def learner(deterministic):
        seats = (
            [Sitting(slice(0, 2), Learner(agent.policy, weights, deterministic))],
            [Sitting(slice(0, 2), Seated(idle))],
        )
        return rollout(duel, params, seats, 1, torch.arange(2), zeros)[0]

    # In a seat: the same noise, so the same actions.
    seated = play(duel, (AgentPlayer(agent), idle), params, torch.arange(2), zeros)
    torch.testing.assert_close(seated.returns[:, 0], learner(False).returns.flatten(), atol=1e-3, rtol=1e-4)
    # Through predict, with its rewards from remember.
    data, state = learner(True), None
    for step in range(data.reward.shape[1]):
        seen = data.observation[0, step, :, : agent.policy.observation_size].numpy()
        action, state = agent.predict(seen, state, np.full(2, step == 0), deterministic=True)
        torch.testing.assert_close(
            torch.as_tensor(action), agent.policy.clip(data.action[0, step]), atol=1e-4, rtol=1e-4
        )
        with pytest.raises(InvalidInputError, match="this player remembers its rewards"):
            agent.predict(seen, state, deterministic=True)
        state = agent.remember(state, data.reward[0, step].numpy())


def test_states_and_observations_have_the_same_rows(tmp_path):
    agent = train(TINY.override(iterations=1, hidden=(6,), method="rl2"), tmp_path / "run", quiet=True).protagonist
    _, state = agent.predict(np.zeros((1, 2)))
    with pytest.raises(InvalidInputError, match="state has 1 rows, the observation 3"):
        agent.predict(np.zeros((3, 2)), agent.remember(state, 0.0))
    with pytest.raises(InvalidInputError, match="episode_start has 1 rows, the observation 3"):
        agent.predict(np.zeros((3, 2)), None, [True])


def test_a_player_with_a_memory_is_an_opponent(tmp_path):
    train(TINY.override(iterations=1, hidden=(6,), method="rl2"), tmp_path / "run", quiet=True)
    env = gymnasium.make("metaduel/Navigation-v0", seat="adversary", opponent=f"run:{tmp_path / 'run'}", horizon=5)
    env.reset(seed=0)
    first = [env.step(env.action_space.sample() * 0)[0] for _ in range(5)]
    env.reset(seed=0)
    assert all(np.array_equal(seen, env.step(env.action_space.sample() * 0)[0]) for seen in first)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_every_shot_may_count_the_start_among_them(steps):
    # The mean over k = 0..K of h s^2k (w - c), see above.
    ours, _ = gradient(made("maml", steps=steps, outer_shots="every"))
    for name, value in ours.items():
        factors = [shrink(name, 2 * k) for k in range(steps + 1)]
        gap = START[name] - float(MINIMA[name].mean())
        assert value == pytest.approx(CURVATURE[name] * sum(factors) / (steps + 1) * gap, rel=1e-12)
