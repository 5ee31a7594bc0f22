"""Agents: one file a variant, each with its loss, its update and its act."""
