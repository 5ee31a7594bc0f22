"""Import a trained agent: python -m dt_jax import hub/hopper --from=hf --out=runs/hf.

The result is a run's folder with one checkpoint, at step 0, without optimiser state.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dt_jax.cli.common import CommandParser
from dt_jax.config.keys import keys_of
from dt_jax.config.load import check_folder
from dt_jax.data.cache import sha256_of
from dt_jax.interop import corl, huggingface
from dt_jax.interop.common import PortableAgent, new_folder
from dt_jax.runs.checkpoint import CheckpointWriter
from dt_jax.runs.folder import write_description
from dt_jax.training.warm_start import check_shapes
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path
from dt_jax.utils.versions import versions

# Configuration keys that a source may lack, and their help.
_KEYS = {
    "env_name": "the environment for evaluations",
    "num_heads": "attention heads in each block",
    "seq_len": "context length in timesteps (hf: 20)",
    "max_action": "actions lie within ± this (1)",
    "reward_scale": "factor from returns to the network's inputs, as 0.001",
}


def main(arguments: Sequence[str]) -> None:
    """Read the source, write the run's folder, and report it."""
    args = _parser().parse_args(arguments)
    keys = keys_of("dt")
    overrides = {
        key: keys[key].parse(text, f"--{key}")
        for key in _KEYS
        if (text := getattr(args, key)) is not None
    }
    if args.normalization and args.kind != "hf":
        raise UserError("--normalization needs --from=hf")
    jax.config.update("jax_platforms", "cpu")  # nothing is computed
    source, workdir = user_path(args.source), user_path(args.out)
    check_folder(workdir, "--out")
    if args.kind == "corl":
        agent, weights = corl.load(source, overrides)
    else:
        agent, weights = huggingface.load(source, overrides, args.normalization)
    check_shapes(str(weights), agent.params, ConfigDict(agent.config), agent.normalizer)
    dataset = {  # the record of a run names its data; this one names its source
        "source": str(args.source),
        "sha256": sha256_of(weights),
        "imported_from": args.kind,
    }
    _write_run(workdir, agent, dataset)
    print(f"{workdir}: a run with the parameters of {args.source}")


def _write_run(workdir: Path, agent: PortableAgent, dataset: dict[str, Any]) -> None:
    """Write a run's folder whose only checkpoint, at step 0, is `agent`."""
    record = {
        "config": agent.config,
        "normalizer": agent.normalizer.to_record(),
        "dataset": dataset,
        "versions": versions(),
        "step": 0,
        "pending": None,
    }
    with new_folder(workdir) as temporary:
        write_description(temporary, record)
        with CheckpointWriter(temporary / "checkpoints", keep=2) as writer:
            # Without optimiser state, so that it cannot be resumed.
            writer.save(0, agent.params, {"step": np.int32(0)}, record, None)


def _parser() -> CommandParser:
    parser = CommandParser(
        command="import",
        usage="%(prog)s [-h] source --from {corl,hf} --out RUN [options]",
        description="Write a run's folder with an agent that another program has "
        "trained. It can be evaluated, loaded by Policy, and used as init_from; it "
        "cannot be resumed.",
        example="dt_checkpoint.pt --from=corl --out=runs/corl",
    )
    parser.add_argument(
        "source",
        type=Path,
        help="corl: dt_checkpoint.pt, with config.yaml beside it, or their folder; "
        "hf: the model's folder",
    )
    parser.add_argument(
        "--from",
        dest="kind",
        choices=("corl", "hf"),
        required=True,
        help="corl (CORL's dt.py) or hf (Hugging Face's DecisionTransformerModel)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the run's folder, new or empty"
    )
    missing = parser.add_argument_group("values that the source does not have")
    for key, meaning in _KEYS.items():
        missing.add_argument(f"--{key}", help=meaning)
    missing.add_argument(
        "--normalization", type=Path, help="hf: JSON with state_mean and state_std"
    )
    return parser
