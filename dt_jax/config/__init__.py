"""Configuration: keys, files, flags and validation."""

from dt_jax.config.load import check_dataset, default_config, load_config, validate

__all__ = ["check_dataset", "default_config", "load_config", "validate"]
