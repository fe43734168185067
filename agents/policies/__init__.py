"""Policies on stacked weights."""

from metaduel.envs.core.lazy import moved

__getattr__ = moved(
    __name__,
    {
        "ActionSpace": "metaduel.agents.policies.base.ActionSpace",
        "ILLEGAL": "metaduel.agents.policies.base.ILLEGAL",
        "MIN_LOG_STD": "metaduel.agents.policies.base.MIN_LOG_STD",
        "MIN_STD": "metaduel.agents.policies.base.MIN_STD",
        "MLPPolicy": "metaduel.agents.MLPPolicy",
        "ModulePolicy": "metaduel.agents.ModulePolicy",
        "Policy": "metaduel.agents.Policy",
        "Weights": "metaduel.agents.Weights",
        "stack": "metaduel.agents.stack",
    },
)
