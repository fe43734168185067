"""Policy-gradient learners in PyTorch, and anything else that can take a seat."""
