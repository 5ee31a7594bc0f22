"""What there is to run: python -m dt_jax."""

from dt_jax import __version__
from dt_jax.errors import OneLineParser, exit_with_one_line

_COMMANDS = {
    "launch": "train a Decision Transformer",
    "sweep": "train many, one after the other",
    "evaluate": "play episodes with what a run has trained",
    "report": "put runs on a page, beside published scores",
    "video": "film episodes",
    "export": "write a run for other programs, or read theirs",
    "data": "list, describe, fetch and clear datasets",
    "collect": "make a demo dataset",
    "envs.replay": "hold the physics against a recording",
}


def main() -> None:
    """Print the commands."""
    commands = "\n".join(
        f"  python -m dt_jax.{name:<12} {does}" for name, does in _COMMANDS.items()
    )
    parser = OneLineParser(
        prog="python -m dt_jax",
        description="The Decision Transformer for offline reinforcement learning.",
        epilog=f"example: python -m dt_jax --version\n\ncommands:\n{commands}",
    )
    parser.add_argument("--version", action="version", version=f"dt_jax {__version__}")
    parser.parse_args()
    parser.print_help()


if __name__ == "__main__":
    exit_with_one_line(main)
