"""Parameters of any agent as safetensors, under dt_jax's own names and layouts."""

import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

from dt_jax.interop.common import PortableAgent, float32_arrays
from dt_jax.utils.errors import UserError

WEIGHTS = "model.safetensors"


def save(folder: Path, agent: PortableAgent) -> PortableAgent:
    """Write model.safetensors; names are paths such as "state_emb/kernel".

    Returns:
      The agent.
    """
    leaves = jax.tree_util.tree_leaves_with_path(agent.params)
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
    write_arrays(folder / WEIGHTS, arrays)
    return agent


def write_arrays(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write arrays by their names."""
    contiguous = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    # save_file would make the file readable only for its owner.
    path.write_bytes(safetensors.save(contiguous, metadata))


def read_arrays(path: Path, ignored: re.Pattern[str]) -> dict[str, np.ndarray]:
    """Return the arrays of a file by their names, as finite float32 numbers.

    Args:
      path: the file.
      ignored: names that are not read.

    Raises:
      UserError: it is not a safetensors file, truncated, or has other values.
    """
    try:
        with safe_open(path, framework="np") as file:
            names = [name for name in file.keys() if not ignored.fullmatch(name)]  # noqa: SIM118
            arrays = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, TypeError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a valid safetensors file: {reason}") from None
    return float32_arrays(path, arrays)
