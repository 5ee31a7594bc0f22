"""A run from its start to its end: what it writes, prints and does not change."""

import hashlib
import json
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from helpers import (
    assert_same_run,
    assert_same_training,
    changed,
    restored,
    steps_of,
    untimed,
)

from dt_jax.agents.optim import make_schedule
from dt_jax.data.sampler import Sampler
from dt_jax.datasets import load_dataset
from dt_jax.evaluation.policy import load_agent
from dt_jax.runs.checkpoint import find_checkpoints
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.batches import HostBatches
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

EVALUATED = [
    *(
        f"eval/{target}_{name}_{statistic}"
        for target in ("30.0", "5.5")
        for name in ("return", "normalized_score", "length")
        for statistic in ("mean", "std")
    ),
    "eval/seconds",
]
TRAINED = ["train_loss", "learning_rate", "grad_norm", "steps_per_second"]


def test_a_run_writes_its_folder(finished, small_config):
    assert {path.name for path in finished.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "versions.json",
        "summary.png",
        "eval",
        "checkpoints",
    }
    rows = read_metrics(finished / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4, 6, 8]
    assert list(rows[0]) == ["step", *EVALUATED]
    for row in rows[1:]:
        evaluated = EVALUATED if row["step"] % 4 == 0 else []
        assert sorted(row) == sorted(["step", *TRAINED, *evaluated])
    # The learning rate is that of the update before the row.
    schedule = make_schedule("warmup_cosine", small_config.learning_rate, 2, 8)
    expected = [float(schedule(step - 1)) for step in (2, 4, 6, 8)]
    assert [row["learning_rate"] for row in rows[1:]] == pytest.approx(expected)
    evaluations = {path.name for path in (finished / "eval").iterdir()}
    assert evaluations == {"0.npz", "4.npz", "8.npz"}
    assert steps_of(finished)[-2:] == [6, 8]


def test_the_json_files_are_copies_of_the_checkpoints_record(finished, small_config):
    record = find_checkpoints(finished / "checkpoints")[-1].record
    config = json.loads((finished / "config.json").read_text())
    assert config == record["config"]
    assert config["target_returns"] == [30.0, 5.5]
    about = json.loads((finished / "versions.json").read_text())
    assert about == record["versions"] | {"dataset": record["dataset"]}
    assert about["jax"] == jax.__version__
    assert about["device"] == jax.devices()[0].device_kind
    assert "git_revision" in about
    data = hashlib.sha256(Path(small_config.data_path).read_bytes())
    assert about["dataset"]["sha256"] == data.hexdigest()
    assert about["dataset"]["num_trajectories"] == 6
    assert record["step"] == 8


def test_train_returns_the_run(finished, small_config):
    run = train(small_config, finished)
    assert (run.workdir, run.step, run.stopped) == (finished, 8, False)
    assert run.config.to_dict() == small_config.to_dict()
    assert run.config.is_locked
    assert run.metrics() == read_metrics(finished / "metrics.jsonl")
    policy = run.policy()
    policy.reset(30.0)
    assert policy.act(np.zeros(11)).shape == (3,)


def test_step_0_evaluates_the_initial_parameters(finished, small_config, tmp_path):
    config = changed(small_config, learning_rate=0.5)
    train(config, tmp_path / "run", [lambda step, row, stop: stop()])
    assert untimed(tmp_path / "run") == untimed(finished)[:1]


def test_a_complete_run_is_reported_and_not_changed(finished, small_config, capsys):
    before = restored(finished, "params"), untimed(finished)
    train(small_config, finished)
    out = capsys.readouterr().out
    assert "this run is complete, with 8 updates" in out
    assert "after 8 updates" in " ".join(out.split())  # the table's title
    assert (restored(finished, "params"), untimed(finished)) == before


def test_the_callers_configuration_is_not_changed(small_config, tmp_path):
    """It may be unlocked, and leave values to the data."""
    config = changed(
        small_config, target_returns=None, eval_episodes=0, update_steps=1
    ).unlock()
    before = config.to_dict()
    run = train(config, tmp_path / "run")
    assert config.to_dict() == before
    assert not config.is_locked
    assert len(run.config.target_returns) == 2
    assert [row["step"] for row in run.metrics()] == [1]  # the last one, always


def test_an_invalid_configuration_is_refused_before_a_folder_exists(
    small_config, tmp_path
):
    config = changed(small_config, batch_size=0)
    with pytest.raises(UserError, match="batch_size=0: expected an integer from 1"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_device_that_contradicts_the_back_end_is_refused(small_config, tmp_path):
    other = "tpu" if jax.default_backend() != "tpu" else "cpu"
    config = changed(small_config, device=other)
    message = f"config.device={other}: JAX uses {jax.default_backend()}"
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_result_is_independent_of_the_number_of_workers(
    finished, small_config, tmp_path
):
    train(changed(small_config, num_workers=0, eval_episodes=0), tmp_path / "run")
    assert_same_training(tmp_path / "run", finished)


def test_memory_mapped_data_gives_the_same_bits(
    small_config, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path / "cache"))
    on_host = changed(small_config, device_memory_share=0.0, eval_episodes=0)
    train(on_host, tmp_path / "in_memory")
    assert "memory-mapping them" not in capsys.readouterr().err
    train(changed(on_host, memory_limit_gb=0.0), tmp_path / "mapped")
    assert "memory-mapping them" in capsys.readouterr().err
    assert_same_run(tmp_path / "mapped", tmp_path / "in_memory")


def test_training_without_an_environment(small_config, tmp_path, capsys):
    """With names that rich's markup and matplotlib's formulas could misread."""
    data = tmp_path / "$^$ [b].hdf5"
    data.symlink_to(small_config.data_path)
    config = changed(small_config, env_name=None, data_path=str(data))
    train(config, tmp_path / "$^$ a")
    rows = read_metrics(tmp_path / "$^$ a" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert (tmp_path / "$^$ a" / "summary.png").exists()
    out = capsys.readouterr().out
    assert "nothing is evaluated" in out
    assert f"run folder {tmp_path / '$^$ a'}" in out


def test_a_metric_that_is_not_finite_stops_the_run(small_config, tmp_path, monkeypatch):
    """The message has the step and a file with the batch; no checkpoint follows."""
    inputs = HostBatches.inputs

    def poisoned(self, step):
        batch = inputs(self, step)
        return batch._replace(states=batch.states * np.nan) if step == 4 else batch

    monkeypatch.setattr(HostBatches, "inputs", poisoned)
    config = changed(small_config, eval_episodes=0, device_memory_share=0.0)
    message = r"^step 5: .*train_loss is nan .*batch are in .*/not_finite_5.npz\)"
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")
    assert steps_of(tmp_path / "run") == [3]
    monkeypatch.undo()

    noted = np.load(tmp_path / "run" / "not_finite_5.npz")
    normalizer = load_agent(tmp_path / "run", "last").agent.normalizer
    dataset = load_dataset(config.data_path)
    sampler = Sampler(
        dataset.trajectories,
        normalizer,
        batch_size=4,
        context_len=3,
        seed=config.train_seed,
        fields=("states",),
    )
    states = sampler.gather(noted["indices"]).states
    np.testing.assert_array_equal(states, sampler.batch(4).states)
    with h5py.File(config.data_path) as file:
        for row, window in zip(noted["rows"], states, strict=True):
            first = normalizer.normalize_states(file["observations"][row][None])[0]
            np.testing.assert_array_equal(first, window[0])


def test_parameters_that_are_not_finite_are_not_saved(small_config, tmp_path):
    config = changed(
        small_config, eval_episodes=0, learning_rate=1e38, warmup_steps=0, log_every=8
    )
    with pytest.raises(UserError, match=r"a parameter is not finite|train_loss is"):
        train(config, tmp_path / "run")
    assert steps_of(tmp_path / "run") == []


@pytest.mark.slow
def test_the_number_of_compilations_is_independent_of_the_runs_length(
    small_config, tmp_path
):
    traces = []

    def listen(event, seconds, **about):
        if event.endswith("jaxpr_trace_duration"):
            traces.append(about)

    jax.monitoring.register_event_duration_secs_listener(listen)
    counts = []
    try:
        for updates in (3, 3, 11):  # the first run fills the process's own caches
            traces.clear()
            config = changed(
                small_config,
                update_steps=updates,
                eval_every=3,
                lr_schedule="warmup_constant",  # or each length would be a program
            )
            train(config, tmp_path / f"{len(counts)}")
            counts.append(len(traces))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts[2] == counts[1] > 0
