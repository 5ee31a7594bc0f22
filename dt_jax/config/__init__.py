"""Configuration: keys, files, flags and validation."""
