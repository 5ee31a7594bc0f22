import hashlib
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import h5py
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dt_jax.config.load import RULES
from dt_jax.data.registry import lookup
from dt_jax.data.sampler import Sampler
from dt_jax.datasets import read_dataset
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.runs.checkpoint import choose_checkpoint
from dt_jax.runs.metrics import read_metrics
from dt_jax.training import trainer
from dt_jax.training.batches import OnHost
from dt_jax.training.resume import MAY_CHANGE, last_checkpoint
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError
from dt_jax.utils.lock import alone_in
from dt_jax.utils.signals import SIGNALS, Stopped

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
TIMED = {"steps_per_second", "eval/seconds"}


def changed(config, **changes):
    config = config.copy_and_resolve_references().unlock()
    config.update(changes)
    return config.lock()


def arrays(workdir):
    """Return all that the last checkpoint holds, as bytes by path."""
    checkpoint = find_checkpoints(workdir / "checkpoints")[-1]
    as_saved = ocp.args.StandardRestore()
    restored = checkpoint._restore(params=as_saved, train=as_saved)
    flat, _ = jax.tree_util.tree_flatten_with_path(
        {"params": restored["params"], "train": restored["train"]}
    )
    return {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(x)
            if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
            else x
        ).tobytes()
        for path, x in flat
    }


def untimed(workdir):
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMED} for row in rows]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Where `small_config` has been run from start to end; made on first use."""
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def finished(whole_run, small_config):
    if not whole_run.exists():
        train(small_config, whole_run)
    return whole_run


def test_a_run_leaves_its_folder(finished, small_config):
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
    # The rate that the update before the row has used.
    assert rows[1]["learning_rate"] == pytest.approx(small_config.learning_rate)
    assert rows[4]["learning_rate"] < rows[3]["learning_rate"]
    evaluations = {path.name for path in (finished / "eval").iterdir()}
    assert evaluations == {"0.npz", "4.npz", "8.npz"}
    kept = [
        checkpoint.step for checkpoint in find_checkpoints(finished / "checkpoints")
    ]
    assert kept[-2:] == [6, 8]
    config = json.loads((finished / "config.json").read_text())
    assert config["target_returns"] == [30.0, 5.5]
    about = json.loads((finished / "versions.json").read_text())
    assert about["jax"] == jax.__version__
    assert about["dataset"]["num_trajectories"] == 6
    data = hashlib.sha256(Path(small_config.data_path).read_bytes())
    assert about["dataset"]["sha256"] == data.hexdigest()
    assert about["device"] == jax.devices()[0].device_kind
    assert "git_revision" in about
    saved = find_checkpoints(finished / "checkpoints")[-1].record
    assert saved["versions"] | {"dataset": saved["dataset"]} == about


def test_step_0_is_of_the_untouched_initialisation(finished, small_config, tmp_path):
    other = changed(small_config, learning_rate=0.5, update_steps=1)
    train(other, tmp_path / "run")
    rows = untimed(tmp_path / "run")
    assert rows[0] == untimed(finished)[0]
    assert rows[1]["step"] == 1


def test_a_complete_run_says_so_and_is_left_alone(finished, small_config, capsys):
    before = arrays(finished)
    train(small_config, finished)
    out = capsys.readouterr().out
    assert "this run is complete, with 8 updates" in out
    assert "after 8 updates" in out  # the table
    assert arrays(finished) == before


@pytest.mark.parametrize("interrupted_at", [7])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    finished, small_config, tmp_path, monkeypatch, interrupted_at
):
    """Parameters, optimiser, key and metrics, bit for bit."""
    indices = trainer.Sampler.indices

    def breaking(self, step):
        if step == interrupted_at:
            raise KeyboardInterrupt
        return indices(self, step)

    monkeypatch.setattr(trainer.Sampler, "indices", breaking)
    with pytest.raises(KeyboardInterrupt):
        train(small_config, tmp_path / "run")
    monkeypatch.undo()
    train(small_config, tmp_path / "run")
    assert arrays(tmp_path / "run") == arrays(finished)
    assert untimed(tmp_path / "run") == untimed(finished)


def test_a_signal_between_updates_saves_and_stops(
    finished, small_config, tmp_path, monkeypatch
):
    indices = trainer.Sampler.indices

    def signalling(self, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return indices(self, step)

    monkeypatch.setattr(trainer.Sampler, "indices", signalling)
    config = changed(small_config, num_workers=0)
    line = "^interrupted by SIGTERM after 6 updates, all saved: the same command"
    with pytest.raises(Stopped, match=line):
        train(config, tmp_path / "run")
    assert find_checkpoints(tmp_path / "run" / "checkpoints")[-1].step == 6
    monkeypatch.undo()
    train(config, tmp_path / "run")
    assert arrays(tmp_path / "run") == arrays(finished)
    assert untimed(tmp_path / "run") == untimed(finished)


@pytest.mark.parametrize("evaluation", [8, pytest.param(0, marks=pytest.mark.slow)])
def test_a_signal_in_an_evaluation_stops_it_there(
    finished, small_config, tmp_path, monkeypatch, capsys, evaluation
):
    """It is made up for: metrics and scores are those of an undisturbed run."""
    chunk_ends = []

    def signalling(evaluator, params, between_chunks):
        def signal_and_check():
            chunk_ends.append(0)
            os.kill(os.getpid(), signal.SIGUSR1)
            between_chunks()

        due = len(list((tmp_path / "run" / "eval").glob("*"))) == evaluation / 4
        return call(evaluator, params, signal_and_check if due else between_chunks)

    call = Evaluator.__call__
    monkeypatch.setattr(Evaluator, "__call__", signalling)
    with pytest.raises(Stopped, match="interrupted by SIGUSR1") as stopped:
        train(small_config, tmp_path / "run")
    told = (
        f"after {evaluation} updates, all saved" if evaluation else "before the first"
    )
    assert told in str(stopped.value)
    assert len(chunk_ends) == 1  # not at the episodes' end
    monkeypatch.undo()
    if evaluation == 0:
        assert find_checkpoints(tmp_path / "run" / "checkpoints") == []
        return
    with monkeypatch.context() as patch:  # killed once the row is there
        patch.setattr(trainer.Trainer, "_save", lambda self, *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(small_config, tmp_path / "run")
    train(small_config, tmp_path / "run")
    capsys.readouterr()
    train(small_config, tmp_path / "run")
    assert "this run is complete" in capsys.readouterr().out
    assert arrays(tmp_path / "run") == arrays(finished)
    assert untimed(tmp_path / "run") == untimed(finished)
    for run in (finished, tmp_path / "run"):
        assert [
            c.score is None for c in find_checkpoints(run / "checkpoints")[-2:]
        ] == [
            True,
            False,
        ]
    best, whole_best = (
        choose_checkpoint(run / "checkpoints", "best")
        for run in (tmp_path / "run", finished)
    )
    assert (best.step, best.score) == (whole_best.step, whole_best.score)


def test_a_second_ctrl_c_stops_at_once(small_config, tmp_path, monkeypatch):
    indices = trainer.Sampler.indices

    def impatient(self, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return indices(self, step)

    monkeypatch.setattr(trainer.Sampler, "indices", impatient)
    config = changed(small_config, num_workers=0, eval_episodes=0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert find_checkpoints(tmp_path / "run" / "checkpoints")[-1].step == 3


def test_a_run_without_a_checkpoint_yet_says_that_it_begins_anew(
    finished, small_config, tmp_path, monkeypatch, capsys
):
    """And what its killed writers have left goes."""
    indices = trainer.Sampler.indices

    def failing(self, step):
        if step == 2:
            raise KeyboardInterrupt
        return indices(self, step)

    monkeypatch.setattr(trainer.Sampler, "indices", failing)
    config = changed(small_config, num_workers=0, eval_episodes=0)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    monkeypatch.undo()
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 1
    (tmp_path / "run" / "eval").mkdir()
    (tmp_path / "run" / "eval" / ".4.00112233.tmp.npz").touch()
    train(config, tmp_path / "run")
    assert "has no checkpoint and begins anew" in capsys.readouterr().out
    assert arrays(tmp_path / "run") == arrays(finished)
    assert not list((tmp_path / "run" / "eval").glob(".*"))


def test_the_handlers_are_as_before_when_a_run_has_ended(finished, small_config):
    before = [signal.getsignal(each) for each in SIGNALS]
    train(small_config, finished)
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize(
    "schedule",
    ["warmup_constant", pytest.param("warmup_cosine", marks=pytest.mark.slow)],
)
def test_a_longer_run_goes_on(small_config, tmp_path, capsys, schedule):
    config = changed(small_config, lr_schedule=schedule, eval_episodes=0)
    train(config, tmp_path / "run")
    train(changed(config, update_steps=12), tmp_path / "run")
    out = capsys.readouterr().out
    assert "going on from the checkpoint at step 8" in out
    assert ("schedule is recomputed" in out) == (schedule == "warmup_cosine")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    if schedule == "warmup_constant":  # as if it had been as long from the start
        train(changed(config, update_steps=12), tmp_path / "whole")
        assert arrays(tmp_path / "run") == arrays(tmp_path / "whole")


def test_a_run_does_not_go_on_with_actions_in_other_units(
    small_config, tmp_path, monkeypatch
):
    """As if a package had changed its environment's bounds meanwhile."""
    config = changed(small_config, eval_episodes=0)
    train(config, tmp_path)
    wider = replace(lookup(config.env_name), action_high=2.0)
    monkeypatch.setattr("dt_jax.envs.spec_from_config", lambda config: wider)
    with pytest.raises(UserError, match="hopper-demo has other bounds on actions"):
        train(changed(config, update_steps=12), tmp_path)


def test_two_runs_are_the_same_for_any_number_of_workers(
    finished, small_config, tmp_path
):
    train(changed(small_config, num_workers=0), tmp_path / "run")
    assert arrays(tmp_path / "run") == arrays(finished)
    assert untimed(tmp_path / "run") == untimed(finished)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embedding_dim": 16}, "embedding_dim 8 -> 16"),
        ({"train_seed": 11}, "train_seed 10 -> 11"),
        ({"betas": (0.8, 0.9)}, "betas"),
    ],
)
def test_another_run_in_the_folder_is_refused(finished, small_config, change, named):
    config = changed(small_config, update_steps=20, **change)
    with pytest.raises(UserError, match=f"holds another run.*{named}"):
        train(config, finished)


def test_a_run_with_no_whole_checkpoint_is_not_begun_anew(small_config, tmp_path):
    config = changed(small_config, eval_episodes=0)
    train(config, tmp_path)
    for checkpoint in find_checkpoints(tmp_path / "checkpoints"):
        (checkpoint.folder / str(checkpoint.step) / "_CHECKPOINT_METADATA").unlink()
    with (
        pytest.warns(UserWarning, match="is not used: _CHECKPOINT_METADATA missing"),
        pytest.raises(UserError, match=r"no checkpoint in .* is whole any more"),
    ):
        train(config, tmp_path)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 4  # left alone
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(
        UserError, match="metrics up to step 8, and its checkpoints are"
    ):
        train(config, tmp_path)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 4


@pytest.mark.parametrize("key", sorted(RULES))
def test_every_key_may_change_or_is_refused_by_name(finished, small_config, key):
    """Each key of the configuration, with another value than the run's."""
    before = small_config[key]
    if isinstance(before, bool):
        now = not before
    elif isinstance(before, int | float):
        now = before + 1
    elif isinstance(before, tuple):
        now = (*before, 0.5)
    else:
        now = f"{before or 'another'}2"
    config = changed(small_config, **{key: now})
    if key in MAY_CHANGE:
        assert last_checkpoint(finished, config) is not None
    else:
        change = re.escape(f"({key} {before} -> {now})")
        with pytest.raises(UserError, match=rf"holds another run {change}"):
            last_checkpoint(finished, config)


def test_a_second_process_in_the_folder_is_refused(finished, small_config):
    before = sorted(path.name for path in finished.rglob("*"))
    with (
        alone_in(finished),
        pytest.raises(UserError, match=f"in use by process {os.getpid()} on"),
    ):
        train(changed(small_config, update_steps=20), finished)
    assert sorted(path.name for path in finished.rglob("*")) == before


def test_other_data_is_refused(finished, small_config, hopper_file, tmp_path):
    other = tmp_path / "other.hdf5"
    content = bytearray(hopper_file.read_bytes())
    at = content.rindex(np.float32(0).tobytes() * 4)  # in no array
    content[at] ^= 1
    other.write_bytes(content)
    config = changed(small_config, update_steps=20, data_path=str(other))
    with pytest.raises(UserError, match=r"content of .*other.hdf5 is another \(sha256"):
        train(config, finished)


def test_a_loss_that_is_not_finite_stops_the_run(small_config, tmp_path, monkeypatch):
    """With the step's number, and without a bad checkpoint."""
    inputs = OnHost.inputs

    def poisoned(self, step):
        good = inputs(self, step)
        return good._replace(states=good.states * np.nan) if step == 4 else good

    monkeypatch.setattr(OnHost, "inputs", poisoned)
    config = changed(small_config, eval_episodes=0, device_memory_share=0.0)
    with pytest.raises(UserError, match=r"^step 5: the loss is nan.*not_finite_5.npz"):
        train(config, tmp_path / "run")
    assert [c.step for c in find_checkpoints(tmp_path / "run" / "checkpoints")] == [3]
    monkeypatch.undo()
    noted = np.load(tmp_path / "run" / "not_finite_5.npz")
    dataset = read_dataset(lookup(config.env_name), config.data_path)
    trained_on = Sampler(
        dataset.trajectories,
        batch_size=4,
        seq_len=3,
        reward_scale=1.0,
        seed=config.train_seed,
        state_mean=np.float32(0),
        state_std=np.float32(1),
    ).batch(4)
    with h5py.File(config.data_path) as file:
        for row, states in zip(noted["rows"], trained_on.states, strict=True):
            np.testing.assert_array_equal(file["observations"][row], states[0])


def test_parameters_that_are_not_finite_are_not_saved(small_config, tmp_path):
    config = changed(
        small_config, eval_episodes=0, learning_rate=1e38, warmup_steps=0, log_every=8
    )
    with pytest.raises(UserError, match=r"a parameter is not finite|the loss is"):
        train(config, tmp_path / "run")
    assert find_checkpoints(tmp_path / "run" / "checkpoints") == []


def test_training_without_an_environment(small_config, tmp_path, capsys):
    """Whose names neither rich's markup nor matplotlib's mathematics spoil."""
    data = tmp_path / "$^$ [b].hdf5"
    data.symlink_to(small_config.data_path)
    config = changed(small_config, env_name=None, data_path=str(data))
    train(config, tmp_path / "a [/x]")
    rows = read_metrics(tmp_path / "a [/x]" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert (tmp_path / "a [/x]" / "summary.png").exists()
    assert f"run folder {tmp_path / 'a [/x]'}" in capsys.readouterr().out


def test_data_that_stays_on_the_disk_trains_the_same(
    finished, small_config, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path / "cache"))
    config = changed(small_config, memory_limit_gb=0.0, eval_episodes=0)
    train(config, tmp_path / "run")
    assert "they stay on the disk" in capsys.readouterr().err
    assert arrays(tmp_path / "run") == arrays(finished)


def test_a_longer_run_compiles_no_more(small_config, tmp_path):
    """Each program is compiled once, whatever is due when."""
    traces = []

    def listen(event, seconds, **about):
        if event.endswith("jaxpr_trace_duration"):
            traces.append(about)

    jax.monitoring.register_event_duration_secs_listener(listen)
    counts = []
    try:
        for updates in (3, 3, 11):  # the first run warms what the process keeps
            traces.clear()
            config = changed(
                small_config,
                update_steps=updates,
                eval_every=3,
                attention_dropout=0.0,  # each takes long to compile
                residual_dropout=0.0,
            )
            train(config, tmp_path / f"{len(counts)}")
            counts.append(len(traces))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts[2] == counts[1] > 0
