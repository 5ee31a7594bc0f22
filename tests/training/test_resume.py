import jax.numpy as jnp
import pytest

from dt_jax.config import default_config
from dt_jax.runs.checkpoint import CheckpointWriter
from dt_jax.training.resume import as_before, last_checkpoint
from dt_jax.utils.errors import UserError


def begin(workdir, init_from):
    """Leave what a run that began with `init_from` goes on from."""
    record = {"config": config(init_from).to_dict(), "dataset": {}}
    with CheckpointWriter(workdir / "checkpoints", 2) as writer:
        writer.save(1, {"kernel": jnp.zeros(2)}, {"step": jnp.int32(1)}, record, None)


def config(init_from):
    return default_config(env_name="hopper-demo", init_from=init_from).lock()


@pytest.mark.parametrize("now", ["source", "./source", "moved/source"])
def test_a_source_may_have_moved_since(tmp_path, now):
    begin(tmp_path, "source")
    checkpoint, record = last_checkpoint(tmp_path, config(now))
    assert checkpoint.step == 1
    assert as_before(config(now), record["config"]).init_from == "source"


@pytest.mark.parametrize(("before", "now"), [(None, "source"), ("source", None)])
def test_a_source_only_begins_a_run(tmp_path, before, now):
    begin(tmp_path, before)
    message = rf"init_from {before} -> {now}\): init_from only begins a run; set it"
    with pytest.raises(UserError, match=message):
        last_checkpoint(tmp_path, config(now))
