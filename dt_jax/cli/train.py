"""Train an agent, or resume a run: python -m dt_jax train --help."""

from collections.abc import Sequence
from contextlib import nullcontext


def main(arguments: Sequence[str]) -> None:
    """Train as the command line says."""
    # Imported here, where Ctrl-C is handled: these imports take a second or two.
    from dt_jax.config.flags import parse
    from dt_jax.utils.backend import start_backend
    from dt_jax.utils.distributed import joined
    from dt_jax.utils.signals import end_with_parent

    end_with_parent()
    request = parse(arguments)
    with joined() if request.distributed else nullcontext():
        start_backend(request.config.device, request.config.deterministic)
        # Imported only now, so that a mistake on the command line is reported sooner.
        if request.dry_run:
            from dt_jax.training.dry_run import dry_run

            dry_run(request.config, request.workdir)
        else:
            from dt_jax.training.train import train

            train(request.config, request.workdir)
