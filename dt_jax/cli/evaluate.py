"""Evaluate a trained run: python -m dt_jax evaluate runs/hopper --episodes=50."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from dt_jax.analysis.experiments import data_label
from dt_jax.analysis.tables import evaluation_table
from dt_jax.cli.common import CommandParser
from dt_jax.config.keys import DEVICE
from dt_jax.evaluation.evaluate import LoadedRun, load_run
from dt_jax.utils.backend import start_backend

# Keys of the run's configuration, and the flags that change them.
ENV_FLAGS = {"env_kwargs": "--env_kwargs", "max_envs": "--max_envs"}
_FLAGS = {
    **ENV_FLAGS,
    "target_returns": "--target_returns",
    "eval_episodes": "--episodes",
    "eval_seed": "--seed",
    "env_backend": "--env_backend",
    "reference_scores": "--reference_scores",
}


def main(arguments: Sequence[str]) -> None:
    """Play the episodes that the command line asks for, and print a table."""
    args = _parser().parse_args(arguments)
    run = load_for_command(args, _FLAGS)
    record = run.trained.record
    before = record["config"]
    same = run.config.env_name == before["env_name"]
    scored_as = run.config.env_name if same else run.spec.label
    imported = "imported_from" in record["dataset"]
    trained = "imported" if imported else f"after {record['step']} updates"
    title = (
        f"{data_label(before, record['dataset'], scored_as)}, {args.checkpoint} "
        f"checkpoint of {args.workdir}, {trained}"
    )
    Console().print(evaluation_table(run.play(), title).rich())


def load_for_command(args: Namespace, flags: Mapping[str, str]) -> LoadedRun:
    """Return the run that a command line names, on the device that it names.

    Args:
      args: those of `add_run_flags`, and the texts that `flags` name.
      flags: keys of the run's configuration, and the flags that change them.
    """
    # Not the run's device: it may have been trained on another machine.
    device = DEVICE.parse(args.device, "--device")
    start_backend(device, deterministic=False)
    changes = {key: getattr(args, key) for key in flags}
    flags = {**flags, "env_name": "--env_name"}
    return load_run(args.workdir, args.checkpoint, args.env_name, changes, flags)


def _parser() -> CommandParser:
    parser = CommandParser(
        command="evaluate",
        description="Evaluate a checkpoint of a run. What is not given is as in the "
        "run's configuration.",
        example="runs/hopper --target_returns=3600,1800",
    )
    add_run_flags(parser)
    parser.add_argument("--target_returns", help="such as 3600,1800")
    parser.add_argument(
        "--episodes", dest="eval_episodes", help="for each target return"
    )
    parser.add_argument(
        "--seed", dest="eval_seed", help="from which each episode gets its own"
    )
    parser.add_argument("--env_backend", help="auto, or gym: the installed gym")
    parser.add_argument(
        "--reference_scores", help="returns that score 0 and 100, such as 20,3200"
    )
    return parser


def add_run_flags(parser: CommandParser) -> None:
    """Add the flags that select a run, its checkpoint, environment and device."""
    parser.add_argument("workdir", type=Path, help="the run's folder")
    parser.add_argument("--env_name", help="another environment than the run's")
    parser.add_argument(
        "--env_kwargs", help="its arguments for gymnasium.make: {'gravity': 9.8}"
    )
    parser.add_argument(
        "--max_envs", help="most environments at once; 1: one episode after the other"
    )
    parser.add_argument(
        "--checkpoint", default="last", help="last (the default), best or a step"
    )
    parser.add_argument(
        "--device", default="auto", help="auto (the default), cpu, gpu or tpu"
    )
