"""A complete run that several modules compare with and resume."""

import pytest

from dt_jax.training.train import train


@pytest.fixture(scope="session")
def _finished_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def finished(_finished_folder, small_config):
    """Return the folder of a complete run of `small_config`; tests must not change it.

    It is trained on first use.
    """
    if not _finished_folder.exists():
        train(small_config, _finished_folder)
    return _finished_folder
