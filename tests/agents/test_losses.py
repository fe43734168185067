import pytest
import torch

from metaduel.agents.objective.losses import SURROGATES, policy_gradient_loss


def tensor(*values):
    """One task, one episode: [1, T, 1]."""
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1)


# Two steps, log-probabilities l0 and l1, advantages 3 and 5; the loss is divided by the horizon of 2.
ADVANTAGE, ALIVE = tensor(3, 5), tensor(1, 1)


def derivatives(kind, alive=ALIVE):
    """Loss, gradient and Hessian with respect to (l0, l1) at (-0.5, -2)."""

    def loss(flat):
        return policy_gradient_loss(flat.view(1, 2, 1), ADVANTAGE, alive, kind, 2)[0]

    point = torch.tensor([-0.5, -2.0], dtype=torch.float64)
    return (
        float(loss(point)),
        torch.autograd.functional.jacobian(loss, point).tolist(),
        torch.autograd.functional.hessian(loss, point).tolist(),
    )


def test_plain_by_hand():
    # -(3 * -0.5 + 5 * -2) / 2 = 5.75; linear in log-probabilities
    assert derivatives("plain") == (5.75, [-1.5, -2.5], [[0.0, 0.0], [0.0, 0.0]])


def test_lvc_by_hand():
    # Ratios are 1: -(3 + 5) / 2 = -4; d2/dl_t^2 = -A_t / 2, no cross terms
    assert derivatives("lvc") == (-4.0, [-1.5, -2.5], [[-1.5, 0.0], [0.0, -2.5]])


def test_dice_by_hand():
    # sum_t (box(<=t) - box(<t)) A_t is 0 at the point. With box(<=0) = r0, box(<=1) = r0 r1, r = exp(l - stop(l)):
    # (r0 - 1) 3 + (r0 r1 - r0) 5: d/dl0 = 3 + (1 - 1) 5 = 3, d/dl1 = 5; d2/dl0^2 = 3 + 0, d2/dl0dl1 = 5, d2/dl1^2 = 5
    value, gradient, hessian = derivatives("dice")
    assert value == 0.0
    assert gradient == [-1.5, -2.5]
    assert hessian == [[-1.5, -2.5], [-2.5, -2.5]]


@pytest.mark.parametrize("kind", SURROGATES)
def test_steps_that_were_not_played_do_not_count(kind):
    _, gradient, hessian = derivatives(kind, tensor(1, 0))
    assert gradient == [-1.5, 0.0]
    assert hessian[0][1] == hessian[1][0] == hessian[1][1] == 0.0


@pytest.mark.parametrize("kind", SURROGATES)
def test_episodes_are_averaged_tasks_kept_apart_and_weights_used(kind):
    generator = torch.Generator().manual_seed(0)
    log_prob, advantage = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    alive = torch.ones_like(log_prob)
    together = policy_gradient_loss(log_prob, advantage, alive, kind, 4)
    assert together.shape == (3,)
    for n in range(3):
        parts = [
            policy_gradient_loss(*(x[n : n + 1, :, e : e + 1] for x in (log_prob, advantage, alive)), kind, 4)
            for e in range(5)
        ]
        assert torch.allclose(torch.stack(parts).mean(), together[n])
    weight = torch.softmax(torch.randn(3, 5, generator=generator, dtype=torch.float64), -1)
    weighted = policy_gradient_loss(log_prob, advantage, alive, kind, 4, weight)
    parts = [policy_gradient_loss(log_prob[..., [e]], advantage[..., [e]], alive[..., [e]], kind, 4) for e in range(5)]
    assert torch.allclose(weighted, (torch.stack(parts, 1) * weight).sum(1))
    even = policy_gradient_loss(log_prob, advantage, alive, kind, 4, torch.full((3, 5), 0.2, dtype=torch.float64))
    assert torch.allclose(even, together)


def test_a_good_action_becomes_likelier():
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    log_prob = torch.log_softmax(logits, -1)[1].view(1, 1, 1)
    for kind in SURROGATES:
        loss = policy_gradient_loss(log_prob, tensor(2), tensor(1), kind, 1).sum()
        slope = torch.autograd.grad(loss, logits, retain_graph=True)[0]
        # Minus advantage times (one-hot - probability): -2 * (-1/3, 2/3, -1/3)
        assert torch.allclose(slope, torch.tensor([2 / 3, -4 / 3, 2 / 3], dtype=torch.float64))
