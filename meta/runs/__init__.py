"""Training runs: settings, sources of tasks, the trainer, and what a run folder gives back."""
