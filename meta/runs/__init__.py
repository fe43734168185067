"""Training runs: settings, sources of tasks, the trainer, and loading of run folders."""
