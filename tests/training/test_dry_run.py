"""launch.py --dry_run: one step of the environment and one update, and no run."""

import re
from collections import defaultdict

import numpy as np
import pytest
from command import ROOT
from helpers import changed

from dt_jax.config import default_config
from dt_jax.config.flags import parse
from dt_jax.data.registry import all_specs
from dt_jax.training.dry_run import dry_run
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

TINY = {"embedding_dim": 8, "num_layers": 1, "seq_len": 3}


def datasets_by_family():
    """Return D4RL's datasets by family; those of one family need the same programs."""
    families = defaultdict(list)
    for name, spec in all_specs().items():
        if not spec.is_demo:
            families[spec.family].append(name)
    return sorted(families.items())


def check_dataset(name, capsys, *options):
    """Make the dry run of a dataset's config file and check its output."""
    family, _, dataset = name.partition("-")
    reference = f"--config=configs/{family}.py:{dataset.rpartition('-')[0]}"
    request = parse([reference, "--dry_run", *options])
    assert request.dry_run
    dry_run(request.config, request.workdir)
    assert f"dry run: {name} reset and stepped" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("family", ["pen", "antmaze"])
def test_a_dry_run_downloads_nothing(family, monkeypatch, capsys, tmp_path):
    """In two engines, with one layer; the slow test runs all files as they are."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path))
    names = dict(datasets_by_family())[family]
    check_dataset(names[0], capsys, "--config.num_layers=1")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("family", "names"), datasets_by_family())
def test_every_config_file_passes_its_dry_run(family, names, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for name in names:
        check_dataset(name, capsys)


def test_a_batch_larger_than_the_memory_is_refused(hopper_file, tmp_path):
    config = default_config(
        env_name="hopper-demo",
        data_path=str(hopper_file),
        episode_len=50,
        batch_size=10**9,
        target_returns=(30.0,),
        **TINY,
    )
    message = "config.batch_size=1000000000: a batch of 168 GB exceeds the memory of"
    with pytest.raises(UserError, match=message):
        dry_run(config.lock(), tmp_path)
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")


def test_the_config_files_cover_d4rls_thirty_datasets():
    names = [name for _, names in datasets_by_family() for name in names]
    assert len(names) == len(set(names)) == 30


def test_without_an_environment_the_update_uses_the_runs_data(
    small_config, capsys, tmp_path
):
    config = changed(small_config, env_name=None)
    dry_run(config, tmp_path / "run")
    expected = f"no environment; one update on {config.data_path} with a batch of 4, "
    assert f"dry run: {expected}train_loss" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_environment_is_raised(small_config, monkeypatch, tmp_path):
    """It checks the policy's actions as in a run."""
    monkeypatch.setattr(
        "dt_jax.evaluation.policy.Policy.act",
        lambda self, observations: np.full((len(observations), 3), np.nan),
    )
    with pytest.raises(Exception, match="NaN action"):
        dry_run(small_config, tmp_path / "run")


def test_large_batches_are_reduced(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path))
    config = default_config(env_name="hopper-medium-v2", batch_size=4096, **TINY)
    dry_run(config, tmp_path / "run")
    line = capsys.readouterr().out.splitlines()[-1]
    message = r"one update on random data with a batch of 64, train_loss (\S+)$"
    assert float(re.search(message, line)[1]) > 0


def test_a_missing_data_file_is_reported(small_config, tmp_path):
    config = changed(small_config, data_path=str(tmp_path / "none.hdf5"))
    with pytest.raises(UserError, match=r"no such file: .*none.hdf5"):
        dry_run(config, tmp_path / "run")


def test_the_dataset_is_used_once_it_is_in_the_cache(
    hopper_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path))
    config = default_config(env_name="hopper-demo", target_returns=None, **TINY)
    dry_run(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert "one update on random data" in out
    assert "the data's" not in out  # values from the data are not known yet
    (tmp_path / "hopper-demo.hdf5").symlink_to(hopper_file)
    dry_run(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert "target_returns 40.9, 23.2: the data's best and mean return" in out
    assert "one update on hopper-demo.hdf5" in out


def test_missing_devices_are_reported(small_config, tmp_path):
    config = changed(small_config, num_devices=99)
    with pytest.raises(UserError, match="num_devices=99: JAX finds"):
        dry_run(config, tmp_path / "run")


def test_the_folder_of_another_run_is_refused(small_config, tmp_path):
    config = changed(small_config, eval_episodes=0, update_steps=1)
    train(config, tmp_path)
    with pytest.raises(UserError, match="holds another run"):
        dry_run(changed(config, embedding_dim=16), tmp_path)
