"""metaduel: learning to adapt to adversaries."""
