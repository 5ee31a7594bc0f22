import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import run

from dt_jax.runs.checkpoint import (
    CheckpointWriter,
    choose_checkpoint,
    find_checkpoints,
    has_checkpoints,
)
from dt_jax.utils.errors import UserError


def params_at(step):
    return {"kernel": jnp.full((3, 2), float(step)), "bias": jnp.arange(2.0) / step}


def save(writer, step, score=None, record=None):
    writer.save(
        step,
        params_at(step),
        {"step": jnp.int32(step), "key": jax.random.key(step)},
        record or {"state_mean": [0.1, step]},
        score,
    )


def write(folder, *steps, keep=3, scores=()):
    with CheckpointWriter(folder, keep) as writer:
        for i, step in enumerate(steps):
            save(writer, step, scores[i] if scores else None)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    write(tmp_path / "c", 3)
    (checkpoint,) = find_checkpoints(tmp_path / "c")
    assert (checkpoint.step, checkpoint.score) == (3, None)
    same(checkpoint.params(jax.eval_shape(lambda: params_at(3))), params_at(3))
    like = {"step": jnp.int32(0), "key": jax.random.key(0)}
    train = checkpoint.train(jax.eval_shape(lambda: like))
    assert train["step"] == 3
    assert jnp.array_equal(
        jax.random.key_data(train["key"]), jax.random.key_data(jax.random.key(3))
    )
    record = checkpoint.record
    assert record == {"state_mean": [0.1, 3], "format_version": 3}


def test_the_last_few_and_the_best_are_kept(tmp_path):
    write(tmp_path, 1, 2, 3, 4, 5, keep=2, scores=(1.0, 9.0, None, 2.0, None))
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [2, 4, 5]
    assert {path.name for path in tmp_path.iterdir()} == {
        "2", "2.json", "4", "4.json", "5", "5.json",
    }  # fmt: skip
    assert choose_checkpoint(tmp_path, "last").step == 5
    assert choose_checkpoint(tmp_path, "best").step == 2
    assert (
        choose_checkpoint(tmp_path, 4).step
        == choose_checkpoint(tmp_path, "4").step
        == 4
    )


def test_the_best_is_kept_when_a_run_goes_on(tmp_path):
    write(tmp_path, 1, 2, keep=2, scores=(9.0, 1.0))
    write(tmp_path, 3, 4, keep=2, scores=(2.0, None))
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1, 3, 4]


def test_the_best_needs_an_evaluation(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(UserError, match=r"an evaluation: choose last, or a step: 1$"):
        choose_checkpoint(tmp_path, "best")


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.json").write_text("mine")
    (tmp_path / "7.txt").mkdir()
    write(tmp_path, 1)
    assert {"notes", "notes.json", "7.txt"} < {path.name for path in tmp_path.iterdir()}
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"files": {}}', "\xbc"])
def test_a_manifest_that_cannot_be_read(tmp_path, text):
    write(tmp_path, 1, 2)
    (tmp_path / "2.json").write_text(text, encoding="latin1")
    with pytest.warns(UserWarning, match="2 is not used"):
        assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1]


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


def test_a_checkpoint_counts_once_its_manifest_is_there(tmp_path):
    with CheckpointWriter(tmp_path, 3) as writer:
        save(writer, 1)
        writer._manager.wait_until_finished()  # all is on disk but the manifest
        assert find_checkpoints(tmp_path) == []
        writer.poll()
        assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1]


def test_what_a_killed_run_left_is_absent_and_can_be_saved_again(tmp_path):
    write(tmp_path, 1, 2)
    (tmp_path / "2.json").unlink()
    (tmp_path / "2.unfinished").touch()
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1]
    write(tmp_path, 2)
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {
        "1", "1.json", "2", "2.json",
    }  # fmt: skip


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_what_is_cleared_away_stays_absent_all_the_while(tmp_path, monkeypatch):
    for step in range(4, 10):
        (tmp_path / f"{step}/params").mkdir(parents=True)
        (tmp_path / f"{step}.unfinished").touch()
    seen = []
    monkeypatch.setattr(
        shutil, "rmtree", lambda _: seen.append(has_checkpoints(tmp_path))
    )
    CheckpointWriter(tmp_path, 2)
    assert seen == [False] * 6


@pytest.mark.parametrize("damage", [cut_short, flip, Path.unlink])
def test_each_damaged_file_is_found_out_and_named(tmp_path, damage):
    """Truncated, a bit flipped or deleted, each in turn, the manifest too."""
    write(tmp_path, 1, 2)
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file()]
    assert len(files) > 10
    for file in [*files, tmp_path / "2.json"]:
        before = file.read_bytes()
        damage(file)
        if not before and file.exists():  # there was no byte to damage
            continue
        name = file.relative_to(tmp_path / ("" if file.suffix == ".json" else "2"))
        with pytest.warns(UserWarning, match=f"2 is not used: .*{name}"):
            assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1]
        file.write_bytes(before)
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1, 2]


def test_a_checkpoint_of_another_step_is_found_out(tmp_path):
    write(tmp_path, 1)
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    shutil.copy(tmp_path / "1.json", tmp_path / "2.json")
    with pytest.warns(UserWarning, match="2 is not used: .*2.json is of another step"):
        assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1]


def test_a_deleted_checkpoint_is_told(tmp_path):
    write(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "2")
    with pytest.warns(UserWarning, match="2 is not used: its folder is missing"):
        assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1]
    with pytest.warns(UserWarning, match="2 is not used"):
        write(tmp_path, 3)
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1, 3]


def test_one_that_is_deleted_by_hand_meanwhile_is_no_matter(tmp_path):
    with CheckpointWriter(tmp_path, 2) as writer:
        for step in (1, 2):
            save(writer, step)
        shutil.rmtree(tmp_path / "1")
        (tmp_path / "1.json").unlink()
        save(writer, 3)
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [2, 3]


def test_a_checkpoint_may_get_its_score_later(tmp_path):
    with CheckpointWriter(tmp_path, 2) as writer:
        for step in (1, 2):
            save(writer, step, score=1.0)
        save(writer, 3)
        writer.rate(3, 2.0)
        for step in (4, 5):
            save(writer, step, score=1.5)
    assert [(c.step, c.score) for c in find_checkpoints(tmp_path)] == [
        (3, 2),
        (4, 1.5),
        (5, 1.5),
    ]


def test_a_save_that_fails_is_told_at_the_next_step(tmp_path):
    """As on a full disk: no file may grow beyond a limit, in a process of its own."""
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
                writer.confirm()
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
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1]


@pytest.mark.parametrize("which", ["last", "best", 1])
def test_no_checkpoint_at_all(tmp_path, which):
    with pytest.raises(UserError, match=r"no checkpoint in .*: is it the folder of a"):
        choose_checkpoint(tmp_path / "nowhere", which)


@pytest.mark.parametrize("which", ["last", "best", 1])
def test_a_run_without_a_whole_checkpoint(tmp_path, which):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    message = f"^{tmp_path} is a run, but none of its checkpoints is whole"
    with pytest.raises(UserError, match=f"{message} yet: let it train on"):
        choose_checkpoint(folder, which)
    write(folder, 1)
    (folder / "1/_CHECKPOINT_METADATA").unlink()
    with (
        pytest.warns(UserWarning, match="1 is not used: _CHECKPOINT_METADATA missing"),
        pytest.raises(UserError, match=f"{message} any more: restore one in {folder},"),
    ):
        choose_checkpoint(folder, which)


def test_no_such_checkpoint(tmp_path):
    write(tmp_path, 1, 2)
    with pytest.raises(UserError, match="there are: last, best, 1, 2"):
        choose_checkpoint(tmp_path, "7")


def test_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("dt_jax.runs.manifest.FORMAT_VERSION", 9)
    write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(
        UserError, match=r"format 9, which .*; this version reads formats 2 and 3"
    ):
        find_checkpoints(tmp_path)[0].record


def test_format_2_is_read(tmp_path, monkeypatch):
    """Its manifests had neither their own version nor their own hash."""
    monkeypatch.setattr("dt_jax.runs.manifest.FORMAT_VERSION", 2)
    write(tmp_path, 1)
    manifest = json.loads((tmp_path / "1.json").read_text())
    del manifest["format"], manifest["sha256"]
    (tmp_path / "1.json").write_text(json.dumps(manifest))
    monkeypatch.undo()
    (checkpoint,) = find_checkpoints(tmp_path)
    assert checkpoint.record["format_version"] == 2
    same(checkpoint.params(jax.eval_shape(lambda: params_at(1))), params_at(1))


def test_the_manifest_names_every_file(tmp_path):
    write(tmp_path, 1)
    manifest = json.loads((tmp_path / "1.json").read_text())
    files = {
        str(p.relative_to(tmp_path / "1"))
        for p in (tmp_path / "1").rglob("*")
        if p.is_file()
    }
    assert manifest["files"].keys() == files
    assert all(len(digest) == 64 for digest in manifest["files"].values())
