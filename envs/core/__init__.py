"""What every game is made of: rules, tasks, noise, and the registry of families."""
