"""Rollouts: all episodes at once in a compiled program."""
