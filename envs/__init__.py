"""The task distribution: parameterised two-player games, their tasks, opponents and adapters."""
