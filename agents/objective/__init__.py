"""From trajectories to a loss."""
