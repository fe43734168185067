"""Every gradient-based learner estimates its declared gradient, and docs/learners.md holds the program's results."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metaduel.benchmarks.tools.enumerated import AllBatches, AllTrajectories
from metaduel.benchmarks.tools.proofs import page as learners
from metaduel.benchmarks.tools.proofs import tables
from metaduel.benchmarks.tools.proofs.cases import RATE, STEPS, Case, cases, gradient_based
from metaduel.benchmarks.tools.proofs.chains import chain_cases, chain_error
from metaduel.benchmarks.tools.proofs.gradients import BOUND, Gradient, declared, error, relative, shipped
from metaduel.benchmarks.tools.proofs.sampled import FEW, MANY, sampled
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.adaptation import pieces
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.problems import chains

ROLES = ("protagonist", "adversary")
PAGE = Path(__file__).parents[2] / "docs" / "learners.md"
ERROR = re.compile(r"\b\de[-+]\d\d\b")
OWN = Case("maml", "dice")


@pytest.mark.parametrize("case", cases(), ids=lambda case: "-".join(case.labels))
def test_every_learner_estimates_what_it_declares(case):
    for steps in STEPS if case.updates else (0,):
        ours, exact = shipped(case, steps), declared(case, steps)
        assert ours.keys() == exact.keys() == set(ROLES)
        for role in ROLES:
            assert error(ours[role], exact[role]) < BOUND
            assert exact[role].start.norm() > 1e-3


@pytest.mark.parametrize("case", chain_cases(), ids=lambda case: "-".join(case.labels))
def test_losses_on_chains_have_the_gradients_of_finite_differences(case):
    assert max(chain_error(case, role) for role in ROLES) < BOUND


def test_a_wrong_gradient_on_chains_is_noticed(monkeypatch):
    def halved(*arguments):
        return 0.5 * loss(*arguments) + 0.5 * loss(*arguments).detach()

    loss = chains.ppo_loss
    monkeypatch.setattr(chains, "ppo_loss", halved)
    assert chain_error(chain_cases()[0], "protagonist") > 0.1


def test_every_method_that_remembers_is_among_them():
    assert {case.method for case in chain_cases()} == {name for name, own in METHODS.items() if own.memory is not None}


def test_every_gradient_based_method_is_among_them():
    proven = {case.method for case in cases()}
    assert {name for name, method in METHODS.items() if gradient_based(method)} <= proven
    assert {"maml", "fomaml", "anil", "meta_sgd", "e_maml", "promp", "reptile", "maml_trpo", "joint"} <= proven
    assert {"meta_pg", "meta_mapg", "lola_dice"} <= proven
    assert ("maml", "dice", "total") in {case.labels for case in cases()}


def test_a_wrong_update_is_noticed(monkeypatch):
    # Updates as constants where they should be differentiated.
    def first_order(problem, players, rates, steps, through, *rest):
        return unroll(problem, players, rates, steps, replace(through, second_order=False), *rest)

    unroll = pieces.unroll
    monkeypatch.setattr(pieces, "unroll", first_order)
    assert error(shipped(OWN, 1)["protagonist"], declared(OWN, 1)["protagonist"]) > 0.01


def test_errors_by_hand():
    one, two = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    assert relative(two, one) == pytest.approx(0.1)
    assert relative(one, one) == relative(0 * one, 0 * one) == 0.0
    assert relative(one, 0 * one) == float("inf")
    nothing = torch.zeros(1)
    assert error(Gradient(one, nothing), Gradient(one, one[:1])) == pytest.approx(1.0)


def test_a_listed_game_draws_nothing():
    for game in (AllTrajectories(), AllBatches(1, 1)):
        with pytest.raises(InvalidInputError, match="everything that can happen is in it already"):
            game.draw({}, 0).replay(0.3)
        with pytest.raises(InvalidInputError, match="everything that can happen"):
            game.without("protagonist", [0])
    with pytest.raises(InvalidInputError, match="everything that can happen"):
        AllTrajectories().draw({}, 0).costs()


# One batch of 100,000 episodes per update: its estimate is right within what chance makes of it.
@pytest.mark.parametrize(
    ("case", "steps"),
    [
        (OWN, 1),
        (OWN, 2),
        (OWN, 3),
        (Case("maml", "dice", {"peer": True}), 1),
        (Case("maml", "lvc"), 2),
        (Case("lola_dice", "dice"), 1),
    ],
    ids=lambda value: "-".join(value.labels) if isinstance(value, Case) else str(value),
)
def test_sampled_gradients_are_right_with_large_batches(case, steps):
    found = sampled(case, steps, MANY)
    assert found.z < 4
    assert found.error < 0.02  # else it would prove little


def test_small_batches_are_biased():
    assert sampled(OWN, 1, FEW, 2000).z > 10
    few = sampled(OWN, 1, FEW, 2000, baseline=False)
    assert 0 < few.bias < sampled(OWN, 1, FEW, 2000).bias


def test_standard_errors_of_one_batch_are_those_of_repeats():
    one, many = sampled(OWN, 1, 2000), sampled(OWN, 1, 2000, repeats=100)
    assert one.error == pytest.approx(10 * many.error, rel=0.2)


def test_what_the_page_says_of_the_biases_holds():
    for steps in STEPS:
        for rate in (RATE / 10, RATE):

            def off(case, peer=False, rate=rate, steps=steps):
                exact = declared(Case("maml", "dice", {"peer": peer}), steps, rate)
                ours = declared(case, steps, rate)
                return max(relative(ours[role].start, exact[role].start) for role in ROLES)

            assert off(Case("maml", "plain")) > off(Case("fomaml", "lvc"))
            assert off(Case("maml", "lvc")) > off(Case("maml", "lvc"), rate=rate / 10)
            # Total with LVC is about as far off as own learning alone, and with the plain loss no different from it.
            assert off(Case("maml", "lvc", {"peer": True}), peer=True) > 0.9 * off(OWN, peer=True)
            total, own = (declared(Case("maml", "plain", {"peer": peer}), steps, rate) for peer in (True, False))
            assert all(relative(total[role].start, own[role].start) < 1e-9 for role in ROLES)


def test_memory_grows_with_updates_that_are_kept():
    sheet = tables.memory_sheet((2, 4, 8))
    kept, again, _ = ([int(size) for size in row[1:]] for row in sheet.rows)
    assert kept[2] - kept[1] == pytest.approx(2 * (kept[1] - kept[0]), rel=0.05)
    assert again[2] < 1.1 * again[0]


def test_the_committed_page_is_what_the_program_writes():
    page = PAGE.read_text()
    assert [line for line in page.splitlines() if line.startswith("### ")][: len(METHODS)] == [
        f"### {name}" for name in METHODS
    ]
    errors = [float(found) for found in ERROR.findall(page)]
    assert len(errors) == sum(2 * (len(STEPS) if case.updates else 1) for case in cases()) + 2 * len(chain_cases())
    assert max(errors) < BOUND
    before, _, rest = page.partition("### Small batches")
    small, _, _ = rest.partition("### Memory")
    assert re.search(r"\| joint \| 0 \| fitted \| 20 \|", small)
    ours = learners.page([tables.proof_sheet(), tables.chain_sheet(), tables.bias_sheet()])
    again = "run metaduel proofs"
    assert ERROR.sub("error", before).strip() == ERROR.sub("error", ours).strip(), again
