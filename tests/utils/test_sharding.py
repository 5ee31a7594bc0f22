"""Sharded runs; the eight devices are those of the CPU, see conftest.py."""

import jax
import numpy as np
import pytest
from helpers import changed
from updates import B, make_agent, make_sampler, run_updates

from dt_jax.agents.multi_seed import MultiSeedAgent
from dt_jax.runs.metrics import TIMING, read_metrics
from dt_jax.training.batches import DeviceBatches, HostBatches
from dt_jax.training.multi_step import MultiStep
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError
from dt_jax.utils.sharding import RunSharding, make_sharding

eight_devices = pytest.mark.skipif(
    jax.device_count() < 8, reason="needs the eight CPU devices of conftest.py"
)


def train_sharded(agent, sampler, num_devices, num_seeds, batches):
    """Make five updates; return the arrays of the state, and the losses [5, ...]."""
    sharding = RunSharding(jax.devices()[:num_devices], num_seeds, B)
    actor = agent if num_seeds == 1 else MultiSeedAgent(agent, num_seeds)
    keys = jax.vmap(jax.random.key)(np.arange(num_seeds))
    init = jax.jit(actor.init, out_shardings=sharding.state)
    state = init(keys if num_seeds > 1 else keys[0])
    multi_step = MultiStep(actor.update, batches([sampler] * num_seeds, sharding), 3)
    return run_updates(multi_step, state, [range(3), range(3, 5)])


@eight_devices
@pytest.mark.parametrize(
    ("num_seeds", "batches"),
    [
        (2, HostBatches),  # both axes of the mesh
        pytest.param(1, DeviceBatches, marks=pytest.mark.slow),
        pytest.param(8, DeviceBatches, marks=pytest.mark.slow),
    ],
)
def test_eight_devices_compute_what_one_does(num_seeds, batches):
    """With dropout; only sums over parts of a batch are rounded differently."""
    agent, sampler = make_agent(), make_sampler()
    arrays, losses = train_sharded(agent, sampler, 8, num_seeds, batches)
    expected, expected_losses = train_sharded(agent, sampler, 1, num_seeds, batches)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(array, other, atol=1e-5)


@eight_devices
@pytest.mark.parametrize("num_seeds", [1, 2, 6])
def test_each_device_gets_its_part_of_a_batch(num_seeds):
    sharding = RunSharding(jax.devices()[:8], num_seeds, B)
    shape = (3, num_seeds, B, 5) if num_seeds > 1 else (3, B, 5)
    batches = np.arange(np.prod(shape)).reshape(shape)
    sent = sharding.send(batches)
    np.testing.assert_array_equal(sent, batches)
    seed_shards = np.gcd(num_seeds, 8)
    for shard in sent.addressable_shards:
        assert shard.data.size == batches.size // 8
        assert shard.data.shape[-2] == B * seed_shards // 8
    replicated = sharding.replicate(np.arange(3))
    assert len(replicated.addressable_shards) == 8
    assert replicated.is_fully_replicated


@eight_devices
def test_sharded_state_is_gathered_on_one_device():
    sharding = RunSharding(jax.devices()[:8], 8, B)
    sharded = jax.device_put(np.arange(16).reshape(8, 2), sharding.state)
    assert not sharded.is_fully_replicated
    local = sharding.to_local_device({"a": sharded})["a"]
    assert len(local.devices()) == 1
    np.testing.assert_array_equal(local, np.arange(16).reshape(8, 2))


@eight_devices
def test_missing_devices_and_unequal_parts_are_refused():
    with pytest.raises(UserError, match=r"num_devices=9: JAX finds 8 here .* or fewer"):
        make_sharding(9, 1, B)
    with pytest.raises(
        UserError, match=r"batch_size=64: expected a multiple of 3.*such as 66"
    ):
        make_sharding(6, 2, B)


@pytest.mark.slow
@eight_devices
def test_run_resumes_on_other_devices(small_config, tmp_path):
    """On four devices, then one, then eight: the metrics are those of one device."""
    config = changed(
        small_config,
        batch_size=8,
        lr_schedule="warmup_constant",
        holdout_fraction=0.2,
        update_steps=12,
    )
    train(config, tmp_path / "one_device")
    for num_devices, update_steps in [(4, 4), (None, 8), (8, 12)]:
        part = changed(config, num_devices=num_devices, update_steps=update_steps)
        train(part, tmp_path / "resumed")
    ours, theirs = (
        read_metrics(tmp_path / name / "metrics.jsonl")
        for name in ("resumed", "one_device")
    )
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for row, expected in zip(ours, theirs, strict=True):
        for name in expected.keys() - set(TIMING):
            assert row[name] == pytest.approx(expected[name], rel=1e-3), name
