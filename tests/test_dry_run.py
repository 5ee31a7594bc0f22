"""launch.py --dry_run: every configuration has all that it needs."""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from configs import default
from dt_jax.dry_run import dry_run
from dt_jax.errors import UserError
from dt_jax.flags import parse
from dt_jax.registry import all_specs

ROOT = Path(__file__).parents[1]


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
    asked = parse(command, ROOT / "configs/quickstart.py")
    assert asked.dry_run
    dry_run(asked.config)
    return f"dry run: {name} reset and stepped" in capsys.readouterr().out


@pytest.mark.parametrize(("family", "names"), by_family())
def test_a_configuration_of_each_family(family, names, monkeypatch, capsys, tmp_path):
    """With one layer, which compiles faster; the slow test takes all as they are."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path))
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


def test_without_an_environment_the_runs_own_data_is_taken(small_config, capsys):
    config = small_config.copy_and_resolve_references()
    with config.unlocked():
        config.env_name = None
    dry_run(config)
    assert (
        f"dry run: no environment played; one update on {config.data_path}, 4 windows"
        in (capsys.readouterr().out)
    )


def test_an_error_of_the_environment_is_told(small_config, monkeypatch):
    """The network's answer is looked at by the environment, as in a run."""
    monkeypatch.setattr(
        "dt_jax.policy.Policy.act",
        lambda self, observations: np.full((len(observations), 3), np.nan),
    )
    with pytest.raises(Exception, match="was given a NaN action"):
        dry_run(small_config)


def test_large_batches_are_cut(capsys):
    config = default.for_dataset(
        "hopper-medium-v2", embedding_dim=8, num_layers=1, seq_len=3, batch_size=4096
    )
    dry_run(config)
    told = re.search(
        r"made-up data, 64 windows of 3 steps, loss (\S+)$", capsys.readouterr().out
    )
    assert float(told[1]) > 0


def test_the_runs_own_file_is_looked_at(small_config, tmp_path):
    config = small_config.copy_and_resolve_references()
    with config.unlocked():
        config.data_path = str(tmp_path / "none.hdf5")
    with pytest.raises(UserError, match="no such file"):
        dry_run(config)
