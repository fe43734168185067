"""Adapting as one protocol, and the adapters that are no meta-learner of ours."""
