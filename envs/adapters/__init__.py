"""One core, every interface: Gymnasium, native vector, PettingZoo, Stable-Baselines3."""
