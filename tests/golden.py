"""Numbers from running the references of other algorithms; see tests/data/golden."""

import json
import os
from pathlib import Path

import numpy as np

FOLDER = Path(
    os.environ.get("DT_JAX_GOLDEN_DIR", Path(__file__).parent / "data" / "golden")
)


def golden(name):
    """Return the arrays of a file by their key, and its sizes from `config`, if any."""
    with np.load(FOLDER / name) as file:
        arrays = dict(file)
    config = json.loads(str(arrays["config"])) if "config" in arrays else {}
    return arrays, config


def subtree(arrays, prefix):
    """Return the arrays below a prefix such as "mixed/window/", without it."""
    return {
        key.removeprefix(prefix): array
        for key, array in arrays.items()
        if key.startswith(prefix)
    }
