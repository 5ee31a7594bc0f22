"""Evaluation of trained agents, and the policy for use in any loop."""
