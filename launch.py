"""Train an agent: `python launch.py ...` is `python -m dt_jax train ...`."""

import sys

from dt_jax.cli.main import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]], "launch.py")
