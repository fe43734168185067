"""Published experiments and our own, one file each."""
