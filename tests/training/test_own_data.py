"""Runs on a user's own data: values taken from it, held-out error, warm starts."""

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import TINY_TRANSFORMER, changed, steps_of

from dt_jax.config import load_config
from dt_jax.data.sampler import Sampler
from dt_jax.evaluation.evaluator import HoldoutError
from dt_jax.evaluation.policy import Policy, load_agent
from dt_jax.runs.checkpoint import choose_checkpoint, find_checkpoints
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.dry_run import dry_run
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

HOLDOUT_ERROR = "eval/holdout_action_mse"
SMALL = TINY_TRANSFORMER | {
    "seq_len": 3,
    "batch_size": 4,
    "update_steps": 8,
    "warmup_steps": 2,
    "eval_every": 4,
    "log_every": 2,
    "checkpoint_every": 3,
    "keep_checkpoints": 5,
    "num_workers": 1,
    "learning_rate": 1e-2,
}


def own(path, **changes):
    """Return the small configuration of a run on a file."""
    return load_config("configs/own_data.py", **SMALL | changes, data_path=str(path))


@pytest.fixture(scope="module")
def npz(hopper_file, tmp_path_factory):
    with h5py.File(hopper_file) as file:
        arrays = {key: file[key][...] for key in file}
    path = tmp_path_factory.mktemp("own") / "own.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def own_run(npz, tmp_path_factory):
    """Return the folder of a complete run and its output."""
    workdir, printed = tmp_path_factory.mktemp("own run"), io.StringIO()
    with redirect_stdout(printed):
        train(own(npz), workdir)
    return workdir, printed.getvalue()


@pytest.fixture
def source(own_run, tmp_path):
    """Return a copy of that run, to resume or to start others from."""
    return Path(shutil.copytree(own_run[0], tmp_path / "source"))


def saved_config(workdir):
    return json.loads((workdir / "config.json").read_text())


def test_values_from_the_data_are_printed_saved_and_kept_on_resume(
    npz, own_run, source, capsys
):
    run, out = source, own_run[1]
    assert "141 transitions in 6 trajectories of 1 to 40 steps" in out
    returns = json.loads((run / "versions.json").read_text())["dataset"]
    best, mean = returns["return_best"], returns["return_mean"]
    expected = {
        "episode_len": 40,
        "reward_scale": 0.1,
        "target_returns": [float(f"{best:.3g}"), float(f"{mean:.3g}")],
        "holdout_fraction": 0.1,
    }
    assert {key: saved_config(run)[key] for key in expected} == expected
    for key in expected:
        assert out.count(f"\n{key} ") == 1
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows if HOLDOUT_ERROR in row] == [0, 4, 8]

    train(own(npz), run)
    assert "this run is complete" in capsys.readouterr().out
    train(own(npz, update_steps=12), run)
    assert "resuming from the checkpoint at step 8" in capsys.readouterr().out
    assert {key: saved_config(run)[key] for key in expected} == expected
    with pytest.raises(UserError, match=r"reward_scale 0.1 -> 0.5"):
        train(own(npz, update_steps=14, reward_scale=0.5), run)


def test_the_best_checkpoint_has_the_lowest_held_out_error(npz, tmp_path):
    config = own(npz, keep_checkpoints=2, eval_every=2)
    train(config, tmp_path / "run")
    errors = {
        row["step"]: row[HOLDOUT_ERROR]
        for row in read_metrics(tmp_path / "run/metrics.jsonl")
        if HOLDOUT_ERROR in row and row["step"]
    }
    best = choose_checkpoint(tmp_path / "run" / "checkpoints", "best")
    assert best.step == min(errors, key=errors.get)
    assert best.score == pytest.approx(-errors[best.step])


@pytest.mark.parametrize(
    "value", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)]
)
def test_a_held_out_error_that_is_not_finite_stops_the_run(
    npz, tmp_path, monkeypatch, value
):
    """It is neither saved as a score nor logged, and the best remains."""
    call, calls = HoldoutError.__call__, []

    def failing(self, params):
        calls.append(0)
        relative = np.zeros(0)
        return (np.array(value), relative) if len(calls) == 3 else call(self, params)

    monkeypatch.setattr(HoldoutError, "__call__", failing)
    message = f"^step 4: eval/holdout_action_mse is {value}; all checkpoints in .* are"
    with pytest.raises(UserError, match=message):
        train(own(npz, keep_checkpoints=2, eval_every=2), tmp_path)
    found = find_checkpoints(tmp_path / "checkpoints")
    assert [checkpoint.step for checkpoint in found] == [2, 3]
    assert choose_checkpoint(tmp_path / "checkpoints", "best").step == 2
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 2]


@pytest.mark.slow
def test_a_run_with_an_environment_can_have_the_held_out_error(small_config, tmp_path):
    config = changed(small_config, holdout_fraction=0.3, update_steps=4)
    train(config, tmp_path / "run")
    row = read_metrics(tmp_path / "run/metrics.jsonl")[-1]
    assert HOLDOUT_ERROR in row
    assert "eval/30.0_return_mean" in row


def test_held_out_trajectories_are_not_trained_on(npz, tmp_path, monkeypatch):
    drawn = []
    windows = Sampler.windows

    def watched(self, indices):
        drawn.append((id(self), self._starts.tolist()))
        return windows(self, indices)

    monkeypatch.setattr(Sampler, "windows", watched)
    train(own(npz, holdout_fraction=0.5), tmp_path / "run")
    parts = {starts for _, starts in {(i, tuple(s)) for i, s in drawn}}
    assert len(parts) == 2
    assert not set.intersection(*map(set, parts))


@pytest.fixture
def other_data(npz, tmp_path):
    with np.load(npz) as arrays:
        moved = dict(arrays) | {"observations": 3 * arrays["observations"] + 1}
    np.savez(tmp_path / "other.npz", **moved)
    return tmp_path / "other.npz"


def test_a_warm_start_starts_with_the_sources_parameters(npz, source, tmp_path, capsys):
    config = own(npz, init_from=str(source), update_steps=1)
    train(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert f"those of {source} after 8 updates" in out
    assert f"reward_scale 0.1: that of {source}" in out
    first = read_metrics(tmp_path / "run/metrics.jsonl")[0]
    last = read_metrics(source / "metrics.jsonl")[-1]
    assert first["step"] == 0
    assert first[HOLDOUT_ERROR] == last[HOLDOUT_ERROR]


@pytest.mark.slow
def test_a_warm_start_keeps_the_sources_normalisation_on_resume(
    source, other_data, tmp_path
):
    """Also when the source does not exist any more."""
    run = tmp_path / "run"
    train(own(other_data, init_from=str(source)), run)
    expected = load_agent(source, "last").agent.normalizer
    shutil.rmtree(source)
    longer = own(other_data, init_from=str(source), update_steps=12)
    dry_run(longer, run)
    train(longer, run)
    assert steps_of(run)[-1] == 12
    found = load_agent(run, "last").agent.normalizer
    np.testing.assert_array_equal(found.state_mean, expected.state_mean)
    np.testing.assert_array_equal(found.state_std, expected.state_std)


def test_longer_trajectories_than_the_sources_are_refused(source, tmp_path, npz):
    with np.load(npz) as arrays:
        rows = {key: np.concatenate([arrays[key]] * 2) for key in arrays}
    rows["terminals"][:] = False
    rows["terminals"][-1] = True
    np.savez(tmp_path / "long.npz", **rows)
    config = own(tmp_path / "long.npz", init_from=str(source), holdout_fraction=0.0)
    with pytest.raises(UserError, match=r"of 292 steps, .*leave init_from out"):
        train(config, tmp_path / "run")


def test_actions_in_any_units_are_learnt_alike(npz, own_run, tmp_path):
    """Also numbers of very different sizes, and one that is constant."""
    with np.load(npz) as arrays:
        data = dict(arrays)
    data["actions"][:, 2] = 0.5
    units = np.float32([1e-3, 200, 1]), np.float32([0, 300, 700])
    expected = None
    for scale, offset in (([1, 1, 1], [0, 0, 0]), units):
        actions = data["actions"] * np.float32(scale) + np.float32(offset)
        np.savez(tmp_path / "units.npz", **data | {"actions": actions})
        run = tmp_path / f"run{offset[1]}"
        train(own(tmp_path / "units.npz", holdout_fraction=0.5), run)
        row = read_metrics(run / "metrics.jsonl")[-1]
        found = [row[HOLDOUT_ERROR], row[f"{HOLDOUT_ERROR}_relative"]]
        expected = expected or found
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    policy = Policy.load(run)
    policy.reset(10.0)
    action = policy.act(np.zeros(11))
    assert (np.abs(action - [0, 300, 700.5]) <= [1e-3, 200, 1]).all()


def test_resuming_and_warm_starts_keep_the_mapping_of_actions(npz, source, tmp_path):
    with np.load(npz) as arrays:
        part = dict(arrays) | {"actions": arrays["actions"] / 2}
    np.savez(tmp_path / "part.npz", **part)
    config = own(tmp_path / "part.npz", init_from=str(source), update_steps=1)
    expected = load_agent(source, "last").agent.normalizer
    for steps in (1, 2):
        train(changed(config, update_steps=steps), tmp_path / "run")
        found = load_agent(tmp_path / "run", "last").agent.normalizer
        np.testing.assert_array_equal(found.action_center, expected.action_center)
        np.testing.assert_array_equal(found.action_scale, expected.action_scale)
    np.savez(tmp_path / "part.npz", **part | {"actions": 4 * part["actions"]})
    with pytest.raises(UserError, match=r"actions of .* are out of the range of"):
        train(config, tmp_path / "other")


def test_what_is_wrong_with_the_data_is_reported_at_the_start(npz, tmp_path, capsys):
    with np.load(npz) as arrays:
        data = dict(arrays)
    data["observations"][:, 3:5] = 0.1
    np.savez(tmp_path / "odd.npz", **data)
    config = own(tmp_path / "odd.npz", update_steps=1, reward_scale=1e6)
    with pytest.warns(UserWarning, match="odd.npz: reward_scale=1e.06 brings the"):
        train(config, tmp_path / "run")
    out = capsys.readouterr().out
    line = "odd.npz: constant observation numbers, which are not scaled: 3-4\n"
    assert line in out
