import jax
import numpy as np
import pytest

from dt_jax.data.arrays import aligned_empty
from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.training import batches
from dt_jax.utils.sharding import RunSharding

S, A, T = 5, 2, 7
LENGTHS = [1, 30, 4, T, T + 1, 60, 3]


@pytest.fixture
def sampler():
    rng, rows = np.random.default_rng(0), sum(LENGTHS)

    def drawn(*shape):
        array = aligned_empty(shape, np.float32)
        array[:] = rng.normal(3, 10, shape)
        return array

    raw = RawData(
        observations=drawn(rows, S),
        actions=drawn(rows, A),
        rewards=drawn(rows),
        terminals=np.zeros(rows, bool),
        timeouts=np.isin(np.arange(1, rows + 1), np.cumsum(LENGTHS)),
    )
    return Sampler(
        Trajectories.from_raw(raw, source="made up"),
        batch_size=64,
        seq_len=T,
        reward_scale=0.013,
        seed=1,
        state_mean=rng.normal(size=S).astype(np.float32),
        state_std=rng.uniform(0.5, 3, S).astype(np.float32),
        action_center=rng.normal(size=A).astype(np.float32),
        action_scale=rng.uniform(0.5, 3, A).astype(np.float32),
    )


@pytest.fixture
def alone():
    """A placement on one device."""
    return RunSharding(jax.devices()[:1], num_seeds=1, batch_size=64)


def test_both_ways_give_the_same_bits(sampler, alone):
    """Windows from every trajectory's start to past the end of the last one."""
    on_host, on_device = (
        batches.HostBatches([sampler], alone),
        batches.DeviceBatches([sampler], alone),
    )
    gather = jax.jit(on_device.batch)
    for step in range(8):
        expected = on_host.inputs(step)
        batch = gather(on_device.data, on_device.inputs(step))
        for name, theirs in expected._asdict().items():
            ours = np.asarray(getattr(batch, name))
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
    assert gather._cache_size() == 1


def test_on_the_cpu_the_data_are_not_copied(sampler, alone):
    if jax.default_backend() != "cpu":
        pytest.skip("a device with a memory of its own")
    data = batches.DeviceBatches([sampler], alone).data
    for ours, theirs in zip(data[:3], sampler.data[:3], strict=True):
        assert ours.unsafe_buffer_pointer() == theirs.ctypes.data


def test_large_and_mapped_data_stay_on_the_host(sampler, alone, tmp_path):
    assert isinstance(
        batches.make_batches([sampler], alone, 0.5), batches.DeviceBatches
    )
    assert isinstance(batches.make_batches([sampler], alone, 0.0), batches.HostBatches)
    np.save(tmp_path / "rows.npy", sampler.data.observations)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    sampler.data = sampler.data._replace(observations=mapped)
    assert isinstance(batches.make_batches([sampler], alone, 0.5), batches.HostBatches)
