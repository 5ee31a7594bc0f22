"""Train and evaluate a Decision Transformer: python -m dt_jax.launch --help."""

import sys
from contextlib import nullcontext

from dt_jax.errors import exit_with_one_line


def main() -> None:
    """Run what the command line asks for."""
    # Here, where a Ctrl-C is answered in one line: they take a second or two.
    from dt_jax.config import prepare_backend
    from dt_jax.flags import parse
    from dt_jax.processes import joined

    asked = parse(sys.argv)
    with joined() if asked.distributed else nullcontext():
        prepare_backend(asked.config)
        # Only now: a mistake on the command line is told before more is imported.
        if asked.dry_run:
            from dt_jax.dry_run import dry_run

            dry_run(asked.config, asked.workdir)
        else:
            from dt_jax.train import train_and_evaluate

            train_and_evaluate(asked.config, asked.workdir)


if __name__ == "__main__":
    exit_with_one_line(main)
