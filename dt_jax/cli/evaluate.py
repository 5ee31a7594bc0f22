"""Evaluate a trained run: python -m dt_jax evaluate runs/hopper --episodes=50."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from rich.console import Console

from dt_jax import envs
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.analysis.summary import data_label, evaluation_table
from dt_jax.cli.common import CommandParser
from dt_jax.config.config import override, prepare_backend
from dt_jax.data.minari import PREFIX
from dt_jax.data.registry import EnvSpec
from dt_jax.evaluation.evaluator import make_evaluator
from dt_jax.evaluation.policy import restore
from dt_jax.runs.folder import read_config
from dt_jax.types import Params
from dt_jax.utils.errors import UserError

# What may be other than in the run's configuration, beside env_name: key -> flag.
_CHANGES = {
    "target_returns": "--target_returns",
    "eval_episodes": "--episodes",
    "eval_seed": "--seed",
    "env_backend": "--env_backend",
    "reference_scores": "--reference_scores",
    "device": "--device",
}


class Chosen(NamedTuple):
    """A checkpoint, and how the command line wants it played.

    Attributes:
      config: the run's, changed as the command line says.
      spec: the environment.
      agent: the run's.
      params: the checkpoint's; of a run with several seeds with a leading axis.
      record: what is kept beside them.
    """

    config: ConfigDict
    spec: EnvSpec
    agent: DecisionTransformerAgent
    params: Params
    record: dict[str, Any]


def main(arguments: Sequence[str]) -> None:
    """Play the episodes that the command line asks for, and print a table."""
    args = _parser().parse_args(arguments)
    config, spec, agent, params, record = chosen(args, _CHANGES)
    evaluator = make_evaluator(config, agent, spec)
    assert evaluator is not None  # `chosen` has seen to it
    before = record["config"]
    same = config.env_name == before["env_name"]
    scored_as = config.env_name if same else spec.label
    trained = f"after {record['step']} updates"
    if "imported_from" in record["dataset"]:
        trained = "imported"
    title = (
        f"{data_label(before, record['dataset'], scored_as)}, "
        f"{args.checkpoint} checkpoint "
        f"of {args.workdir}, {trained}"
    )
    Console().print(evaluation_table(evaluator(params), title))


def chosen(args: Namespace, changes: dict[str, str]) -> Chosen:
    """Return what the command line asks to be played, its back end started.

    Args:
      args: `workdir`, `checkpoint`, `env_name`, and what `changes` names.
      changes: the configuration's keys that `args` may have a text for, with the flags
        that give them.

    Raises:
      UserError: there is no such run, or it can't be played like that.
    """
    config = read_config(args.workdir)
    config.device = "auto"  # the run may have been trained on another machine
    env_name = args.env_name or config.env_name
    if env_name != config.env_name:
        config.reference_scores = None  # they are of the other
    for key, flag in changes.items():
        if (text := getattr(args, key)) is not None:
            override(config, key, text, flag)
    if env_name is None:
        also = "" if config.target_returns else ", and give --target_returns"
        raise UserError(f"this run has no environment: name one by --env_name{also}")
    if args.env_name is None and ":" in env_name and not env_name.startswith(PREFIX):
        raise UserError(
            f"{args.workdir} was evaluated in {env_name}, for which a package has to "
            f"be imported: if you trust it, give --env_name={env_name}"
        )
    config.env_name = env_name
    lacking = [k for k in ("eval_episodes", "target_returns") if not config[k]]
    if lacking:
        flags = " and ".join(changes[key] for key in lacking)
        raise UserError(f"nothing to play: give {flags}")
    prepare_backend(config, trains=False)

    agent, params, record = restore(args.workdir, args.checkpoint)
    spec = envs.lookup(env_name, config.env_backend, config.reference_scores)
    agent.check_sizes(spec.observation_size, spec.action_size)
    return Chosen(config, spec, agent, params, record)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m dt_jax evaluate",
        description="Evaluate a checkpoint of a run. What is not given is as the run's "
        "configuration has it.",
        epilog="example: python -m dt_jax evaluate runs/hopper "
        "--target_returns=3600,1800",
    )
    parser.add_argument("workdir", type=Path, help="the run's folder")
    parser.add_argument("--target_returns", help="such as 3600,1800")
    parser.add_argument("--episodes", dest="eval_episodes", help="for each target")
    parser.add_argument(
        "--seed", dest="eval_seed", help="from which each episode gets its own"
    )
    parser.add_argument("--env_name", help="in whose environment, by whose score")
    parser.add_argument(
        "--env_backend", help="auto, or gym: the one you have installed"
    )
    parser.add_argument(
        "--reference_scores", help="returns that score 0 and 100, such as 20,3200"
    )
    parser.add_argument(
        "--checkpoint",
        default="last",
        help="last (the default), a step, or best: chosen by these very scores, so not "
        "to be compared with another run's last",
    )
    parser.add_argument("--device", help="auto (the default), cpu, gpu or tpu")
    return parser
