"""The public API, as a notebook uses it."""

import subprocess
import sys
from pathlib import Path

import pytest
from command import run

ROOT = Path(__file__).parents[1]

NOTEBOOK = """
import logging, os, sys, warnings
import numpy as np
import envpool, flax.linen, jax, matplotlib.figure, orbax.checkpoint, rich.console
import dt_jax

# After the libraries, which change some of this when they are imported.
before = (
    sys.stdout, logging.getLogger().level, logging.getLogger("absl").level,
    warnings.showwarning, list(warnings.filters), os.environ.get("XLA_FLAGS"),
)
np.random.seed(3)
state = np.random.get_state()[1].copy()

dataset = dt_jax.load_dataset("DATA")
assert dataset.trajectories.num_trajectories == 6
config = dt_jax.load_config(
    "configs/quickstart.py", env_name="hopper-demo", data_path="DATA", embedding_dim=8,
    num_layers=1, attention_dropout=0.0, residual_dropout=0.0,  # compile faster
    update_steps=40, warmup_steps=2, eval_every=20, eval_episodes=2,
    target_returns=(40.0, 10.0), log_every=10, checkpoint_every=10, episode_len=50,
)
seen = []

def callback(step, row, stop):
    seen.append(step)
    if step == 20:
        stop()

run = dt_jax.train(config, "WORKDIR", callbacks=[callback])
assert run.stopped and run.step == 20 and seen == [0, 10, 20], (run, seen)
run = dt_jax.train(config, "WORKDIR")
assert not run.stopped and run.step == 40
assert [row["step"] for row in run.metrics()] == [0, 10, 20, 30, 40]
policy = run.policy()
policy.reset(40.0)
assert policy.act(np.zeros(11)).shape == (3,)
evaluation = dt_jax.evaluate(run, target_returns=[30.0], episodes=3)
assert evaluation.returns.shape == (1, 3)
policy = dt_jax.Policy.load("WORKDIR", checkpoint="best")

try:
    dt_jax.load_config("configs/quickstart.py", batchsize=3)
except Exception as error:
    assert "nearest: batch_size" in str(error)
else:
    raise AssertionError
assert np.array_equal(np.random.get_state()[1], state)
after = (
    sys.stdout, logging.getLogger().level, logging.getLogger("absl").level,
    warnings.showwarning, list(warnings.filters), os.environ.get("XLA_FLAGS"),
)
assert after == before
print("done")
"""


def test_a_notebook_trains_stops_resumes_evaluates_and_acts(tmp_path, hopper_file):
    code = NOTEBOOK.replace("DATA", str(hopper_file))
    status, out, err = run("-c", code.replace("WORKDIR", str(tmp_path / "run")))
    assert status == 0, err
    assert out.endswith("done\n")


@pytest.mark.slow
def test_training_in_a_thread_installs_no_signal_handlers(tmp_path, hopper_file):
    code = f"""
import signal, threading
import dt_jax
config = dt_jax.load_config(
    "configs/quickstart.py", env_name=None, data_path={str(hopper_file)!r},
    embedding_dim=8, num_layers=1, update_steps=5, holdout_fraction=0.2,
)
before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
thread = threading.Thread(target=dt_jax.train, args=(config, {str(tmp_path)!r}))
thread.start(); thread.join()
assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
assert dt_jax.Policy.load({str(tmp_path)!r})
"""
    status, _, err = run("-c", code)
    assert status == 0, err


def test_importing_the_package_imports_neither_jax_nor_numpy():
    code = (
        "import sys, dt_jax; "
        "assert not {'jax', 'numpy', 'flax', 'gymnasium'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_device_that_contradicts_the_started_backend_is_an_error(hopper_file):
    import dt_jax
    from dt_jax.utils.errors import UserError

    config = dt_jax.load_config(
        "configs/own_data.py", data_path=str(hopper_file), device="tpu"
    )
    with pytest.raises(UserError, match=r"device=tpu: JAX uses cpu; "):
        dt_jax.train(config, "unused")


def test_public_names_are_those_of_all():
    import dt_jax

    for name in dt_jax.__all__:
        assert getattr(dt_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Polcy'"):
        _ = dt_jax.Polcy
