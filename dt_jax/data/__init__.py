"""Datasets as NumPy arrays: file readers, trajectories and batch sampling."""
