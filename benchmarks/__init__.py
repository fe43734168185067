"""Few-shot evaluation on held-out tasks and opponents, with honest statistics."""
