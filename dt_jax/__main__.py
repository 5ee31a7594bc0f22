"""python -m dt_jax <command>."""

from dt_jax.cli.main import main

if __name__ == "__main__":
    main()
