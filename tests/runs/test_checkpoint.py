"""Checkpoints: saving, retention, scores, and detection of every kind of damage."""

import json
import math
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import run

from dt_jax.runs import manifest
from dt_jax.runs.checkpoint import (
    CheckpointWriter,
    choose_checkpoint,
    find_checkpoints,
    has_checkpoints,
    is_unsaved,
)
from dt_jax.utils.errors import UserError


def params_at(step):
    return {"kernel": jnp.full((3, 2), float(step)), "bias": jnp.arange(2.0) / step}


def record_at(step):
    return {"config": {"betas": [0.9, 0.999]}, "step": step, "pending": None}


def save(writer, step, score=None):
    train = {"step": jnp.int32(step), "key": jax.random.key(step)}
    writer.save(step, params_at(step), train, record_at(step), score)


def write(folder, *steps, keep=3, scores=()):
    with CheckpointWriter(folder, keep) as writer:
        for i, step in enumerate(steps):
            save(writer, step, scores[i] if scores else None)


def steps_in(folder):
    return [checkpoint.step for checkpoint in find_checkpoints(folder)]


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_checkpoint_is_restored_to_the_same_bits(tmp_path):
    write(tmp_path / "c", 3)
    (checkpoint,) = find_checkpoints(tmp_path / "c")
    assert (checkpoint.step, checkpoint.score) == (3, None)
    params = checkpoint.params(jax.eval_shape(lambda: params_at(3)))
    jax.tree.map(np.testing.assert_array_equal, params, params_at(3))
    like = {"step": jnp.int32(0), "key": jax.random.key(0)}
    train = checkpoint.train(jax.eval_shape(lambda: like))
    assert train["step"] == 3
    assert jnp.array_equal(
        jax.random.key_data(train["key"]), jax.random.key_data(jax.random.key(3))
    )
    assert checkpoint.record == record_at(3)


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(
    ("scores", "kept", "best"),
    [
        ((1.0, 9.0, None, 2.0, None), [2, 4, 5], 2),
        ((2.0, 2.0, 1.0, 1.0), [2, 3, 4], 2),  # the newest of equal ones
    ],
)
def test_the_last_few_and_the_best_are_retained(tmp_path, scores, kept, best, resumed):
    steps = [*range(1, len(scores) + 1)]
    for part in (steps[:2], steps[2:]) if resumed else (steps,):
        chosen = [scores[step - 1] for step in part]
        write(tmp_path, *part, keep=2, scores=chosen)
    assert steps_in(tmp_path) == kept
    assert names_in(tmp_path) == {
        f"{step}{end}" for step in kept for end in ("", ".json")
    }
    assert choose_checkpoint(tmp_path, "last").step == kept[-1]
    assert choose_checkpoint(tmp_path, "best").step == best
    for which in (kept[1], str(kept[1])):
        assert choose_checkpoint(tmp_path, which).step == kept[1]


def test_checkpoints_that_a_killed_run_did_not_delete_are_deleted_at_the_start(
    tmp_path,
):
    write(tmp_path, 1, 2, 3, 4, keep=4, scores=(1.0, 2.0, 0.0, 0.0))
    write(tmp_path, keep=2)
    assert steps_in(tmp_path) == [2, 3, 4]


def test_the_best_needs_an_evaluation(tmp_path):
    write(tmp_path, 1)
    message = r"no checkpoint in .* was evaluated: choose last, or a step: 1$"
    with pytest.raises(UserError, match=message):
        choose_checkpoint(tmp_path, "best")


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_not_finite_never_ranks(tmp_path, monkeypatch, score):
    """Neither a new one nor one that an older version has written as NaN."""
    write(tmp_path, 1, 2, scores=(1.0, score))
    assert choose_checkpoint(tmp_path, "best").step == 1
    monkeypatch.setattr(manifest, "to_json", json.dumps)
    write(tmp_path, 3, scores=[score])
    assert choose_checkpoint(tmp_path, "best").step == 1


def test_a_manifest_is_json_whatever_the_record_holds(tmp_path):
    record = {"pending": {"train_loss/std": math.inf}, "shape": [1.0, (math.nan,)]}
    with CheckpointWriter(tmp_path, 3) as writer:
        writer.save(1, params_at(1), {"step": jnp.int32(1)}, record, None)
    text = (tmp_path / "1.json").read_text()
    assert not {"NaN", "Infinity"} & set(re.findall(r"\w+", text))
    (checkpoint,) = find_checkpoints(tmp_path)
    assert checkpoint.record == {
        "pending": {"train_loss/std": None},
        "shape": [1.0, [None]],
    }


def test_other_files_are_not_touched(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.json").write_text("mine")
    (tmp_path / "7.txt").mkdir()
    write(tmp_path, 1)
    assert names_in(tmp_path) > {"notes", "notes.json", "7.txt"}
    assert steps_in(tmp_path) == [1]


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"files": {}}', "\xbc", "[" * 200_000]
)
def test_a_malformed_manifest_is_reported(tmp_path, text):
    write(tmp_path, 1, 2)
    (tmp_path / "2.json").write_text(text, encoding="latin1")
    with pytest.warns(UserWarning, match="2 is corrupt and not used: .* damaged"):
        assert steps_in(tmp_path) == [1]


def test_arrays_may_be_donated_while_they_are_saved(tmp_path):
    step = jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)
    params = {"kernel": jnp.zeros(1_000_000)}
    with CheckpointWriter(tmp_path, 2) as writer:
        writer.save(1, params, {"step": jnp.int32(1)}, {}, None)
        for _ in range(20):
            params = step(params)
    (checkpoint,) = find_checkpoints(tmp_path)
    saved = checkpoint.params(jax.eval_shape(lambda: params))
    assert (np.asarray(saved["kernel"]) == 0).all()


def test_a_checkpoint_counts_once_its_manifest_is_written(tmp_path):
    with CheckpointWriter(tmp_path, 3) as writer:
        save(writer, 1)
        writer._manager.wait_until_finished()  # everything else is on disk
        assert steps_in(tmp_path) == []
        writer.poll()
        assert steps_in(tmp_path) == [1]


def test_a_save_that_was_killed_reads_as_absent_and_can_be_repeated(tmp_path):
    write(tmp_path, 1, 2)
    (tmp_path / "2.json").unlink()
    (tmp_path / "2.unfinished").touch()
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    assert steps_in(tmp_path) == [1]
    write(tmp_path, 2)
    assert steps_in(tmp_path) == [1, 2]
    assert names_in(tmp_path) == {"1", "1.json", "2", "2.json"}


def test_a_folder_is_unsaved_from_the_start_of_a_run_to_its_first_checkpoint(tmp_path):
    assert not is_unsaved(tmp_path)
    for _ in range(2):  # also at the next start
        with CheckpointWriter(tmp_path, 3) as writer:
            assert is_unsaved(tmp_path)
        assert is_unsaved(tmp_path)
    with CheckpointWriter(tmp_path, 3) as writer:
        save(writer, 1)
        writer.wait()
        assert not is_unsaved(tmp_path)
        (tmp_path / "0.unfinished").touch()  # killed before it was deleted
    write(tmp_path, 2)
    assert names_in(tmp_path) == {"1", "1.json", "2", "2.json"}


def test_a_deletion_that_was_killed_reads_as_absent(tmp_path):
    """At every point of it; the next start completes it."""
    write(tmp_path, 1, 2)
    manifest_file = tmp_path / "1.json"
    (tmp_path / "1.unfinished").touch()
    assert steps_in(tmp_path) == [2]
    manifest_file.unlink()
    assert steps_in(tmp_path) == [2]
    shutil.rmtree(tmp_path / "1" / "params")
    assert steps_in(tmp_path) == [2]
    write(tmp_path, 3)
    assert names_in(tmp_path) == {"2", "2.json", "3", "3.json"}


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_leftovers_read_as_absent_while_they_are_deleted(tmp_path, monkeypatch):
    for step in range(4, 10):
        (tmp_path / f"{step}/params").mkdir(parents=True)
        (tmp_path / f"{step}.unfinished").touch()
    seen = []
    monkeypatch.setattr(
        shutil, "rmtree", lambda _: seen.append(has_checkpoints(tmp_path))
    )
    CheckpointWriter(tmp_path, 2)
    assert seen == [False] * 6


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_each_damaged_file_is_detected_and_named(tmp_path, damage):
    """Each file in turn, including the manifest."""
    write(tmp_path, 1, 2)
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file()]
    assert len(files) > 10
    for file in [*files, tmp_path / "2.json"]:
        before = file.read_bytes()
        damage(file)
        if not before and file.exists():  # it had no byte to damage
            continue
        name = file.relative_to(tmp_path / ("" if file.suffix == ".json" else "2"))
        with pytest.warns(UserWarning, match=f"2 is corrupt and not used: .*{name}"):
            assert steps_in(tmp_path) == [1]
        file.write_bytes(before)
    assert steps_in(tmp_path) == [1, 2]


def test_a_renamed_checkpoint_is_detected(tmp_path):
    write(tmp_path, 1)
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    shutil.copy(tmp_path / "1.json", tmp_path / "2.json")
    with pytest.warns(UserWarning, match="2 is corrupt.*2.json is of another step"):
        assert steps_in(tmp_path) == [1]


def test_a_missing_folder_is_reported(tmp_path):
    write(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "2")
    with pytest.warns(UserWarning, match="2 is corrupt.*its folder is missing"):
        assert steps_in(tmp_path) == [1]
    with pytest.warns(UserWarning, match="2 is corrupt"):
        write(tmp_path, 3)
    assert steps_in(tmp_path) == [1, 3]


def test_a_checkpoint_may_be_deleted_by_hand_during_a_run(tmp_path):
    with CheckpointWriter(tmp_path, 2) as writer:
        for step in (1, 2):
            save(writer, step)
        shutil.rmtree(tmp_path / "1")
        (tmp_path / "1.json").unlink()
        save(writer, 3)
    assert steps_in(tmp_path) == [2, 3]


def test_a_score_may_be_set_later_and_counts_in_the_retention(tmp_path):
    with CheckpointWriter(tmp_path, 2) as writer:
        for step in (1, 2):
            save(writer, step, score=1.0)
        save(writer, 3)
        writer.set_score(3, 2.0)
        for step in (4, 5):
            save(writer, step, score=1.5)
    found = find_checkpoints(tmp_path)
    assert [(c.step, c.score) for c in found] == [(3, 2), (4, 1.5), (5, 1.5)]


def test_a_score_may_be_set_after_a_restart(tmp_path):
    """A resumed run repeats the evaluation of the checkpoint that it resumes from."""
    write(tmp_path, 1, 2, scores=(1.0, None))
    with CheckpointWriter(tmp_path, 3) as writer:
        writer.set_score(2, 3.0)
        save(writer, 3)
    found = find_checkpoints(tmp_path)
    assert [(c.step, c.score) for c in found] == [(1, 1), (2, 3), (3, None)]
    assert [c.record for c in found] == [record_at(step) for step in (1, 2, 3)]


def test_setting_a_score_keeps_record_and_arrays(tmp_path):
    with CheckpointWriter(tmp_path, 2) as writer:
        save(writer, 1)
        writer.set_score(1, 2.0)
        writer.set_score(1, 4.0)
    (checkpoint,) = find_checkpoints(tmp_path)
    assert checkpoint.score == 4
    assert checkpoint.record == record_at(1)
    params = checkpoint.params(jax.eval_shape(lambda: params_at(1)))
    jax.tree.map(np.testing.assert_array_equal, params, params_at(1))


def test_a_failed_save_is_reported_at_the_next_poll(tmp_path):
    """As on a full disk: in another process, whose files may not grow beyond a size."""
    code = """if True:
        import resource, signal, sys, time
        from pathlib import Path
        import jax.numpy as jnp
        from dt_jax.runs.checkpoint import CheckpointWriter
        from dt_jax.cli.common import run_command

        def main():
            big = {"kernel": jnp.arange(1e6)}
            with CheckpointWriter(Path(sys.argv[1]), 2) as writer:
                writer.save(1, {"kernel": jnp.zeros(3)}, {"step": 1}, {}, None)
                writer.wait()
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
                writer.save(2, big, {"step": 2}, {}, None)
                for step in range(300):  # as a run does after each update
                    time.sleep(0.1)
                    writer.poll()
                print("not reached")

        run_command(main, "-c")
    """
    status, out, err = run("-c", code, tmp_path)
    assert (status, out) == (2, ""), err
    (line,) = err.splitlines()
    assert f"the checkpoint of step 2 could not be saved in {tmp_path}" in line
    assert steps_in(tmp_path) == [1]


# Choosing one that does not exist, or is not valid.


@pytest.mark.parametrize("which", ["last", "best", 1])
def test_a_missing_folder_has_no_checkpoint(tmp_path, which):
    with pytest.raises(UserError, match=r"no checkpoint in .*: is it the folder of a"):
        choose_checkpoint(tmp_path / "nowhere", which)


@pytest.mark.parametrize("which", ["last", "best", 1])
def test_a_run_without_a_valid_checkpoint_is_reported(tmp_path, which):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    message = f"^{tmp_path} has no checkpoint yet"
    with pytest.raises(UserError, match=message):
        choose_checkpoint(folder, which)
    write(folder, 1)
    (folder / "1/_CHECKPOINT_METADATA").unlink()
    message = f"^every checkpoint in {folder} is corrupt: restore one"
    with (
        pytest.warns(UserWarning, match="1 is corrupt.*_CHECKPOINT_METADATA missing"),
        pytest.raises(UserError, match=message),
    ):
        choose_checkpoint(folder, which)


def test_an_unknown_step_is_reported_with_those_that_exist(tmp_path):
    write(tmp_path, 1, 2)
    with pytest.raises(UserError, match="there are: last, best, 1, 2"):
        choose_checkpoint(tmp_path, "7")


def test_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("dt_jax.runs.manifest.FORMAT", 9)
    write(tmp_path, 1)
    monkeypatch.undo()
    message = "1 has checkpoint format 9; this version of dt_jax reads format 4$"
    with pytest.raises(UserError, match=message):
        find_checkpoints(tmp_path)


def test_the_manifest_has_the_hash_of_every_file(tmp_path):
    write(tmp_path, 1)
    content = json.loads((tmp_path / "1.json").read_text())
    files = {
        str(p.relative_to(tmp_path / "1"))
        for p in (tmp_path / "1").rglob("*")
        if p.is_file()
    }
    assert content["files"].keys() == files
    assert all(len(digest) == 64 for digest in content["files"].values())
