"""Hypothesis strategies for the readers: random datasets and corrupt files."""

import random

import h5py
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dt_jax.data.d4rl import read_d4rl
from dt_jax.data.trajectories import Trajectories
from dt_jax.utils.errors import UserError

KEYS = ("observations", "actions", "rewards", "terminals", "timeouts")


def fixed_examples(count):
    """Return settings that try the same `count` examples in each run."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


@st.composite
def datasets(draw):
    """Return the arrays of one to eight episodes, sometimes with an unfinished one."""
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=8))
    rows = sum(lengths) + draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    last = np.cumsum(lengths) - 1
    ended = rng.random(len(lengths)) < draw(st.sampled_from([0, 0.5, 1]))
    flags = np.zeros((2, rows), bool)
    flags[0, last[ended]] = True
    flags[1, last[~ended]] = True

    floats = ["f2", "<f4", ">f4", "f8"]

    def numbers(*shape, dtypes=(*floats, "i1", "i8")):
        dtype = draw(st.sampled_from(dtypes))
        return (100 * rng.standard_normal(shape)).clip(-100, 100).astype(dtype)

    def flag(array):
        shape = draw(st.sampled_from([(rows,), (rows, 1)]))
        return array.reshape(shape).astype(draw(st.sampled_from(["?", "i1", "f4"])))

    return {
        "observations": numbers(rows, draw(st.integers(1, 4))),
        "actions": numbers(rows, draw(st.integers(1, 3)), dtypes=floats),
        "rewards": numbers(*draw(st.sampled_from([(rows,), (rows, 1)]))),
        "terminals": flag(flags[0]),
        "timeouts": flag(flags[1]),
    }


def to_hdf5(path, arrays, **options):
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, **(options if array.ndim else {}))


def to_npz(path, arrays, write=np.savez):
    with path.open("wb") as file:
        write(file, **arrays)


# Corruption may change numbers that no checksum covers.
HDF5 = {
    "contiguous.hdf5": to_hdf5,
    "gzip.hdf5": lambda *to: to_hdf5(*to, compression="gzip"),
}
NPZ = {
    "stored.npz": to_npz,
    "compressed.npz": lambda *to: to_npz(*to, write=np.savez_compressed),
    "by column.npz": lambda path, arrays: to_npz(
        path, {key: np.asfortranarray(array) for key, array in arrays.items()}
    ),
}
FORMATS = HDF5 | NPZ
limits = st.sampled_from([None, 0])  # in memory, and memory-mapped or unpacked


def check_round_trip(folder, arrays, kind, limit):
    """Reading returns what was written, split into trajectories like by a loop."""
    path = folder / kind
    FORMATS[kind](path, arrays)
    raw = read_d4rl(path, memory_limit_gb=limit)
    assert same(raw, arrays)
    store = Trajectories.from_raw(raw, source="x")
    start, k = 0, 0
    for row in range(len(raw.rewards)):
        if raw.terminals[row] or raw.timeouts[row]:
            assert (store.starts[k], store.lengths[k]) == (start, row + 1 - start)
            total = 0.0
            for each in range(row, start - 1, -1):
                total += float(np.float32(raw.rewards[each]))
                assert store.returns_to_go[each] == np.float32(total)
            start, k = row + 1, k + 1
    assert store.num_trajectories == k
    assert store.dropped_tail == len(raw.rewards) - start


@st.composite
def damages(draw):
    """Return a function that truncates content or changes some of its bytes.

    Positions come from a separate generator: hypothesis would prefer round numbers.
    """
    kind = draw(st.sampled_from(["change", "cut", "erase", "insert", "copy"]))
    count = draw(st.integers(1, 40))
    rng = random.Random(draw(st.integers(0, 2**32)))

    def damage(content):
        changed = bytearray(content)
        at, other = rng.randrange(len(content)), rng.randrange(len(content))
        if kind == "change":
            for place in rng.sample(range(len(content)), count // 10 + 1):
                changed[place] ^= rng.randrange(1, 256)
        elif kind == "cut":
            del changed[at:]
        elif kind == "erase":
            changed[at : at + count] = bytes(len(changed[at : at + count]))
        elif kind == "insert":
            changed[at:at] = bytes(count)
        else:
            changed[at : at + count] = changed[other : other + count]
        return bytes(changed)

    return damage


def check_damage(folder, arrays, kind, limit, damage):
    """Corruption is reported or harmless; without checksums it may be undetected."""
    path = folder / kind
    FORMATS[kind](path, arrays)
    path.write_bytes(damage(path.read_bytes()))
    check_reported_or_valid(path, arrays, limit, may_differ=kind in HDF5)


@st.composite
def changes(draw):
    """Return a function that changes, removes or renames an array of a dataset."""
    key = draw(st.sampled_from(KEYS))
    change = draw(
        st.sampled_from(
            [
                lambda a: a.astype("S"),
                lambda a: a.astype(complex),
                lambda a: a.astype("f2"),
                lambda a: a[:-1],
                lambda a: a[:0],
                lambda a: a[..., :0],
                lambda a: a.reshape(-1),
                lambda a: a[..., None],
                lambda a: a[None],
                lambda a: a.flat[:1].reshape(()),
                lambda a: np.concatenate([a, a]),
                lambda a: np.where(np.arange(a.size).reshape(a.shape) % 5, a, np.nan),
                lambda a: a * 1e300,
                lambda a: -a.astype("f4") - 1,
                None,
            ]
        )
    )
    other = draw(st.sampled_from([key, key, *KEYS, "episode_ends", "infos/x"]))

    def applied(arrays):
        with np.errstate(all="ignore"):
            rest = {k: v for k, v in arrays.items() if k != key}
            return rest | ({other: change(arrays[key])} if change else {})

    return applied


def check_change(folder, arrays, kind, limit, change):
    """Changed arrays are reported or harmless."""
    path = folder / kind
    FORMATS[kind](path, change(arrays))
    check_reported_or_valid(path, arrays, limit, may_differ=True)


def check_reported_or_valid(path, arrays, limit, may_differ):
    """Check that reading raises a UserError or returns arrays to train on."""
    try:
        raw = read_d4rl(path, memory_limit_gb=limit)
        store = Trajectories.from_raw(raw, source=str(path))
    except UserError as error:
        message = str(error)
    else:
        message = None
    if message is not None:
        assert "\n" not in message
        assert str(path) in message
        return
    assert may_differ or same(raw, arrays)
    assert len({len(array) for array in raw}) == 1
    assert [array.ndim for array in raw] == [2, 2, 1, 1, 1]
    for array in (*raw, store.returns_to_go, store.state_mean, store.state_std):
        assert np.isfinite(array).all()


def same(raw, arrays):
    with np.errstate(over="ignore"):
        return all(
            np.array_equal(
                np.asarray(ours, np.float32), np.float32(theirs.reshape(ours.shape))
            )
            for ours, theirs in zip(raw, (arrays[key] for key in KEYS), strict=True)
        )
