"""Learning problems: batches of tasks that give each player its losses."""
