"""The loggers' own files, read back; what becomes of a run when one fails."""

import json
import os
import signal
import struct
import sys
import time

import psutil
import pytest
from command import start
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from dt_jax.runs.checkpoint import find_checkpoints
from dt_jax.runs.metrics import read_metrics
from dt_jax.training import loggers, trainer
from dt_jax.training.dry_run import dry_run
from dt_jax.training.loggers import Loggers, check_installed
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError


@pytest.fixture(autouse=True)
def _nobodys_wandb(tmp_path, monkeypatch):
    """No key, and nothing of the user's is read or written."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def config_with(config, *names, **changes):
    config = config.copy_and_resolve_references().unlock()
    config.update(loggers=names, eval_episodes=0, **changes)
    return config.lock()


def events(file):
    """Yield the events of a TFRecord file, whose checksums must hold."""
    content = file.read_bytes()
    while content:
        header, (length,) = content[:8], struct.unpack("<Q", content[:8])
        data = content[12 : 12 + length]
        (of_header,) = struct.unpack("<I", content[8:12])
        (of_data,) = struct.unpack("<I", content[12 + length : 16 + length])
        assert of_header == masked_crc32c(header)
        assert of_data == masked_crc32c(data)
        yield Event.FromString(data)
        content = content[16 + length :]


def shown(workdir):
    """Return {step: {metric: value}} as TensorBoard has it, from all starts."""
    rows = []
    for file in sorted((workdir / "tensorboard").iterdir()):
        first, *rest = events(file)
        assert first.file_version == "brain.Event:2"
        for event in rest:
            if event.session_log.status == SessionLog.START:
                rows = [(step, row) for step, row in rows if step < event.step]
            else:
                values = {v.tag: v.simple_value for v in event.summary.value}
                rows.append((event.step, values))
    assert len(dict(rows)) == len(rows)  # no step twice
    return dict(rows)


def stored(file):
    """Return the records of wandb's store, a log of LevelDB's format."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts, records = file.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:  # of a block, where no header fits
            at += left
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(parts))
            parts = b""
    return records


def history(records):
    """Return {step: {metric: value}} of wandb's records."""
    rows = {}
    for record in records:
        if record.HasField("history"):
            items = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            row = {k: v for k, v in items.items() if not k.startswith("_")}
            rows[record.history.step.num] = row
    return rows


def logged(workdir):
    rows = read_metrics(workdir / "metrics.jsonl")
    return {row.pop("step"): row for row in rows}


def same(rows, others):
    assert rows.keys() == others.keys()
    for step, row in rows.items():
        assert row == pytest.approx(others[step], rel=1e-6)


def interrupted(config, workdir, monkeypatch, at):
    """Break a run off inside an update, with no clearing up of its loggers."""
    indices = trainer.Sampler.indices

    def breaking(self, step):
        if step == at:
            raise KeyboardInterrupt
        return indices(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Sampler, "indices", breaking)
        with pytest.raises(KeyboardInterrupt):
            train(config, workdir)


def test_a_run_that_goes_on_hides_what_it_repeats(small_config, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    config = config_with(
        small_config, "tensorboard", num_workers=0, checkpoint_every=4, log_every=1
    )
    interrupted(config, workdir, monkeypatch, at=6)
    before = shown(workdir)
    assert list(before) == [1, 2, 3, 4, 5, 6]
    train(config, workdir)
    assert len(list((workdir / "tensorboard").iterdir())) == 2
    after = shown(workdir)
    same(after, logged(workdir))
    assert after[4] == before[4]
    assert after[6]["steps_per_second"] != before[6]["steps_per_second"]


def test_tensorboard_itself_hides_it_too(small_config, tmp_path):
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    config = config_with(small_config, "tensorboard")
    for first, last in [(1, 6), (5, 8)]:
        with Loggers(config, tmp_path, up_to_step=first - 1) as one:
            for step in range(first, last + 1):
                one.write(step, {"train_loss": first})
    accumulator = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    scalars = [(each.step, each.value) for each in accumulator.Scalars("train_loss")]
    assert scalars == [(s, 1) for s in range(1, 5)] + [(s, 5) for s in range(5, 9)]


def test_wandbs_offline_store_has_every_row(small_config, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    workdir = tmp_path / "run"
    config = config_with(small_config, "wandb", project="p", group="g", name="n")
    train(config, workdir)
    (file,) = workdir.glob("wandb/offline-run-*/run-*.wandb")
    records = stored(file)
    (about,) = (record.run for record in records if record.HasField("run"))
    labels = (about.project, about.run_group, about.display_name)
    assert labels == ("p", "g", "n")
    assert about.run_id == (workdir / "wandb" / "run_id").read_text()
    kept = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert kept["seq_len"] == 3
    same(history(records), logged(workdir))
    with Loggers(config, workdir, up_to_step=8) as going_on:
        going_on.write(10, {"train_loss": 0.5, "seed_11/train_loss": 0.25})
    first, second = sorted(workdir.glob("wandb/offline-run-*/run-*.wandb"))
    assert first.name == second.name  # one run, which wandb sync puts together
    row = {"train_loss": 0.5, "seed_11/train_loss": 0.25}
    assert history(stored(second)) == {10: row}


def test_without_a_server_wandb_keeps_the_rows(
    small_config, tmp_path, monkeypatch, capfd
):
    """And asks for no key."""
    pytest.importorskip("wandb")
    monkeypatch.setattr(loggers, "_INIT_SECONDS", 1.0)
    config = config_with(small_config, "wandb")
    for name, key in [("no key", None), ("no server", "0" * 40)]:
        if key:
            monkeypatch.setenv("WANDB_API_KEY", key)
            monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        workdir = tmp_path / name
        workdir.mkdir()
        began = time.monotonic()
        with Loggers(config, workdir, up_to_step=0) as both:
            assert time.monotonic() - began < 30
            both.write(2, {"train_loss": 0.5})
        (file,) = workdir.glob("wandb/offline-run-*/run-*.wandb")
        assert history(stored(file)) == {2: {"train_loss": 0.5}}
        out, err = capfd.readouterr()
        assert err == ""
        (line,) = out.splitlines()
        assert line.startswith("wandb: ")
        assert line.endswith(f"wandb sync {file.parent}")


def test_a_run_with_wandb_answers_a_signal(hopper_file, tmp_path):
    pytest.importorskip("wandb")
    workdir = tmp_path / "run"
    process = start(
        "launch.py",
        "--config=configs/hopper.py:medium",
        f"--config.data_path={hopper_file}",
        "--config.embedding_dim=8",
        "--config.num_layers=1",
        "--config.seq_len=3",
        "--config.batch_size=4",
        "--config.eval_episodes=0",
        "--config.holdout_fraction=0",
        "--config.log_every=50",
        "--config.loggers=wandb,tensorboard",
        f"--workdir={workdir}",
    )
    while not (workdir / "metrics.jsonl").exists() or not logged(workdir):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted by SIGTERM after" in err.splitlines()[-1]
    assert find_checkpoints(workdir / "checkpoints")
    (file,) = workdir.glob("wandb/offline-run-*/run-*.wandb")
    same(history(stored(file)), logged(workdir))
    same(shown(workdir), logged(workdir))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_cannot_begin_is_told_and_left_out(small_config, tmp_path, name):
    pytest.importorskip("wandb")
    (tmp_path / name).touch()
    config = config_with(small_config, name)
    with pytest.warns(UserWarning, match=rf"{name} has failed \(.*Error") as warned:
        train(config, tmp_path)
    assert len(warned) == 1
    assert list(logged(tmp_path)) == [2, 4, 6, 8]


def test_a_full_disk_is_told_once(small_config, tmp_path):
    config = config_with(small_config, "tensorboard")
    with Loggers(config, tmp_path, up_to_step=0) as one:
        one.write(1, {"train_loss": 0.5})
        file = one._loggers["tensorboard"]._file._writer
        with open("/dev/full", "wb") as full:
            os.dup2(full.fileno(), file.fileno())
        with pytest.warns(UserWarning, match="tensorboard has failed .*No space"):
            one.write(2, {"train_loss": 0.5})
        one.write(3, {"train_loss": 0.5})  # warnings are errors: it says no more
    assert shown(tmp_path) == {1: {"train_loss": 0.5}}


def test_a_wandb_that_is_killed_is_told_once(small_config, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = config_with(small_config, "wandb", "tensorboard")
    with Loggers(config, tmp_path, up_to_step=0) as both:
        (core,) = (
            child
            for child in psutil.Process().children()
            if child.name() == "wandb-core"
        )
        core.kill()
        core.wait()
        with pytest.warns(UserWarning, match="logger wandb has failed"):
            both.write(1, {"train_loss": 0.5})
        both.write(2, {"train_loss": 0.5})
    assert list(shown(tmp_path)) == [1, 2]  # the other one goes on


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_told_before_the_data_are_read(
    small_config, tmp_path, monkeypatch, name
):
    package = {"tensorboard": "tensorboardX"}.get(name, name)
    monkeypatch.setitem(sys.modules, package, None)
    config = config_with(small_config, name, data_path=str(tmp_path / "not-there"))
    for begin in (train, dry_run):
        with pytest.raises(UserError, match=rf"{package}.*'dt_jax\[{name}\]'"):
            begin(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_installed(())
