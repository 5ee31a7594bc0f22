"""Helpers that tests of several folders share."""

from contextlib import contextmanager

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from command import SMALL_NETWORK

from dt_jax.data.sampler import Sampler
from dt_jax.runs.checkpoint import find_checkpoints
from dt_jax.runs.metrics import TIMING, read_metrics
from dt_jax.training.train import train

# The arguments of a run of launch.py that takes seconds.
SMALL = [
    "--config=configs/hopper.py:medium",
    *SMALL_NETWORK,
    "--config.eval_episodes=2",
    "--config.eval_every=200",
    "--config.log_every=50",
    "--config.checkpoint_every=50",
    "--config.update_steps=400",
    "--config.target_returns=50,20",
]

# Keys of a transformer that is compiled fast, of which each dropout takes long.
TINY_TRANSFORMER = {
    "embedding_dim": 8,
    "num_layers": 1,
    "attention_dropout": 0.0,
    "residual_dropout": 0.0,
}


def arguments(workdir, data):
    """Return the arguments of launch.py for a small run of 400 updates."""
    return [*SMALL, f"--config.data_path={data}", f"--workdir={workdir}"]


def changed(config, **changes):
    """Return a locked copy of a configuration with other values of some keys."""
    config = config.copy_and_resolve_references().unlock()
    with config.ignore_type():
        for key, value in changes.items():
            config[key] = value
    return config.lock()


def steps_of(workdir):
    """Return the steps of a run's valid checkpoints."""
    return [checkpoint.step for checkpoint in find_checkpoints(workdir / "checkpoints")]


def restored(workdir, item):
    """Return the bytes of every array in the last checkpoint's "params" or "train".

    Read by Orbax only, wherever the arrays were when they were saved.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    path = workdir.resolve() / "checkpoints" / str(steps_of(workdir)[-1]) / item
    with ocp.StandardCheckpointer() as reader:
        saved = reader.metadata(path).item_metadata.tree
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved
        )
        tree = reader.restore(path, like)
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    assert flat
    return {jax.tree_util.keystr(path): to_bytes(array) for path, array in flat}


def to_bytes(array):
    """Return the shape, dtype and bytes of an array, which may hold random keys."""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.asarray(array)
    return array.shape, array.dtype, array.tobytes()


def untimed(workdir):
    """Return the rows of metrics.jsonl without measurements of time."""
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMING} for row in rows]


def assert_same_run(ours, theirs):
    """Assert that two runs have the same bits in arrays and metrics."""
    for item in ("params", "train"):
        assert restored(ours, item) == restored(theirs, item)
    assert untimed(ours) == untimed(theirs)


def assert_same_training(ours, theirs):
    """Assert the same bits as `assert_same_run`, where only one run has evaluations."""
    for item in ("params", "train"):
        assert restored(ours, item) == restored(theirs, item)
    rows = [
        [
            {name: value for name, value in row.items() if "eval/" not in name}
            for row in untimed(workdir)
            if row["step"]
        ]
        for workdir in (ours, theirs)
    ]
    assert rows[0] == rows[1]


@contextmanager
def before_batch(step, action):
    """Call `action` each time the batch after `step` updates is about to be drawn."""
    indices = Sampler.indices

    def drawing(self, drawn):
        if drawn == step:
            action()
        return indices(self, drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "indices", drawing)
        yield


def train_until(step, config, workdir):
    """Train until the batch after `step` updates is drawn, then fail without saving."""

    def fail():
        raise KeyboardInterrupt

    with before_batch(step, fail), pytest.raises(KeyboardInterrupt):
        train(config, workdir)
