"""Few-shot classification of images: N classes that were never seen, K drawings of each, a few updates."""
