"""Export a run: python -m dt_jax export runs/hopper --to=hf --out=hopper-hf."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from dt_jax.cli.common import CommandParser
from dt_jax.data.normalizer import Normalizer
from dt_jax.evaluation.policy import TrainedAgent, load_agent
from dt_jax.interop import corl, huggingface, safetensors
from dt_jax.interop.common import RECORD, PortableAgent, new_folder
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import to_json, user_path, write_text

# Keys of the network that others do not have, with the values that theirs has.
_FIXED = {
    "timestep_embedding": True,
    "mixer": "attention",
    "attention_band": None,
    "action_tokens": True,
}
_SAVE = {"safetensors": safetensors.save, "corl": corl.save, "hf": huggingface.save}


def main(arguments: Sequence[str]) -> None:
    """Write the export and report what was written."""
    args = _parser().parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")  # nothing is computed
    out = user_path(args.out)
    trained = load_agent(args.run, args.checkpoint)
    agent = _portable_agent(trained, args.seed)
    name, step = agent.config["agent"], trained.record["step"]
    if name != "dt" and args.to != "safetensors":
        raise UserError(
            f"{args.run} is a run of the agent {name}: --to={args.to} is only for dt; "
            "choose --to=safetensors"
        )
    if agent.normalizer.discrete and args.to != "safetensors":
        raise UserError(
            f"{args.run} has discrete actions, which the network of --to={args.to} "
            "lacks: choose --to=safetensors"
        )
    other = []
    if args.to != "safetensors":
        other = [key for key, value in _FIXED.items() if agent.config[key] != value]
    if other:
        raise UserError(
            f"{args.run} has {other[0]}={agent.config[other[0]]}, which the network of "
            f"--to={args.to} lacks: choose --to=safetensors"
        )
    with new_folder(out) as temporary:
        agent = _SAVE[args.to](temporary, agent)
        units = agent.normalizer
        provenance = {k: trained.record[k] for k in ("step", "dataset", "versions")}
        record = {"config": agent.config, **units.to_record(), **provenance}
        write_text(temporary / RECORD, to_json(record, indent=2) + "\n")
    print(f"{out}: {args.run} after {step} updates, for {args.to}")
    if units.action_center.any() or (units.action_scale != 1).any():
        whose = "data's" if agent.config["env_name"] is None else "environment's"
        print(
            f"actions are in the network's units; the {whose} are action_center + "
            f"action_scale * action, see {out / RECORD}"
        )


def _portable_agent(trained: TrainedAgent, seed: int | None) -> PortableAgent:
    """Return the agent of one seed of a run; its parameters have to be finite."""
    config, step = trained.record["config"], trained.record["step"]
    first, count = config["train_seed"], config["num_seeds"]
    if count > 1 and seed is None:
        raise UserError(
            f"{trained.workdir} has {count} seeds, from {first} on: choose one by "
            "--seed=..."
        )
    params = jax.tree.map(np.asarray, trained.seed_params(seed))
    for path, array in jax.tree_util.tree_leaves_with_path(params):
        if not np.isfinite(array).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(
                f"{trained.workdir}: {name} of checkpoint {step} has NaN or infinity: "
                "choose another --checkpoint"
            )
    one_seed = {"num_seeds": 1, "train_seed": first if seed is None else seed}
    normalizer = Normalizer.from_record(trained.record["normalizer"])
    return PortableAgent(params, config | one_seed, normalizer)


def _parser() -> CommandParser:
    parser = CommandParser(
        command="export",
        description="Write a checkpoint of a run in another program's format: weights, "
        "and a dt_jax.json with the configuration and the units of the network.",
        example="runs/hopper --to=hf --out=hopper-hf",
    )
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument(
        "--to",
        choices=_SAVE,
        required=True,
        help="safetensors (any agent, dt_jax's own parameter names), corl "
        "(dt_checkpoint.pt and config.yaml) or hf (Hugging Face's "
        "DecisionTransformerModel)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the folder to create, new or empty"
    )
    parser.add_argument(
        "--checkpoint", default="last", help="last (the default), best, or a step"
    )
    parser.add_argument("--seed", type=int, help="the seed, of a run with several")
    return parser
