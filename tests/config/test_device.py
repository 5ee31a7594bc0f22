"""config.device and config.deterministic, before JAX's back end starts.

Here it has started, so that the settings are only recorded.
"""

import os

import jax
import pytest

from dt_jax.utils.backend import check_backend, start_backend
from dt_jax.utils.errors import UserError


@pytest.fixture
def settings(monkeypatch):
    """Return the settings that start_backend changes, as if JAX had found a GPU."""
    seen = {}
    monkeypatch.setattr(jax.config, "update", seen.__setitem__)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_max_hlo_modules=7")
    return seen


@pytest.mark.parametrize(
    ("device", "platforms"),
    [("auto", None), ("gpu", "cuda,cpu"), ("cuda", "cuda,cpu")],
)
def test_the_device_selects_jaxs_platforms(settings, device, platforms):
    start_backend(device, deterministic=False)
    assert settings.get("jax_platforms") == platforms
    assert os.environ["XLA_FLAGS"] == "--xla_dump_max_hlo_modules=7"


def test_deterministic_adds_to_the_users_xla_flags(settings):
    start_backend("auto", deterministic=True)
    assert os.environ["XLA_FLAGS"] == (
        "--xla_dump_max_hlo_modules=7 --xla_gpu_deterministic_ops=true"
    )


def test_a_device_that_jax_does_not_find_is_refused(settings):
    message = r"config.device=tpu: JAX uses gpu; .*requirements-cuda.txt"
    with pytest.raises(UserError, match=message):
        start_backend("tpu", deterministic=False)


def test_a_back_end_that_fails_to_start_is_the_users_error(settings, monkeypatch):
    def fail():
        raise RuntimeError("no TPU")

    monkeypatch.setattr(jax, "default_backend", fail)
    message = r"device=auto: JAX finds no such device \(JAX reports: no TPU\)"
    with pytest.raises(UserError, match=message):
        check_backend("auto")
