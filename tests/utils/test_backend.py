import os
import subprocess
import sys

import command
import jax
import pytest

from dt_jax.utils.backend import check_backend, enable_compilation_cache, start_backend
from dt_jax.utils.errors import UserError

PROGRAM = """
import time, jax, jax.numpy as jnp
from dt_jax.utils.backend import enable_compilation_cache
enable_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(4.0))))
"""


def run(home, **environment):
    """Run PROGRAM as a user with that home; return its result and its stderr."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**kept, "JAX_PLATFORMS": "cpu", "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout), done.stderr


def cached_programs(folder):
    return sorted(path for path in folder.rglob("*-cache") if path.is_file())


def test_programs_are_cached_in_a_private_folder(tmp_path):
    result, err = run(tmp_path, DT_JAX_DATA=str(tmp_path / "shared"))
    cached = cached_programs(tmp_path)
    assert cached
    assert not err
    assert not (tmp_path / "shared").exists()
    for folder in (cached[0].parent, cached[0].parents[1]):
        assert (folder.stat().st_mode & 0o077) == 0
    written = cached[0].stat().st_mtime_ns
    assert run(tmp_path) == (result, "")
    assert cached_programs(tmp_path) == cached
    assert cached[0].stat().st_mtime_ns == written


def test_truncated_program_is_compiled_again(tmp_path):
    result, _ = run(tmp_path)
    for path in cached_programs(tmp_path):
        os.truncate(path, path.stat().st_size // 2)
    again, err = run(tmp_path)
    assert again == result
    assert "persistent compilation cache" in err


def test_jax_variable_takes_precedence(tmp_path):
    run(tmp_path, JAX_COMPILATION_CACHE_DIR="")
    assert not cached_programs(tmp_path)


def test_nothing_is_cached_in_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "home").write_text("a file")
    result, err = run(tmp_path / "home")
    assert result
    assert not err


def test_nothing_is_cached_without_a_home(homeless, settings, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    enable_compilation_cache()
    assert not settings


def test_device_other_than_the_started_one_is_refused():
    found = jax.default_backend()
    for device in ("auto", found):
        check_backend(device)
    message = f"config.device=tpu: JAX uses {found}; .*requirements-cuda.txt"
    with pytest.raises(UserError, match=message):
        check_backend("tpu")


@pytest.fixture
def settings(monkeypatch):
    """Return the settings that start_backend changes, as if JAX had found a GPU.

    Here the back end has started, so that they are only recorded.
    """
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


def test_platforms_of_the_environment_that_are_not_there_are_the_users_error():
    """As where a JAX without CUDA runs in an image for GPUs."""
    code = (
        "from dt_jax.utils.backend import start_backend; start_backend('auto', False)"
    )
    status, _, err = command.run("-c", code, JAX_PLATFORMS="cuda")
    message = "config.device=auto: JAX finds no such device (JAX_PLATFORMS=cuda); a GPU"
    assert status == 1
    assert f"UserError: {message}" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "setting",
    [
        {"jax_disable_jit": True},
        {"jax_transfer_guard": "disallow"},
        {"jax_transfer_guard_host_to_device": "disallow_explicit"},
    ],
)
def test_settings_that_stop_every_run_are_named(setting):
    ((name, value),) = setting.items()
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        with pytest.raises(UserError, match=f"^{name.upper()}={value}: .*unset it$"):
            check_backend("auto")
    finally:
        jax.config.update(name, before)


def test_a_back_end_that_fails_to_start_is_the_users_error(settings, monkeypatch):
    def fail():
        raise RuntimeError("no TPU")

    monkeypatch.setattr(jax, "default_backend", fail)
    message = r"device=auto: JAX finds no such device \(JAX reports: no TPU\)"
    with pytest.raises(UserError, match=message):
        check_backend("auto")
