"""The loggers' own files, read back, and runs whose logger fails."""

import json
import os
import signal
import struct
import sys
import threading
import time

import psutil
import pytest
from command import start
from helpers import arguments, changed, steps_of, train_until
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from dt_jax.runs.metrics import read_metrics
from dt_jax.training import loggers
from dt_jax.training.dry_run import dry_run
from dt_jax.training.loggers import Loggers, check_installed
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError


@pytest.fixture(autouse=True)
def _isolate_wandb(tmp_path, monkeypatch):
    """Set no API key, and hide the user's files."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def config_with(config, *names, **changes):
    return changed(config, loggers=names, eval_episodes=0, **changes)


def read_events(file):
    """Yield the events of a TFRecord file, after checking its checksums."""
    content = file.read_bytes()
    while content:
        header, (length,) = content[:8], struct.unpack("<Q", content[:8])
        data = content[12 : 12 + length]
        (header_checksum,) = struct.unpack("<I", content[8:12])
        (data_checksum,) = struct.unpack("<I", content[12 + length : 16 + length])
        assert header_checksum == masked_crc32c(header)
        assert data_checksum == masked_crc32c(data)
        yield Event.FromString(data)
        content = content[16 + length :]


def tensorboard_rows(workdir):
    """Return {step: {metric: value}} as TensorBoard shows it, from all its files."""
    rows = []
    for file in sorted((workdir / "tensorboard").iterdir()):
        first, *rest = read_events(file)
        assert first.file_version == "brain.Event:2"
        for event in rest:
            if event.session_log.status == SessionLog.START:
                rows = [(step, row) for step, row in rows if step < event.step]
            else:
                values = {v.tag: v.simple_value for v in event.summary.value}
                rows.append((event.step, values))
    assert len(dict(rows)) == len(rows)  # no step twice
    return dict(rows)


def wandb_records(file):
    """Return the records of wandb's file, a log in LevelDB's format."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts, records = file.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:  # a block's end, too short for a header
            at += left
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a complete record, or the last part of one
            records.append(Record.FromString(parts))
            parts = b""
    return records


def wandb_rows(file):
    """Return {step: {metric: value}} of wandb's file."""
    rows = {}
    for record in wandb_records(file):
        if record.HasField("history"):
            items = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            row = {k: v for k, v in items.items() if not k.startswith("_")}
            rows[record.history.step.num] = row
    return rows


def logged_rows(workdir):
    """Return {step: {metric: value}} of metrics.jsonl."""
    rows = read_metrics(workdir / "metrics.jsonl")
    return {row.pop("step"): row for row in rows}


def assert_same(rows, others):
    assert rows.keys() == others.keys()
    for step, row in rows.items():
        assert row == pytest.approx(others[step], rel=1e-6)


def test_a_resumed_run_hides_the_steps_that_it_repeats(small_config, tmp_path):
    workdir = tmp_path / "run"
    config = config_with(
        small_config, "tensorboard", num_workers=0, checkpoint_every=4, log_every=1
    )
    train_until(6, config, workdir)
    before = tensorboard_rows(workdir)
    assert list(before) == [1, 2, 3, 4, 5, 6]
    train(config, workdir)
    assert len(list((workdir / "tensorboard").iterdir())) == 2
    after = tensorboard_rows(workdir)
    assert_same(after, logged_rows(workdir))
    assert after[4] == before[4]
    assert after[6]["steps_per_second"] != before[6]["steps_per_second"]


def test_tensorboard_shows_repeated_steps_once(small_config, tmp_path):
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


def test_wandbs_offline_file_has_every_row(small_config, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    workdir = tmp_path / "run"
    config = config_with(small_config, "wandb", project="p", group="g", name="n")
    train(config, workdir)
    (file,) = workdir.glob("wandb/offline-run-*/run-*.wandb")
    records = wandb_records(file)
    (about,) = (record.run for record in records if record.HasField("run"))
    labels = (about.project, about.run_group, about.display_name)
    assert labels == ("p", "g", "n")
    assert about.run_id == (workdir / "wandb" / "run_id").read_text()
    saved = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert saved["seq_len"] == 3
    assert_same(wandb_rows(file), logged_rows(workdir))
    with Loggers(config, workdir, up_to_step=8) as resumed:
        resumed.write(10, {"train_loss": 0.5, "seed_11/train_loss": 0.25})
    first, second = sorted(workdir.glob("wandb/offline-run-*/run-*.wandb"))
    assert first.name == second.name  # one run to `wandb sync`
    row = {"train_loss": 0.5, "seed_11/train_loss": 0.25}
    assert wandb_rows(second) == {10: row}


def test_without_a_key_or_server_wandb_logs_offline(
    small_config, tmp_path, monkeypatch, capfd
):
    """It does not ask for a key."""
    pytest.importorskip("wandb")
    monkeypatch.setattr(loggers, "_INIT_SECONDS", 1.0)
    config = config_with(small_config, "wandb")
    for name, key in [("no key", None), ("no server", "0" * 40)]:
        if key:
            monkeypatch.setenv("WANDB_API_KEY", key)
            monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        workdir = tmp_path / name
        workdir.mkdir()
        start_time = time.monotonic()
        with Loggers(config, workdir, up_to_step=0) as both:
            assert time.monotonic() - start_time < 60
            both.write(2, {"train_loss": 0.5})
        (file,) = workdir.glob("wandb/offline-run-*/run-*.wandb")
        assert wandb_rows(file) == {2: {"train_loss": 0.5}}
        out, err = capfd.readouterr()
        assert err == ""
        (line,) = out.splitlines()
        assert line.startswith("wandb: ")
        assert line.endswith(f"wandb sync {file.parent}")


def test_a_run_ends_although_wandbs_process_does_not(
    small_config, tmp_path, monkeypatch
):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(loggers, "_FINISH_SECONDS", 5.0)
    released = threading.Event()
    with Loggers(config_with(small_config, "wandb"), tmp_path, up_to_step=0):
        monkeypatch.setattr(wandb, "teardown", released.wait)
    released.set()
    monkeypatch.undo()
    wandb.teardown()


@pytest.mark.slow
def test_a_run_with_wandb_handles_signals(hopper_file, tmp_path):
    pytest.importorskip("wandb")
    workdir = tmp_path / "run"
    command = ["launch.py", *arguments(workdir, hopper_file)]
    command += ["--config.eval_episodes=0", "--config.holdout_fraction=0"]
    command += ["--config.update_steps=1e6", "--config.loggers=wandb,tensorboard"]
    process = start(*command)
    while not (workdir / "metrics.jsonl").exists() or not logged_rows(workdir):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted by SIGTERM after" in err.splitlines()[-1]
    assert steps_of(workdir)
    (file,) = workdir.glob("wandb/offline-run-*/run-*.wandb")
    assert_same(wandb_rows(file), logged_rows(workdir))
    assert_same(tensorboard_rows(workdir), logged_rows(workdir))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_run_continues_without_a_logger_that_cannot_start(
    small_config, tmp_path, name
):
    pytest.importorskip("wandb")
    (tmp_path / name).touch()
    config = config_with(small_config, name)
    with pytest.warns(UserWarning, match=rf"logger {name} failed \(.*Error") as warned:
        train(config, tmp_path)
    assert len(warned) == 1
    assert list(logged_rows(tmp_path)) == [2, 4, 6, 8]


def test_a_full_disk_is_reported_once(small_config, tmp_path):
    config = config_with(small_config, "tensorboard")
    with Loggers(config, tmp_path, up_to_step=0) as one:
        one.write(1, {"train_loss": 0.5})
        file = one._loggers["tensorboard"]._file._writer
        with open("/dev/full", "wb") as full:
            os.dup2(full.fileno(), file.fileno())
        with pytest.warns(UserWarning, match=r"logger tensorboard failed .*No space"):
            one.write(2, {"train_loss": 0.5})
        one.write(3, {"train_loss": 0.5})  # a second warning would be an error
    assert tensorboard_rows(tmp_path) == {1: {"train_loss": 0.5}}


def test_a_killed_wandb_process_is_reported_once(small_config, tmp_path, monkeypatch):
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
        with pytest.warns(UserWarning, match="logger wandb failed"):
            both.write(1, {"train_loss": 0.5})
        both.write(2, {"train_loss": 0.5})
    assert list(tensorboard_rows(tmp_path)) == [1, 2]  # the other one continues


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_reported_before_the_data_is_read(
    small_config, tmp_path, monkeypatch, name
):
    package = {"tensorboard": "tensorboardX"}.get(name, name)
    monkeypatch.setitem(sys.modules, package, None)
    config = config_with(small_config, name, data_path=str(tmp_path / "not-there"))
    for function in (train, dry_run):
        with pytest.raises(UserError, match=rf"{package}.*'dt_jax\[{name}\]'"):
            function(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_installed(())
