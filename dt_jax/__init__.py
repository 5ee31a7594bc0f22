"""The Decision Transformer for offline reinforcement learning, in JAX."""
