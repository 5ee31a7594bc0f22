"""Numbers from running the references of other algorithms; see tests/data/golden."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.types import Batch

FOLDER = Path(
    os.environ.get("DT_JAX_GOLDEN_DIR", Path(__file__).parent / "data" / "golden")
)


def golden(name):
    """Return the arrays of a file by their key, and its sizes from `config`, if any."""
    with np.load(FOLDER / name) as file:
        arrays = dict(file)
    config = json.loads(str(arrays["config"])) if "config" in arrays else {}
    return arrays, config


@contextmanager
def golden_case(name):
    """Give the arrays, sizes and type of a file, with JAX in its precision."""
    arrays, sizes = golden(name)
    dtype = np.dtype(sizes["dtype"])
    with jax.enable_x64(dtype == np.float64):
        yield arrays, sizes, dtype


def subtree(arrays, prefix):
    """Return the arrays below a prefix such as "mixed/window/", without it."""
    return {
        key.removeprefix(prefix): array
        for key, array in arrays.items()
        if key.startswith(prefix)
    }


def golden_trajectories(arrays):
    """Return the trajectories of a file's data."""
    raw = RawData(
        *(arrays[f"data/{name}"] for name in ("observations", "actions", "rewards")),
        terminals=arrays["data/terminals"],
        timeouts=arrays["data/timeouts"],
    )
    return Trajectories.from_raw(raw, source="golden")


def golden_batch(arrays, sizes, step, dtype):
    """Return a step's windows in the reference's precision, padded on the right."""
    data = golden_trajectories(arrays)
    scale, k = sizes["scale"], sizes["K"]
    windows = []
    drawn = arrays["batch/traj_idx"][step], arrays["batch/start_idx"][step]
    for trajectory, start in zip(*drawn, strict=True):
        length = data.lengths[trajectory]
        whole = slice(data.starts[trajectory], data.starts[trajectory] + length)
        rewards = data.rewards[whole]
        returns = np.cumsum(rewards[::-1])[::-1]  # in float32, as theirs
        terminals = np.zeros(length)
        terminals[-1] = data.terminated[trajectory]
        mean, std = arrays["dataset/state_mean"], arrays["dataset/state_std"]
        arrays_of = {
            "states": (data.observations[whole].astype(dtype) - mean) / std,
            "actions": data.actions[whole],
            "returns_to_go": returns.astype(dtype) / scale,
            "mask": np.ones(length),
            "rewards": rewards,
            "terminals": terminals,
        }
        window = {}
        for name, array in arrays_of.items():
            part = array[start : start + k].astype(dtype)
            padding = np.zeros((k - len(part), *part.shape[1:]), dtype)
            window[name] = np.concatenate([part, padding])
        window["timesteps"] = np.arange(start, start + k, dtype=np.int32)
        windows.append(window)
    return Batch(**{x: np.stack([w[x] for w in windows]) for x in windows[0]})


def padded_left(array, mask):
    """Return windows [B, T, ...] with their padding moved to the left, as theirs."""
    shifts = (mask == 0).sum(axis=1).astype(int)
    pairs = zip(np.asarray(array), shifts, strict=True)
    return np.stack([np.roll(x, shift, axis=0) for x, shift in pairs])


def close(ours, theirs, atol, what=""):
    """Compare arrays, the tolerance being absolute and relative."""
    np.testing.assert_allclose(ours, theirs, rtol=atol, atol=atol, err_msg=what)
