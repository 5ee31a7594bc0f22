"""Train several runs in sequence: python -m dt_jax sweep hopper:medium pen:human."""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from dt_jax.cli.common import CommandParser
from dt_jax.training.sweep import expand_reference, make_queue, run_queue
from dt_jax.utils.errors import UserError


def main(arguments: Sequence[str]) -> None:
    """Train the runs of the command line; exit with 1 if one of them failed."""
    settings = [word for word in arguments if word.startswith("--config.")]
    others = [word for word in arguments if not word.startswith("--config.")]
    args = _parser().parse_intermixed_args(others)
    for setting in settings:
        if "=" not in setting and setting != "--config.deterministic":
            raise UserError(f"{setting} lacks its value: --config.KEY=VALUE")
    if args.agents is not None:
        settings.append(f"--agents={args.agents}")
    if args.num_seeds is not None:
        settings.append(f"--config.num_seeds={args.num_seeds}")
    references = [each for word in args.runs for each in expand_reference(word)]
    queue = make_queue(references, args.workdir, settings)
    if args.list:
        print("\n".join(references))
        return
    # This process only waits; the accelerators belong to the runs.
    jax.config.update("jax_platforms", "cpu")
    if not run_queue(queue):
        sys.exit(1)


def _parser() -> CommandParser:
    parser = CommandParser(
        command="sweep",
        usage="%(prog)s [--help] [--list] [--workdir WORKDIR]\n"
        "         [--num_seeds NUM_SEEDS] [--config.KEY=VALUE ...] run [run ...]",
        description="Train several runs in sequence, each in its own process and "
        "folder. A failed run does not stop the others. The same command skips "
        "completed runs and resumes the others.",
        example="hopper:medium pen --num_seeds=4",
    )
    parser.add_argument(
        "runs",
        metavar="run",
        nargs="+",
        help="family:dataset, such as hopper:medium; a family, for all its D4RL "
        "datasets; all, for all families; or your own config file, my.py or "
        "my.py:dataset",
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=Path("runs/table"),
        help="parent folder of the runs (default: %(default)s)",
    )
    parser.add_argument("--num_seeds", help="short for --config.num_seeds")
    parser.add_argument(
        "--list", action="store_true", help="print one line per run and exit"
    )
    return parser
