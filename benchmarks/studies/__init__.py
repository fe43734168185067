"""Published experiments and our own, a file or a folder each."""
