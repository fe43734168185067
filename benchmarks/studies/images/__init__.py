"""Images by class, to draw few-shot tasks from."""
