"""What is learned on: batches of tasks that give each player its losses."""
