"""The packages that a run needs beyond the plain installation."""

from ml_collections import ConfigDict

from dt_jax.runs.aggregate import check_rliable
from dt_jax.training.loggers import check_installed


def check_packages(config: ConfigDict) -> None:
    """Raise a UserError, with what installs it, if a run would lack a package."""
    if config.num_seeds > 1:
        check_rliable()
    check_installed(config.loggers)
