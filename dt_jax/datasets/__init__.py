"""Datasets by name or path: load, download, describe, and the demo datasets."""
