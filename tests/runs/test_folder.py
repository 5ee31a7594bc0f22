"""A run's folder, written and read back."""

import json
import os
from contextlib import suppress

import jax.numpy as jnp
import numpy as np
import pytest

from dt_jax.config import default_config
from dt_jax.runs.checkpoint import CheckpointWriter
from dt_jax.runs.evaluations import (
    Evaluation,
    delete_evaluations_after,
    last_evaluation,
)
from dt_jax.runs.folder import read_checkpoint, read_run, write_description
from dt_jax.runs.metrics import MetricsLog
from dt_jax.utils.errors import UserError

DATASET = {"source": "hopper.hdf5", "sha256": "5e" * 32, "return_best": 900.0}
SEEDS, TARGETS, EPISODES = 2, 3, 4


def write_run(folder, dataset=DATASET, **changes):
    """Write the folder of a run of two updates, with two seeds unless changed."""
    changes = {"env_name": "hopper-demo", "num_seeds": SEEDS} | changes
    record = {
        "config": default_config(**changes).to_dict(),
        "dataset": dataset,
        "versions": {"jax": "0.10.0"},
        "step": 2,
    }
    with CheckpointWriter(folder / "checkpoints", 2) as writer:
        writer.save(2, {"kernel": jnp.zeros(2)}, {"step": jnp.int32(2)}, record, None)
    write_description(folder, record)
    with MetricsLog(folder / "metrics.jsonl", up_to_step=-1) as log:
        log.write(0, {"eval/seconds": 2.0})
        for step, loss in [(1, 0.5), (2, 0.25)]:
            seeds = {f"seed_{10 + i}/train_loss": loss * (1 + i) for i in range(2)}
            log.write(step, {"train_loss": 1.5 * loss, **seeds})
    return folder


def make_evaluation(shape=(SEEDS, TARGETS, EPISODES), scored=True):
    """Return an evaluation whose arrays have a shape."""
    numbers = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Evaluation(
        target_returns=np.array([3.0, 2.0, 1.0]),
        seeds=np.arange(EPISODES),
        returns=numbers,
        lengths=numbers.astype(np.int32),
        normalized_scores=numbers / 2 if scored else None,
    )


# The run.


def test_a_run_is_read_back_from_its_checkpoint_and_metrics(tmp_path):
    run = read_run(write_run(tmp_path, update_steps=2))
    assert run.config.env_name == "hopper-demo"
    assert run.config.is_locked
    assert list(run.seeds) == [10, 11]
    assert (run.dataset, run.versions) == (DATASET, {"jax": "0.10.0"})
    assert run.newest is None
    curve = run.curve("train_loss")
    np.testing.assert_array_equal(curve.steps, [1, 2])
    np.testing.assert_array_equal(curve.values, [[0.5, 0.25], [1.0, 0.5]])
    np.testing.assert_array_equal(run.shared_curve("eval/seconds").values, [[2.0]])
    assert run.curve("grad_norm").values.shape == (2, 0)


def test_the_curve_of_one_seed_has_the_plain_name(tmp_path):
    run = read_run(write_run(tmp_path, num_seeds=1))
    np.testing.assert_array_equal(run.curve("train_loss").values, [[0.75, 0.375]])


def test_the_json_files_are_only_copies(tmp_path):
    write_run(tmp_path)
    for name in ("config", "versions"):
        (tmp_path / f"{name}.json").write_text("edited by hand")
    assert read_run(tmp_path).config.num_seeds == 2


def test_the_description_has_the_record(tmp_path):
    write_run(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["env_name"] == "hopper-demo"
    about = json.loads((tmp_path / "versions.json").read_text())
    assert about == {"jax": "0.10.0", "dataset": DATASET}


def test_a_folder_of_runs_is_refused(tmp_path):
    (tmp_path / "hopper").mkdir()
    write_run(tmp_path / "hopper")
    with pytest.raises(UserError, match=r"only runs in it \(hopper\): choose one"):
        read_run(tmp_path)


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(UserError, match=f"is {tmp_path} a run's folder"):
        read_checkpoint(tmp_path, "last")


def test_an_imported_run_has_no_metrics_to_read(tmp_path):
    write_run(tmp_path, dataset=DATASET | {"imported_from": "corl"})
    with pytest.raises(UserError, match="was imported: there are no metrics of its"):
        read_run(tmp_path)
    assert read_checkpoint(tmp_path, "last").step == 2


# Its evaluations.


@pytest.mark.parametrize("scored", [True, False])
def test_the_newest_evaluation_is_read_back(tmp_path, scored):
    write_run(tmp_path)
    make_evaluation().save(tmp_path / "eval" / "9.npz")
    newest = make_evaluation(scored=scored)
    newest.save(tmp_path / "eval" / "10.npz")
    step, found = read_run(tmp_path).newest
    assert step == 10
    assert vars(found).keys() == vars(newest).keys()
    for name, array in vars(newest).items():
        np.testing.assert_array_equal(getattr(found, name), array)


def test_a_resumed_run_deletes_later_evaluations(tmp_path):
    for step in (0, 5, 10, 15):
        make_evaluation().save(tmp_path / "eval" / f"{step}.npz")
    (tmp_path / "eval" / "notes.npz").touch()
    delete_evaluations_after(5, tmp_path)
    names = {path.name for path in (tmp_path / "eval").iterdir()}
    assert names == {"0.npz", "5.npz", "notes.npz"}
    assert last_evaluation(tmp_path)[0] == 5


@pytest.mark.parametrize("shape", [(TARGETS, EPISODES), (3, TARGETS, EPISODES), ()])
def test_an_evaluation_of_another_shape_is_refused(tmp_path, shape):
    write_run(tmp_path)
    make_evaluation(shape).save(tmp_path / "eval" / "2.npz")
    with pytest.raises(UserError, match=r"2.npz is not an evaluation of this run"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04" + bytes(99)])
def test_a_damaged_evaluation_is_refused(tmp_path, content):
    write_run(tmp_path)
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "2.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"2.npz is not a valid evaluation: remove it"):
        read_run(tmp_path)


@pytest.mark.slow
def test_a_flipped_bit_in_any_byte_of_an_evaluation_is_refused_or_harmless(tmp_path):
    """Only bytes that nobody reads, such as a time, may change without an error."""
    path = tmp_path / "2.npz"
    make_evaluation().save(path)
    content, expected = path.read_bytes(), vars(make_evaluation())
    for i in range(len(content)):
        damaged = bytearray(content)
        damaged[i] ^= 1 << i % 8
        path.write_bytes(damaged)
        with suppress(UserError):
            found = vars(Evaluation.load(path))
            np.testing.assert_equal(found, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"returns": np.array(["a"])},
        {"returns": np.zeros((SEEDS, TARGETS, 0))},
        {"seeds": np.array(4)},
        {"target_returns": np.array(3.0)},
        {"lengths": np.array([{}])},
    ],
)
def test_an_evaluation_of_other_arrays_is_refused(tmp_path, change):
    np.savez(tmp_path / "2.npz", **vars(make_evaluation()) | change)
    with pytest.raises(UserError, match=r"2.npz is not a valid evaluation: remove it"):
        Evaluation.load(tmp_path / "2.npz")


@pytest.mark.parametrize("name", ["metrics.jsonl", "eval/2.npz", "checkpoints/2.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(tmp_path, name, kind):
    """Reading a pipe or /dev/zero would never end."""
    make_evaluation().save(write_run(tmp_path) / "eval" / "2.npz")
    path = tmp_path / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError, match=f"{path} is not a regular file: remove it"):
        _ = read_run(tmp_path).rows


def test_metrics_of_an_evaluation_are_over_its_episodes():
    metrics = make_evaluation().select_seed(1).metrics()
    assert metrics["eval/3.0_return_mean"] == 13.5
    assert metrics["eval/1.0_normalized_score_mean"] == 21.5 / 2
    assert metrics["eval/2.0_return_std"] == pytest.approx(np.std([0, 1, 2, 3]))
    assert make_evaluation().metrics()["eval/3.0_return_mean"].tolist() == [1.5, 13.5]
    assert not any("score" in name for name in make_evaluation(scored=False).metrics())


def test_without_a_target_return_metrics_have_the_plain_names():
    evaluation = make_evaluation((1, EPISODES), scored=False)
    evaluation = Evaluation(**vars(evaluation) | {"target_returns": np.array([np.nan])})
    assert sorted(evaluation.metrics()) == [
        "eval/length_mean",
        "eval/length_std",
        "eval/return_mean",
        "eval/return_std",
    ]
