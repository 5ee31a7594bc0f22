"""launch.py --dry_run: every configuration has all that it needs."""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from dt_jax.config import default_config
from dt_jax.config.flags import parse
from dt_jax.data.registry import all_specs
from dt_jax.training.dry_run import dry_run
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

ROOT = Path(__file__).parents[2]


def by_family():
    """Return D4RL's datasets by their environment; what is compiled is the same."""
    families = defaultdict(list)
    for name, spec in all_specs().items():
        if not spec.is_demo:
            families[spec.family].append(name)
    return sorted(families.items())


def all_is_there(name, capsys, *options):
    """Run what launch.py does for a dataset's configuration."""
    family, _, dataset = name.partition("-")
    reference = f"--config=configs/{family}.py:{dataset.rpartition('-')[0]}"
    command = ["launch.py", reference, "--dry_run", *options]
    asked = parse(command)
    assert asked.dry_run
    dry_run(asked.config, asked.workdir)
    return f"dry run: {name} reset and stepped" in capsys.readouterr().out


@pytest.mark.parametrize("family", ["pen", "antmaze"])
def test_a_configuration_of_two_engines(family, monkeypatch, capsys, tmp_path):
    """With one layer, which compiles faster; the slow test takes all as they are."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path))
    names = dict(by_family())[family]
    assert all_is_there(names[0], capsys, "--config.num_layers=1")
    assert not list(tmp_path.iterdir())  # nothing was downloaded


@pytest.mark.slow
@pytest.mark.parametrize(("family", "names"), by_family())
def test_every_configuration(family, names, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for name in names:
        assert all_is_there(name, capsys)


def test_all_thirty_are_covered():
    names = [name for _, names in by_family() for name in names]
    assert len(names) == len(set(names)) == 30


def test_without_an_environment_the_runs_own_data_is_taken(
    small_config, capsys, tmp_path
):
    config = small_config.copy_and_resolve_references()
    with config.unlocked():
        config.env_name = None
    dry_run(config, tmp_path / "run")
    assert (
        f"dry run: no environment played; one update on {config.data_path}, 4 windows"
        in (capsys.readouterr().out)
    )


def test_an_error_of_the_environment_is_told(small_config, monkeypatch, tmp_path):
    """The network's answer is looked at by the environment, as in a run."""
    monkeypatch.setattr(
        "dt_jax.evaluation.policy.Policy.act",
        lambda self, observations: np.full((len(observations), 3), np.nan),
    )
    with pytest.raises(Exception, match="was given a NaN action"):
        dry_run(small_config, tmp_path / "run")


def test_large_batches_are_cut(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path))
    config = default_config(
        env_name="hopper-medium-v2",
        embedding_dim=8,
        num_layers=1,
        seq_len=3,
        batch_size=4096,
    )
    dry_run(config, tmp_path / "run")
    told = re.search(
        r"made-up data, 64 windows of 3 steps, loss (\S+)$", capsys.readouterr().out
    )
    assert float(told[1]) > 0


def test_the_runs_own_file_is_looked_at(small_config, tmp_path):
    config = small_config.copy_and_resolve_references()
    with config.unlocked():
        config.data_path = str(tmp_path / "none.hdf5")
    with pytest.raises(UserError, match="no such file"):
        dry_run(config, tmp_path / "run")


def test_data_at_hand_is_looked_at(hopper_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path))
    config = default_config(
        env_name="hopper-demo",
        embedding_dim=8,
        num_layers=1,
        seq_len=3,
        target_returns=None,
    )
    dry_run(config, tmp_path / "run")
    told = capsys.readouterr().out
    assert "one update on made-up data" in told
    assert "the data's" not in told  # which is not known yet
    (tmp_path / "hopper-demo.hdf5").symlink_to(hopper_file)
    dry_run(config, tmp_path / "run")
    told = capsys.readouterr().out
    assert "target_returns 40.9, 23.2: the data's best and mean return" in told
    assert "one update on hopper-demo.hdf5" in told


def test_devices_that_are_not_there_are_told(small_config, tmp_path):
    config = small_config.copy_and_resolve_references().unlock()
    config.num_devices = 99
    with pytest.raises(UserError, match="num_devices=99: JAX finds"):
        dry_run(config, tmp_path / "run")


def test_another_runs_folder_is_refused(small_config, tmp_path):
    config = small_config.copy_and_resolve_references()
    with config.unlocked():
        config.update(eval_episodes=0, update_steps=1)
    train(config, tmp_path)
    with config.unlocked():
        config.embedding_dim = 16
    with pytest.raises(UserError, match="holds another run"):
        dry_run(config, tmp_path)
