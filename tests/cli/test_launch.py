"""launch.py and evaluate, as a user starts them."""

import signal
import time
from pathlib import Path

import pytest
from command import refusal, run, start

from dt_jax.runs.checkpoint import find_checkpoints
from dt_jax.runs.metrics import read_metrics

# A proxy where there is nobody.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
NO_NETWORK["no_proxy"] = ""
SMALL = [
    "--config=configs/hopper.py:medium",
    "--config.embedding_dim=8",
    "--config.num_layers=1",
    "--config.seq_len=3",
    "--config.batch_size=4",
    "--config.eval_episodes=2",
    "--config.eval_every=200",
    "--config.log_every=50",
    "--config.checkpoint_every=50",
    "--config.update_steps=400",
    "--config.target_returns=50,20",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(runs, hopper_file):
    status, out, err = run("launch.py", *arguments(runs / "whole", hopper_file))
    assert status == 0, err
    assert "hopper.hdf5" in out
    assert "normalised score" in out
    return runs / "whole"


def arguments(workdir, data):
    return [*SMALL, f"--config.data_path={data}", f"--workdir={workdir}"]


@pytest.mark.slow  # tests/faults/test_kill.py does it at every moment
def test_a_killed_run_ends_as_an_undisturbed_one(undisturbed, runs, hopper_file):
    """SIGKILL in the middle, then the same command again: the same bits."""
    workdir = runs / "killed"
    process = start("launch.py", *arguments(workdir, hopper_file))
    deadline = time.monotonic() + 200
    while not find_checkpoints(
        workdir / "checkpoints"
    ):  # none is deleted meanwhile, so early on
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert find_checkpoints(workdir / "checkpoints")[-1].step < 400

    status, out, err = run("launch.py", *arguments(workdir, hopper_file))
    assert status == 0, err
    assert "going on from the checkpoint at step" in out
    for item in ("params", "train"):
        assert restored(workdir, item) == restored(undisturbed, item)
    assert untimed(workdir) == untimed(undisturbed)


def restored(workdir, item):
    """Return the bytes of every array of the last checkpoint, read in a fresh way."""
    code = (
        "import sys, jax, numpy as np, orbax.checkpoint as ocp\n"
        "here = jax.sharding.SingleDeviceSharding(jax.devices()[0])\n"
        "def placed(x):\n"
        "    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)\n"
        "reader = ocp.StandardCheckpointer()\n"
        "saved = reader.metadata(sys.argv[1]).item_metadata.tree\n"
        "tree = reader.restore(sys.argv[1], jax.tree.map(placed, saved))\n"
        "for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:\n"
        "    key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)\n"
        "    x = np.asarray(jax.random.key_data(x) if key else x)\n"
        "    print(jax.tree_util.keystr(path), x.dtype, x.shape, x.tobytes().hex())\n"
    )
    step = find_checkpoints(workdir / "checkpoints")[-1].step
    status, out, err = run("-c", code, str(workdir / "checkpoints" / f"{step}" / item))
    assert status == 0, err
    assert out.count("\n") > 2
    return out


def untimed(workdir):
    rows = read_metrics(workdir / "metrics.jsonl")
    timed = {"steps_per_second", "eval/seconds"}
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def test_a_complete_run_is_said_to_be(undisturbed, hopper_file):
    status, out, _ = run("launch.py", *arguments(undisturbed, hopper_file))
    assert status == 0
    assert "this run is complete, with 400 updates" in out


def test_evaluate(undisturbed):
    command = ["-m", "dt_jax", "evaluate", str(undisturbed)]
    status, out, err = run(*command, "--target_returns=40,3.5", "--episodes=3")
    assert status == 0, err
    for part in ("hopper.hdf5", "last checkpoint", "after 400 updates", "40", "3.5"):
        assert part in " ".join(out.split())
    assert "no checkpoint '7'" in refusal(*command, "--checkpoint=7")
    assert "target_returns=a" in refusal(*command, "--target_returns=a")
    assert "observations of 11 and actions of 3 numbers" in refusal(
        *command, "--env_name=halfcheetah-medium-v2"
    )


def test_evaluate_without_a_run(tmp_path):
    line = refusal("-m", "dt_jax", "evaluate", str(tmp_path))
    assert line.startswith("python -m dt_jax evaluate: error: ")
    assert "is it the folder of a run" in line.replace(
        f"is {tmp_path} the", "is it the"
    )


def test_no_network_names_the_file_and_its_place(tmp_path):
    line = refusal(
        "launch.py",
        "--config=configs/hopper.py:medium",
        f"--workdir={tmp_path / 'run'}",
        DT_JAX_DATA=str(tmp_path / "cache"),
        **NO_NETWORK,
    )
    assert "hopper_medium-v2.hdf5" in line
    assert str(tmp_path / "cache" / "hopper_medium-v2.hdf5") in line
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "cache").glob("[!.]*"))


def test_without_d4rls_file_the_demo_is_named_and_not_taken(tmp_path):
    line = refusal(
        "launch.py",
        "--config=configs/antmaze.py",
        f"--workdir={tmp_path / 'run'}",
        DT_JAX_DATA=str(tmp_path / "cache"),
        **NO_NETWORK,
    )
    name = "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5"
    assert f"copy the file to {tmp_path / 'cache' / name}" in line
    assert "--config=configs/antmaze.py:umaze-demo" in line
    assert not list((tmp_path / "cache").glob("[!.]*"))
    assert not (tmp_path / "run").exists()


def test_the_device_is_chosen_before_the_back_end_starts(tmp_path, hopper_file):
    """Also where the environment has named another: the config's wins."""
    command = ["launch.py", *arguments(tmp_path / "run", hopper_file)]
    if not any(Path("/dev").glob("nvidia*")):
        line = refusal(*command, "--config.device=gpu")
        assert "config.device=gpu: JAX finds no such device" in line
        assert "requirements-cuda.txt" in line
    code = "import jax, dt_jax.training.train; print(jax._src.xla_bridge._backends)"
    status, out, err = run("-c", code)
    assert (status, out) == (0, "{}\n"), err  # no import has started it


def test_a_folder_that_may_not_be_written(tmp_path, hopper_file):
    (tmp_path / "file").write_text("in the way")
    line = refusal("launch.py", *arguments(tmp_path / "file" / "run", hopper_file))
    assert f"{tmp_path / 'file'} is not a folder" in line


def test_bad_data_is_told_with_its_file(tmp_path):
    file = tmp_path / "notes.hdf5"
    file.write_text("not HDF5")
    line = refusal("launch.py", *arguments(tmp_path / "run", file))
    assert f"{file}: corrupt, or not an HDF5 or .npz file" in line
    assert not (tmp_path / "run").exists()
