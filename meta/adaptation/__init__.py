"""Updates of a player within a task, and their derivatives."""
