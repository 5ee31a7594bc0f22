"""Networks in Flax Linen."""
