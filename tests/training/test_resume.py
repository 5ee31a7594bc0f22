"""Resuming a run: the same bits as an uninterrupted run, or a refusal in one line."""

import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    assert_same_run,
    assert_same_training,
    before_batch,
    changed,
    steps_of,
    train_until,
)

from dt_jax.config import default_config
from dt_jax.config.keys import keys_of
from dt_jax.data.registry import lookup
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.runs.checkpoint import (
    CheckpointWriter,
    choose_checkpoint,
    find_checkpoints,
)
from dt_jax.runs.metrics import read_metrics
from dt_jax.training import trainer
from dt_jax.training.resume import is_complete, last_checkpoint, resumed_config
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import locked
from dt_jax.utils.signals import Stopped

KEYS = keys_of("dt")


# Interruption.


def test_an_interrupted_run_resumes_to_the_same_bits(finished, small_config, tmp_path):
    """Parameters, optimiser state, random key and metrics."""
    train_until(7, small_config, tmp_path / "run")
    assert steps_of(tmp_path / "run")[-1] == 6
    train(small_config, tmp_path / "run")
    assert_same_run(tmp_path / "run", finished)


def send(signal_number):
    return lambda: os.kill(os.getpid(), signal_number)


def test_a_signal_between_updates_saves_and_stops(finished, small_config, tmp_path):
    config = changed(small_config, num_workers=0, eval_episodes=0)
    message = "^interrupted by SIGTERM after 6 updates; saved: run the same command"
    with (
        before_batch(5, send(signal.SIGTERM)),
        pytest.raises(Stopped, match=message),
    ):
        train(config, tmp_path / "run")
    assert steps_of(tmp_path / "run")[-1] == 6
    train(config, tmp_path / "run")
    assert_same_training(tmp_path / "run", finished)


@pytest.mark.parametrize("step", [8, pytest.param(0, marks=pytest.mark.slow)])
def test_a_signal_during_an_evaluation_stops_between_its_chunks(
    finished, small_config, tmp_path, monkeypatch, step
):
    """The resumed run repeats it: metrics and scores are those of `finished`."""
    workdir, chunk_ends = tmp_path / "run", []

    def signalling(evaluator, params, between_chunks):
        def signal_and_check():
            chunk_ends.append(0)
            os.kill(os.getpid(), signal.SIGUSR1)
            between_chunks()

        due = len(list((workdir / "eval").glob("*"))) == step / 4
        return call(evaluator, params, signal_and_check if due else between_chunks)

    call = Evaluator.__call__
    monkeypatch.setattr(Evaluator, "__call__", signalling)
    with pytest.raises(Stopped, match="interrupted by SIGUSR1") as stopped:
        train(small_config, workdir)
    when = f"after {step} updates; saved" if step else "before the first update"
    assert when in str(stopped.value)
    assert len(chunk_ends) == 1  # not at the episodes' end
    monkeypatch.undo()
    if step == 0:
        assert steps_of(workdir) == []
        return
    with monkeypatch.context() as patch:  # killed after its row is written
        patch.setattr(trainer.Trainer, "_save", lambda self, *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(small_config, workdir)
    train(small_config, workdir)
    assert is_complete(last_checkpoint(workdir, small_config), small_config)
    assert_same_run(workdir, finished)
    for run in (finished, workdir):
        scores = [c.score for c in find_checkpoints(run / "checkpoints")[-2:]]
        assert [score is None for score in scores] == [True, False]
    best, expected = (
        choose_checkpoint(run / "checkpoints", "best") for run in (workdir, finished)
    )
    assert (best.step, best.score) == (expected.step, expected.score)


def test_a_second_ctrl_c_stops_at_once(small_config, tmp_path):
    def interrupt_twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    config = changed(small_config, num_workers=0, eval_episodes=0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with before_batch(5, interrupt_twice), pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps_of(tmp_path / "run")[-1] == 3


def test_a_run_killed_before_its_first_checkpoint_starts_over(
    finished, small_config, tmp_path, capsys
):
    """Temporary files of killed writers are removed."""
    workdir = tmp_path / "run"
    config = changed(small_config, num_workers=0, eval_episodes=0)
    train_until(2, config, workdir)
    assert len(read_metrics(workdir / "metrics.jsonl")) == 1
    (workdir / "eval").mkdir()
    (workdir / "eval" / ".4.00112233.tmp.npz").touch()
    train(config, workdir)
    assert "has no checkpoint and starts over" in capsys.readouterr().out
    assert_same_training(workdir, finished)
    assert not list((workdir / "eval").glob(".*"))


@pytest.mark.parametrize(
    "schedule",
    ["warmup_constant", pytest.param("warmup_cosine", marks=pytest.mark.slow)],
)
def test_a_complete_run_resumes_with_more_updates(
    small_config, tmp_path, capsys, schedule
):
    config = changed(small_config, lr_schedule=schedule, eval_episodes=0)
    train(config, tmp_path / "run")
    train(changed(config, update_steps=12), tmp_path / "run")
    out = capsys.readouterr().out
    assert "resuming from the checkpoint at step 8" in out
    assert ("learning rates that decay" in out) == (schedule == "warmup_cosine")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    if schedule == "warmup_constant":  # the same as 12 updates from the start
        train(changed(config, update_steps=12), tmp_path / "uninterrupted")
        assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")


# What a resumed run may change.


def other_value(key, value):
    """Return another valid value of a key."""
    candidates = [
        *([not value] if isinstance(value, bool) else []),
        *([value + 1, value / 2] if isinstance(value, int | float) else []),
        *([(*value, 0.5)] if isinstance(value, tuple) else []),
        *re.split(r"[ ,]+", key.check.expected),  # of "one of cpu, gpu"
        *(1, 0.5, (1.0, 2.0), (0.5, 0.5), ("wandb",), "{'a': 1}"),
    ]
    return next(
        each for each in candidates if each != value and key.check.accepts(each)
    )


@pytest.mark.parametrize("name", sorted(KEYS.keys() - {"agent"}))
def test_a_resumed_run_may_change_exactly_the_resumable_keys(
    finished, small_config, name
):
    before, now = small_config[name], other_value(KEYS[name], small_config[name])
    config = changed(small_config, **{name: now})
    if KEYS[name].resumable:
        assert last_checkpoint(finished, config).step == 8
    else:
        change = re.escape(f"({name} {before} -> {now})")
        with pytest.raises(UserError, match=rf"holds another run {change}"):
            last_checkpoint(finished, config)


@pytest.mark.parametrize(
    "name", sorted(name for name, key in KEYS.items() if key.from_data)
)
def test_none_stands_for_the_runs_own_value_on_resume(finished, small_config, name):
    config = changed(small_config, **{name: None})
    checkpoint = last_checkpoint(finished, config)
    filled = resumed_config(config, checkpoint.record["config"])
    assert filled.to_dict() == small_config.to_dict()


def test_all_changed_keys_are_named(finished, small_config):
    config = changed(small_config, embedding_dim=16, train_seed=11, update_steps=20)
    message = r"holds another run \(embedding_dim 8 -> 16, train_seed 10 -> 11\)"
    with pytest.raises(UserError, match=message):
        train(config, finished)


def test_a_run_of_another_agent_is_refused(finished, small_config):
    with pytest.raises(UserError, match="holds a run of the agent dt, not other"):
        last_checkpoint(finished, changed(small_config, agent="other"))


def test_other_data_is_refused(finished, small_config, hopper_file, tmp_path):
    other = tmp_path / "other.hdf5"
    content = bytearray(hopper_file.read_bytes())
    at = content.rindex(np.float32(0).tobytes() * 4)  # in no array
    content[at] ^= 1
    other.write_bytes(content)
    config = changed(small_config, update_steps=20, data_path=str(other))
    message = r"but the content of .*other.hdf5 differs \(sha256"
    with pytest.raises(UserError, match=message):
        train(config, finished)


def test_changed_action_bounds_are_refused(finished, small_config, monkeypatch):
    """As if a package had changed its environment since the run started."""
    wider = replace(lookup(small_config.env_name), action_high=2.0)
    monkeypatch.setattr("dt_jax.envs.spec_from_config", lambda config: wider)
    with pytest.raises(UserError, match="bounds on actions: number 0 was between"):
        train(changed(small_config, update_steps=12), finished)


def test_a_second_process_in_the_folder_is_refused(finished, small_config):
    before = sorted(path.name for path in finished.rglob("*"))
    with (
        locked(finished),
        pytest.raises(UserError, match=f"in use by process {os.getpid()} on"),
    ):
        train(changed(small_config, update_steps=20), finished)
    assert sorted(path.name for path in finished.rglob("*")) == before


def test_a_run_without_valid_checkpoints_is_not_overwritten(
    finished, small_config, tmp_path
):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    for step in steps_of(workdir):
        (workdir / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").unlink()
    with (
        pytest.warns(UserWarning, match="corrupt.*: _CHECKPOINT_METADATA missing"),
        pytest.raises(UserError, match=r"every checkpoint in .* is corrupt: restore"),
    ):
        train(small_config, workdir)
    assert len(read_metrics(workdir / "metrics.jsonl")) == 5


@pytest.mark.parametrize("log_every", [2, 1000])
@pytest.mark.parametrize("deleted", ["checkpoints", "checkpoints/*"])
def test_a_run_whose_checkpoints_were_deleted_is_not_overwritten(
    finished, small_config, tmp_path, deleted, log_every
):
    """Whether it has logged anything yet or not."""
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    config = changed(small_config, log_every=log_every)
    if log_every > config.update_steps:
        (workdir / "metrics.jsonl").write_text("")
    rows = (workdir / "metrics.jsonl").read_text()
    for path in workdir.glob(deleted):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = f"^{workdir} holds a run whose checkpoints are gone: restore them"
    for again in (config, changed(config, batch_size=2)):
        with pytest.raises(UserError, match=message):
            train(again, workdir)
    assert (workdir / "metrics.jsonl").read_text() == rows


@pytest.mark.parametrize("left", ["config.json", "eval/4.npz"])
def test_a_run_of_which_little_was_left_is_not_overwritten(
    finished, small_config, tmp_path, left
):
    (tmp_path / left).parent.mkdir(exist_ok=True)
    shutil.copy(finished / left, tmp_path / left)
    with pytest.raises(UserError, match="holds a run whose checkpoints are gone"):
        train(small_config, tmp_path)


def test_a_complete_run_is_tidied_if_it_was_killed_after_its_last_save(
    finished, small_config, tmp_path, capsys
):
    """In the deletion of a checkpoint that is not retained."""
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    folder = workdir / "checkpoints"
    before = {path.name for path in folder.iterdir()}
    shutil.copytree(folder / "8", folder / "1")
    (folder / "1.unfinished").touch()
    train(small_config, workdir)
    assert "this run is complete" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == before


# Runs that were started from another one; imported runs.


def save_checkpoint(workdir, dataset, **changes):
    """Write a run's folder with one checkpoint of arbitrary arrays."""
    config = default_config(env_name="hopper-demo", **changes)
    record = {"config": config.to_dict(), "dataset": dataset}
    with CheckpointWriter(workdir / "checkpoints", 2) as writer:
        writer.save(1, {"kernel": jnp.zeros(2)}, {"step": jnp.int32(1)}, record, None)


@pytest.mark.parametrize("now", ["source", "./source", "moved/source"])
def test_the_source_of_a_warm_start_may_have_moved(tmp_path, now):
    save_checkpoint(tmp_path, {}, init_from="source")
    config = default_config(env_name="hopper-demo", init_from=now).lock()
    checkpoint = last_checkpoint(tmp_path, config)
    assert checkpoint.step == 1
    before = checkpoint.record["config"]
    assert resumed_config(config, before).init_from == "source"


@pytest.mark.parametrize(("before", "now"), [(None, "source"), ("source", None)])
def test_a_resumed_run_may_not_add_or_remove_its_source(tmp_path, before, now):
    save_checkpoint(tmp_path, {}, init_from=before)
    config = default_config(env_name="hopper-demo", init_from=now).lock()
    message = rf"holds another run \(init_from {before} -> {now}\): set these back"
    with pytest.raises(UserError, match=message):
        last_checkpoint(tmp_path, config)


def test_an_imported_run_is_not_resumed(tmp_path):
    save_checkpoint(tmp_path, {"imported_from": "corl"})
    config = default_config(env_name="hopper-demo").lock()
    message = f"was imported and cannot be resumed: .*init_from={tmp_path}"
    with pytest.raises(UserError, match=message):
        last_checkpoint(tmp_path, config)
