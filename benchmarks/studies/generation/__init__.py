"""Few-shot generation: a generator and a discriminator that adapt to a distribution that was never seen, from a few samples."""
