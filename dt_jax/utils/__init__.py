"""Errors, files, signals, processes and devices."""
