"""Datasets as NumPy arrays: files, trajectories and the batches drawn from them."""
