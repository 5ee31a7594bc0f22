"""The choice of the device. JAX's own back end has started: settings are recorded."""

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


@pytest.mark.parametrize("device", ["cpu", "tpu"])
def test_a_device_that_jax_does_not_use_is_refused(settings, device):
    message = rf"device={device}: JAX uses gpu; .*requirements-cuda.txt"
    with pytest.raises(UserError, match=message):
        check_backend(device)
    with pytest.raises(UserError, match=message):
        start_backend(device, deterministic=False)


@pytest.mark.parametrize("device", ["auto", "gpu", "cuda"])
def test_the_device_that_jax_uses_is_accepted(settings, device):
    check_backend(device)
    assert settings == {}


def test_a_back_end_that_fails_to_start_is_the_users_error(settings, monkeypatch):
    def fail():
        raise RuntimeError("no TPU")

    monkeypatch.setattr(jax, "default_backend", fail)
    message = r"device=auto: JAX finds no such device \(JAX reports: no TPU\)"
    with pytest.raises(UserError, match=message):
        check_backend("auto")
