"""Meta-learners around both players, and the trainer."""
