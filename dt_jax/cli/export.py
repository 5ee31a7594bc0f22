"""Export a run, or import one: python -m dt_jax export runs/hopper --to=hf --out=hf."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from dt_jax.agents.dt import SCALING
from dt_jax.cli.common import CommandParser
from dt_jax.cli.imported import write_run
from dt_jax.config.load import check_folder, from_dict, override
from dt_jax.data.cache import sha256_of
from dt_jax.evaluation.policy import one_seed, restore
from dt_jax.interop import corl_folder, hf_folder
from dt_jax.interop.interchange import (
    Trained,
    new_folder,
    write_record,
    write_safetensors,
)
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path

_BOTH = ("--from=corl", "--from=hf")
# Keys of a configuration that an import may be told, and by which it is.
_KEYS = {
    "env_name": _BOTH,
    "num_heads": _BOTH[:1],
    "seq_len": _BOTH,
    "max_action": _BOTH[:1],
    "reward_scale": _BOTH,
}
_FLAGS = _KEYS | {
    "normalization": _BOTH[1:],
    "checkpoint": ("--to",),
    "seed": ("--to",),
}


def main(arguments: Sequence[str]) -> None:
    """Do what the command line asks for, and say what has come of it."""
    args = _parser().parse_args(arguments)
    _check_flags(args)
    jax.config.update("jax_platforms", "cpu")  # nothing is computed
    if args.to:
        which = args.checkpoint or "last"
        for line in export(args.source, args.to, args.out, which, args.seed):
            print(line)
        return
    given = ConfigDict(dict.fromkeys(_KEYS))
    for key in _KEYS:
        if (text := getattr(args, key)) is not None:
            override(given, key, text, f"--{key}")
    told = {key: value for key, value in given.items() if value is not None}
    for line in import_run(args.source, args.kind, args.out, told, args.normalization):
        print(line)


def export(
    workdir: str | Path,
    to: str,
    out: str | Path,
    checkpoint: str | int = "last",
    seed: int | None = None,
) -> list[str]:
    """Write what a run has trained as other programs read it.

    Args:
      workdir: the run's folder.
      to: "safetensors", "corl" or "hf"; docs/deployment.md says what is in each.
      out: the folder to make; it is whole or not there.
      checkpoint: "last", "best" (by evaluation) or the number of a step.
      seed: which one's, in a run with several.

    Returns:
      Lines that say what was written, and what to mind.

    Raises:
      UserError: there is no such run, checkpoint or seed, its parameters are not
        finite, the format can't hold it, or there is something at `out`.
    """
    out = user_path(out)
    with new_folder(out) as temporary:
        trained, about = _trained(Path(workdir), checkpoint, seed)
        trained = _SAVE[to](temporary, trained)
        write_record(temporary, trained, about)
    lines = [f"{out}: {workdir} after {about['step']} updates, for {to}"]
    center, scale = (trained.scaling[f"action_{name}"] for name in ("center", "scale"))
    if center.any() or (scale != 1).any():
        lines.append(
            "its actions are the network's: the environment's are action_center + "
            f"action_scale * action, as {out / 'dt_jax.json'} has them"
        )
    return lines


def import_run(
    source: str | Path,
    kind: str,
    out: str | Path,
    told: Mapping[str, Any],
    normalization: str | Path | None = None,
) -> list[str]:
    """Make a run's folder of what another program has trained.

    `Policy.load`, `python -m dt_jax evaluate` and init_from take it; it can't be gone
    on with, for nothing is known of its optimiser.

    Args:
      source: the file or the folder.
      kind: "corl" or "hf".
      out: the folder to make; it is whole or not there.
      told: keys of a configuration that the source does not tell, or tells otherwise.
      normalization: of "hf", a JSON file with state_mean and state_std; None: the
        dt_jax.json in `source`, if there is one.

    Returns:
      Lines that say what was made, and what to mind.

    Raises:
      UserError: the source is of no use, or does not tell enough, or there is something
        at `out`.
    """
    path, workdir = user_path(source), user_path(out)
    check_folder(workdir, "--out")
    lines: list[str] = []
    if kind == "corl":
        trained, weights = corl_folder.load(path, told)
    else:
        trained, weights, lines = hf_folder.load(path, told, normalization)
    data = {
        "source": str(source),
        "sha256": sha256_of(weights),
        "imported_from": kind,
    }
    write_run(workdir, weights, trained, data)
    return [*lines, f"{workdir}: a run with the parameters of {source}"]


def _trained(
    workdir: Path, checkpoint: str | int, seed: int | None
) -> tuple[Trained, dict[str, Any]]:
    """Return what one seed of a run has trained, and what is known of it."""
    _, params, record = restore(workdir, checkpoint)
    config = from_dict(record["config"]).to_dict()
    first, count = config["train_seed"], config["num_seeds"]
    if count > 1 and seed is None:
        raise UserError(
            f"{workdir} has {count} seeds from {first} on: say which by --seed"
        )
    params = jax.device_get(one_seed(workdir, params, record, seed))
    for name, array in flatten_dict(params, sep="/").items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{workdir}: {name} of checkpoint {record['step']} has NaN or infinity "
                "in it: name another by --checkpoint"
            )
    config |= {"num_seeds": 1, "train_seed": first if seed is None else seed}
    scaling = {key: np.asarray(record[key], np.float32) for key in SCALING}
    about = {key: record[key] for key in ("step", "dataset", "versions")}
    return Trained(params, config, scaling), about


def _save_safetensors(folder: Path, trained: Trained) -> Trained:
    flat = flatten_dict(trained.params, sep="/")
    arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
    write_safetensors(folder / "model.safetensors", arrays)
    return trained


_SAVE = {
    "safetensors": _save_safetensors,
    "corl": corl_folder.save,
    "hf": hf_folder.save,
}


def _check_flags(args: Namespace) -> None:
    """Refuse what would have no effect."""
    way = "--to" if args.to else f"--from={args.kind}"
    for flag, ways in _FLAGS.items():
        if getattr(args, flag) is not None and way not in ways:
            raise UserError(f"--{flag} goes with {' or '.join(ways)}, not with {way}")


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m dt_jax export",
        description="Write what a run has trained as other programs read it, or make a "
        "run's folder of what they have trained. docs/deployment.md says what is in "
        "each format.",
        epilog="example: python -m dt_jax export runs/hopper --to=hf --out=hopper-hf",
    )
    parser.add_argument(
        "source",
        type=Path,
        help="the run's folder; with --from=corl the dt_checkpoint.pt, config.yaml "
        "beside it, with --from=hf the folder of the model",
    )
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--to", choices=_SAVE, help="the format to write")
    way.add_argument(
        "--from", dest="kind", choices=("corl", "hf"), help="the format to read"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the folder to make, new or empty"
    )
    exported = parser.add_argument_group("with --to")
    exported.add_argument("--checkpoint", help="last (the default), best, or a step")
    exported.add_argument("--seed", type=int, help="which, of a run with several")
    told = parser.add_argument_group("with --from, what is not told there")
    told.add_argument("--env_name", help="in whose environment it is evaluated")
    told.add_argument("--num_heads", help="corl: attention heads in each block")
    told.add_argument(
        "--seq_len", help="timesteps that the model is shown (hf: 20, if not told)"
    )
    told.add_argument("--max_action", help="corl: actions lie within ± this")
    told.add_argument(
        "--reward_scale", help="returns were multiplied by it, such as 0.001"
    )
    told.add_argument(
        "--normalization", type=Path, help="hf: JSON with state_mean and state_std"
    )
    return parser
