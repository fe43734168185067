"""How trajectories become a loss."""
