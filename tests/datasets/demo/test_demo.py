import time

import h5py
import numpy as np
import pytest

from dt_jax import envs
from dt_jax.cli import collect as cli
from dt_jax.cli.common import run_command
from dt_jax.data.registry import lookup
from dt_jax.datasets.demo import collect_demo
from dt_jax.envs import mujoco_batch


@pytest.mark.parametrize(
    ("env_name", "steps", "seconds"),
    [
        ("hopper-demo", 2000, 1.1),  # HDF5 timestamps have a resolution of one second
        ("maze2d-medium-demo", 9000, 0),
        ("antmaze-umaze-diverse-demo", 9, 0),
    ],
)
def test_same_seed_gives_the_same_bytes_on_any_number_of_cores(
    tmp_path, monkeypatch, env_name, steps, seconds
):
    def collected(name, seed):
        collect_demo(env_name, tmp_path / name, steps=steps, seed=seed)
        return (tmp_path / name).read_bytes()

    first = collected("a.hdf5", 0)
    time.sleep(seconds)
    for module in (envs.envpool_env, mujoco_batch):
        monkeypatch.setattr(module, "usable_cores", lambda: 1)
    assert collected("b.hdf5", 0) == first
    assert collected("c.hdf5", 1) != first


@pytest.mark.parametrize(
    ("name", "steps", "gap"),
    [("halfcheetah-demo", 12_000, 500), ("hopper-demo", 12_000, 400)],
)
def test_levels_have_equal_shares_and_distinct_returns(tmp_path, name, steps, gap):
    out = tmp_path / "demo.hdf5"
    levels = collect_demo(name, out, steps=steps)
    for episodes in levels:
        lengths = [len(episode.rewards) for episode in episodes]
        assert sum(lengths) >= steps / 4 > sum(lengths[:-1])
    medians = [np.median([e.rewards.sum() for e in episodes]) for episodes in levels]
    assert (np.diff(medians) > gap).all(), medians
    with h5py.File(out) as file:
        ends = file["terminals"][()] | file["timeouts"][()]
        assert ends[-1]
        assert ends.sum() == sum(map(len, levels))
        rewards = np.concatenate([e.rewards for level in levels for e in level])
        np.testing.assert_array_equal(file["rewards"][()], rewards)


def test_starts_differ_between_levels_and_from_evaluation(tmp_path):
    levels = collect_demo("walker2d-demo", tmp_path / "w.hdf5", steps=400, seed=3)
    first = np.stack([episodes[0].observations[0] for episodes in levels])
    assert len(np.unique(first, axis=0)) == 4
    evaluation = envs.make(lookup("walker2d-demo"), envs.episode_seeds(3, 4))
    starts = evaluation.host_reset()
    assert not (first[:, None] == starts).all(axis=-1).any()


def test_output_without_a_terminal_is_one_line(tmp_path, capsys):
    out = tmp_path / "x.hdf5"
    collect_demo("hopper-demo", out, steps=1000)
    stderr = capsys.readouterr().err
    assert stderr == f"collecting 1,000 transitions into {out}\n"


def test_terminal_gets_a_progress_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    collect_demo("hopper-demo", tmp_path / "x.hdf5", steps=1000)
    stderr = capsys.readouterr().err
    assert "collecting hopper-demo" in stderr
    assert "100%" in stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["hoper-demo"], "unknown demo dataset 'hoper-demo'; nearest: hopper-demo"),
        (["hopper-medium-v2"], "unknown demo dataset 'hopper-medium-v2'; nearest: "),
        (["hopper-demo", "--steps=3"], "steps is 3, expected at least 4"),
        (["hopper-demo", "--out=."], ". is not a regular file: choose another path"),
        (["hopper-demo", "--out=/dev/null"], "/dev/null is not a regular file: choose"),
        (["hopper-demo", "--out=/dev/null/x"], "/dev/null/x: cannot be written to "),
        (["hopper-demo", "--seed=-1"], "seed is -1, expected 0 to"),
    ],
)
def test_errors_are_one_line_with_status_2(
    tmp_path, monkeypatch, capsys, arguments, line
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        run_command(lambda: cli.main(arguments), "collect")
    assert error.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith(f"collect: error: {line}")
    assert stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_table_has_a_row_for_each_level(tmp_path, monkeypatch, capsys):
    out = tmp_path / "h.hdf5"
    cli.main(["hopper-demo", "--steps=600", f"--out={out}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{out}: ")
    rows = [line.split()[1] for line in lines if line[:1] == "│"]
    assert rows == ["1", "2", "3", "4"]
    assert out.exists()
