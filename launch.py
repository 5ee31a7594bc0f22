"""Train and evaluate a Decision Transformer: python launch.py --help."""

from dt_jax.errors import exit_with_one_line
from dt_jax.launch import main

if __name__ == "__main__":
    exit_with_one_line(main)
