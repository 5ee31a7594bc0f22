import os
import subprocess
import sys

PROGRAM = """
import time, jax, jax.numpy as jnp
from dt_jax.utils.backend import enable_compilation_cache
enable_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(4.0))))
"""


def run(home, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**kept, "JAX_PLATFORMS": "cpu", "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout), done.stderr


def programs(folder):
    return sorted(path for path in folder.rglob("*-cache") if path.is_file())


def test_what_is_compiled_is_kept_in_the_users_own_folder(tmp_path):
    result, err = run(tmp_path, DT_JAX_DATA=str(tmp_path / "shared"))
    kept = programs(tmp_path)
    assert kept
    assert not err
    assert not (tmp_path / "shared").exists()
    for folder in (kept[0].parent, kept[0].parents[1]):
        assert (folder.stat().st_mode & 0o077) == 0
    written = kept[0].stat().st_mtime_ns
    assert run(tmp_path) == (result, "")
    assert programs(tmp_path) == kept
    assert kept[0].stat().st_mtime_ns == written


def test_a_program_that_was_cut_short_is_compiled_again(tmp_path):
    result, _ = run(tmp_path)
    for path in programs(tmp_path):
        os.truncate(path, path.stat().st_size // 2)
    again, err = run(tmp_path)
    assert again == result
    assert "persistent compilation cache" in err


def test_the_variable_of_jax_wins(tmp_path):
    run(tmp_path, JAX_COMPILATION_CACHE_DIR="")
    assert not programs(tmp_path)


def test_a_home_that_cant_be_written_is_no_matter(tmp_path):
    (tmp_path / "home").write_text("in the way")
    result, err = run(tmp_path / "home")
    assert result
    assert not err
