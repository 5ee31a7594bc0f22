"""Datasets by name or path: load, download, describe; demo datasets in `demo`."""

from dt_jax.datasets.describe import describe_dataset
from dt_jax.datasets.load import (
    Dataset,
    cached_path,
    find_dataset,
    is_cached,
    load_dataset,
    read_dataset,
)

__all__ = [
    "Dataset",
    "cached_path",
    "describe_dataset",
    "find_dataset",
    "is_cached",
    "load_dataset",
    "read_dataset",
]
