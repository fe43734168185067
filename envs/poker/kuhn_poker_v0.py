"""Kuhn poker in PettingZoo's module style."""

from metaduel.envs.adapters.pettingzoo import module_style

env, parallel_env, raw_env = module_style("metaduel/KuhnPoker-v0")
