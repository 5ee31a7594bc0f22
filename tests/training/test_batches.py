"""Batches from the host and from the device are the same."""

import jax
import numpy as np
import pytest
from updates import B, make_sampler

from dt_jax.data.labels import Labels
from dt_jax.training import batches
from dt_jax.types import Batch
from dt_jax.utils.sharding import RunSharding


@pytest.fixture
def sampler():
    return make_sampler(fields=Batch._fields)


@pytest.fixture
def sharding():
    return RunSharding(jax.devices()[:1], num_seeds=1, batch_size=B)


@pytest.mark.parametrize(
    "fields", [Batch._fields, ("states", "timesteps", "next_states")]
)
def test_host_and_device_give_the_same_bits(fields, sharding):
    """tests/data/test_sampler.py compares those of the host with a loop."""
    sampler = make_sampler(fields)
    on_host = batches.HostBatches([sampler], sharding)
    on_device = batches.DeviceBatches([sampler], sharding)
    gather = jax.jit(on_device.batch)
    for step in range(8):
        expected = on_host.inputs(step)
        batch = gather(on_device.dataset, on_device.inputs(step))
        for name in Batch._fields:
            ours, theirs = getattr(batch, name), getattr(expected, name)
            assert (ours is None) == (theirs is None) == (name not in fields)
            if name in fields:
                np.testing.assert_array_equal(ours, theirs, err_msg=name, strict=True)
    assert gather._cache_size() == 1


@pytest.mark.parametrize("kind", ["windows", "window_ends", "episodes"])
@pytest.mark.parametrize("offsets", [False, True])
def test_each_seed_has_its_own_labels(kind, offsets):
    rng = np.random.default_rng(0)
    samplers = []
    for seed in range(3):
        plain = make_sampler(("mask", "returns_to_go"))
        rows = len(plain.dataset.returns_to_go)
        labels = Labels(*rng.normal(size=(1 + offsets, rows)).astype(np.float32))
        fields = ("mask", "returns_to_go", "terminals", "next_states")
        samplers.append(make_sampler(fields, labels=labels, seed=seed, kind=kind))
    sharding = RunSharding(jax.devices()[:1], num_seeds=3, batch_size=B)
    on_host = batches.HostBatches(samplers, sharding)
    on_device = batches.DeviceBatches(samplers, sharding)
    for step in range(4):
        expected = on_host.inputs(step)
        batch = jax.jit(on_device.batch)(on_device.dataset, on_device.inputs(step))
        jax.tree.map(np.testing.assert_array_equal, batch, expected)
        for i, sampler in enumerate(samplers):
            own = sampler.batch(step).returns_to_go
            np.testing.assert_array_equal(batch.returns_to_go[i], own)


def test_the_batches_have_every_kind_of_window(sampler, sharding):
    """From the first row to past the last one, with both kinds of ends."""
    drawn = [batches.HostBatches([sampler], sharding).inputs(i) for i in range(8)]
    starts = {int(each) for i in range(8) for each in sampler.indices(i)}
    assert {0, sampler.num_transitions - 1} <= starts
    mask, terminals = (
        np.concatenate([getattr(batch, name) for batch in drawn])
        for name in ("mask", "terminals")
    )
    ends = mask.sum(axis=1) < mask.shape[1]
    assert terminals[ends].any()
    assert not terminals[ends].any(axis=1).all()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a device with own memory")
def test_on_the_cpu_the_dataset_is_not_copied(sampler, sharding):
    dataset = batches.DeviceBatches([sampler], sharding).dataset
    for ours, theirs in zip(dataset[:4], sampler.dataset[:4], strict=True):
        assert ours.unsafe_buffer_pointer() == theirs.ctypes.data


def test_large_and_memory_mapped_data_stays_on_the_host(sampler, sharding, tmp_path):
    def kind(share):
        return type(batches.make_batches([sampler], sharding, share))

    assert kind(0.5) is batches.DeviceBatches
    assert kind(0.0) is batches.HostBatches
    np.save(tmp_path / "rows.npy", sampler.dataset.observations)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    sampler.dataset = sampler.dataset._replace(observations=mapped)
    assert kind(0.5) is batches.HostBatches
