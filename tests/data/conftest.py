"""A small dataset with every kind of trajectory end, and files made of it."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dt_jax.data.schema import RawData


@pytest.fixture
def lengths() -> list[int]:
    """Trajectories of one step first, in the middle, side by side and last."""
    return [1, 7, 3, 1, 1, 40, 12, 1]


@pytest.fixture
def raw(lengths: list[int]) -> RawData:
    random = np.random.default_rng(0)
    rows = sum(lengths) + 5  # and an unfinished one
    last = np.cumsum(lengths) - 1
    terminals, timeouts = np.zeros((2, rows), bool)
    terminals[last[::2]] = True
    timeouts[last[1::2]] = True
    timeouts[last[[2, 4]]] = True  # these rows have both flags
    return RawData(
        observations=random.normal(3, 2, (rows, 4)).astype(np.float32),
        actions=random.uniform(-1, 1, (rows, 2)).astype(np.float32),
        rewards=random.normal(size=rows).astype(np.float32),
        terminals=terminals,
        timeouts=timeouts,
    )


@pytest.fixture
def write_hdf5(tmp_path: Path) -> Callable[..., Path]:
    def write(raw: RawData, name: str = "data.hdf5", **changes) -> Path:
        """Write `raw` with some arrays changed, or left out where None."""
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, array in (raw._asdict() | changes).items():
                if array is not None:
                    file[key] = array
        return path

    return write
