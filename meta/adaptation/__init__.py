"""How a player changes within a task, and how that is differentiated."""
