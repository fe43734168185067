"""Few-shot classification of images: N unseen classes, K drawings of each, a few updates."""
