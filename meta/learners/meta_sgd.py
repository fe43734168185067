"""Meta-SGD (Li, Zhou, Chen and Li, 2017): every number in the weights has a step size of its own, learned with the start.

    inner step   theta_i <- theta_i - a o grad L(theta_i)        (o: elementwise)
    outer loss   as MAML's, with its gradient to theta and to log a

Order: second (``second_order=False`` for the first). The paper's a may become negative; ours is learned as a logarithm, so
that an update always goes downhill. Each update of several has an a of its own.

Limits: twice the outer parameters, K + 1 times with K updates.
"""

from __future__ import annotations

from dataclasses import replace

from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.learners.maml import MAMLConfig


def configure(config: MAMLConfig) -> MAMLConfig:
    """Meta-SGD's settings.

    Raises:
        InvalidInputError: step sizes that are not learned.
    """
    if not config.learn_inner_lr:
        raise InvalidInputError("learn_inner_lr=False: learned step sizes are what Meta-SGD is; use method maml")
    return replace(config, inner_lr_per="number")
