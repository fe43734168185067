"""Policies on stacked weights."""
