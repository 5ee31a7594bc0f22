"""Eight devices do what one does; here they are eight of the CPU's, see conftest.py."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from test_batches import sampler  # noqa: F401
from test_multi_step import network, run
from test_train import changed

from dt_jax.agents.dt import init_train_state, make_update
from dt_jax.runs.metrics import read_metrics
from dt_jax.training import batches
from dt_jax.training.multi_step import MultiStep
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError
from dt_jax.utils.sharding import RunSharding, place

B = 64
eight_devices = pytest.mark.skipif(
    jax.device_count() < 8, reason="another back end than the tests' eight CPU devices"
)


def trained(sampler, devices, num_seeds, kind):  # noqa: F811
    """Return the state and losses of five updates, as `run` does."""
    placement = RunSharding(jax.devices()[:devices], num_seeds, B)
    agent, optimizer, schedule = network(sampler)
    update = make_update(agent, optimizer, schedule)
    seeds = np.arange(num_seeds)

    def init(seed):
        return init_train_state(agent, optimizer, seed)

    if num_seeds > 1:
        update, init = jax.vmap(update), jax.vmap(init)
    begin = jax.jit(init, out_shardings=placement.state)
    state = begin(seeds if num_seeds > 1 else 0)
    samplers = [sampler] * num_seeds
    dispatch = MultiStep(update, kind(samplers, placement), most=3)
    return run(dispatch, state, [range(0, 3), range(3, 5)])


@eight_devices
@pytest.mark.parametrize(
    ("num_seeds", "kind"),
    [
        (2, batches.HostBatches),  # both axes
        pytest.param(1, batches.DeviceBatches, marks=pytest.mark.slow),
        pytest.param(8, batches.DeviceBatches, marks=pytest.mark.slow),
    ],
)
def test_updates_are_those_of_one_device(num_seeds, kind, sampler):  # noqa: F811
    """Dropout included; sums over parts of a batch round otherwise."""
    ours = trained(sampler, 8, num_seeds, kind)
    theirs = trained(sampler, 1, num_seeds, kind)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5)
    for a, b in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@eight_devices
@pytest.mark.parametrize("num_seeds", [1, 2, 6])
def test_each_device_gets_its_part(num_seeds):
    placement = RunSharding(jax.devices()[:8], num_seeds, B)
    shape = (3, num_seeds, B, 5) if num_seeds > 1 else (3, B, 5)
    batches = np.arange(np.prod(shape)).reshape(shape)
    sent = placement.send(batches)
    np.testing.assert_array_equal(sent, batches)
    seeds_apart = np.gcd(num_seeds, 8)
    for shard in sent.addressable_shards:
        assert shard.data.size == batches.size // 8
        assert shard.data.shape[-2] == B * seeds_apart // 8
    everywhere = placement.replicate(np.arange(3))
    assert len(everywhere.addressable_shards) == 8
    assert everywhere.is_fully_replicated


@eight_devices
def test_what_lies_apart_comes_together_on_one_device():
    placement = RunSharding(jax.devices()[:8], 8, B)
    apart = jax.device_put(np.arange(16).reshape(8, 2), placement.state)
    assert not apart.is_fully_replicated
    here = placement.to_local_device({"a": apart})["a"]
    assert len(here.devices()) == 1
    np.testing.assert_array_equal(here, np.arange(16).reshape(8, 2))


@eight_devices
def test_refusals():
    config = ConfigDict({"num_devices": 9, "num_seeds": 1, "batch_size": B})
    with pytest.raises(UserError, match=r"num_devices=9: JAX finds 8 here .* or fewer"):
        place(config)
    config.update(num_devices=6, num_seeds=2)
    with pytest.raises(
        UserError, match=r"batch_size=64: expected a multiple of 3.*such as 66"
    ):
        place(config)


@pytest.mark.slow
@eight_devices
def test_a_run_goes_on_with_other_devices(small_config, tmp_path):
    """From four to one, and to eight; each row is that of one device all along."""
    config = changed(
        small_config,
        batch_size=8,
        lr_schedule="warmup_constant",
        holdout_fraction=0.2,
        update_steps=12,
    )
    train(config, tmp_path / "alone")
    for devices, updates in [(4, 4), (None, 8), (8, 12)]:
        part = changed(config, num_devices=devices, update_steps=updates)
        train(part, tmp_path / "run")
    ours, theirs = (
        read_metrics(tmp_path / name / "metrics.jsonl") for name in ("run", "alone")
    )
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for name in other.keys() - {"steps_per_second", "eval/seconds"}:
            assert mine[name] == pytest.approx(other[name], rel=1e-3), name
