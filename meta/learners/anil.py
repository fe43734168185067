"""ANIL: almost no inner loop (Raghu, Raghu, Bengio and Vinyals, ICLR 2020). An update changes the head alone.

    start        theta = (body, head)
    inner step   head_i <- head_i - a_k grad_head L(body, head_i)
    outer loss   as MAML's, with its gradient to body and head

Order: second (``second_order=False`` for the first). The head is the last layer, and a Gaussian's standard deviation with it.

Limits: a body that serves all tasks must exist; a policy without a head is refused.
"""

from __future__ import annotations

from dataclasses import replace

from metaduel.meta.learners.maml import MAMLConfig


def configure(config: MAMLConfig) -> MAMLConfig:
    """ANIL's settings."""
    return replace(config, adapts="head")
