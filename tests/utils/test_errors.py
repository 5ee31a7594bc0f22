import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT, refusal

from dt_jax.data.registry import all_specs
from dt_jax.utils.errors import did_you_mean, printable

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("name", "known", "line"),
    [
        ("hoper", ["pen", "hopper"], "; nearest: hopper"),
        ("HOPPER", ["pen", "hopper"], "; nearest: hopper"),
        ("walker2d-v5", ["Walker2d-v5", "Walker2d-v4"], "; nearest: Walker2d-v5, W"),
        ("zzz", ["pen", "hopper"], "; known: hopper, pen"),
        ("0", LETTERS[:20], f"; known: {', '.join(LETTERS[:20])}"),
    ],
)
def test_near_names_are_suggested_else_known_ones(name, known, line):
    assert did_you_mean(name, known).startswith(line)


def test_unrelated_names_are_not_suggested():
    assert did_you_mean("0", LETTERS) == ""
    for name in ("kitchen-complete-v0", "kitchen-mixed-v0", "CartPole-v1"):
        assert did_you_mean(name, all_specs()) == ""


def test_control_characters_are_escaped():
    assert printable("a\x1b[2Jé\udcff") == "a\\x1b[2Jé\\udcff"


def run(body, stdout=subprocess.PIPE):
    """Run a command whose main() is `body`, with buffered output as users have it."""
    code = "from dt_jax.cli.common import run_command\n"
    code += "from dt_jax.utils import errors\n"
    code += f"def main():\n    {body}\n"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-c", f"{code}run_command(main, '-c')"],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture
def broken_pipe():
    """Return the file descriptor of a pipe whose reader has closed it."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("lines", [1, 100_000])  # flushed at the end, or before
def test_broken_pipe_is_not_reported(broken_pipe, lines):
    result = run(f"print('line\\n' * {lines})", broken_pipe)
    assert result.stderr == ""
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("last", "message", "status"),
    [
        ("raise SystemExit(0)", "", 0),  # as --help ends
        ("raise errors.UserError('no data')", "-c: error: no data\n", 2),
    ],
)
def test_broken_pipe_does_not_change_the_status_of_an_exit(
    broken_pipe, last, message, status
):
    result = run(f"print('line'); {last}", broken_pipe)
    assert result.stderr == message
    assert result.returncode == status


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_reported_once():
    with open("/dev/full", "w") as full:
        result = run("print('line')", full.fileno())
    assert result.stderr == (
        "-c: error: No space left on device; free some disk space and run the same "
        "command again\n"
    )
    assert result.returncode == 2


@pytest.mark.parametrize("setting", ["JAX_DEFAULT_MATMUL_PRECISION", "JAX_ENABLE_X64"])
def test_wrong_setting_of_jax_is_one_line(setting):
    line = refusal("launch.py", "--config=configs/hopper.py", **{setting: "bogus"})
    assert "bogus" in line
    assert line.endswith("correct this environment variable, or unset it")
    assert setting.lower() in line.lower()


def test_error_names_the_command_as_it_was_started():
    line = refusal("-m", "dt_jax", "data", "list", "nothing")
    assert line.startswith("python -m dt_jax data: error: ")


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        ("MemoryError('Unable to allocate 16 GiB')", "Unable to allocate 16 GiB;"),
        ("MemoryError()", "no reason given;"),
        ("RuntimeError('RESOURCE_EXHAUSTED: 9 bytes\\nStack')", "9 bytes; reduce"),
        ("ImportError('a.so: failed to map segment from shared object')", "a.so: fail"),
        ("RuntimeError('can\\'t start new thread')", "or raise the limit (ulimit -v)"),
        ("OSError(12, 'Cannot allocate memory')", "Cannot allocate memory; reduce"),
    ],
)
def test_out_of_memory_is_reported_in_one_line(raised, words):
    result = run(f"raise {raised}")
    assert result.stderr.startswith("-c: error: out of memory: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.returncode == 2


def test_libraries_say_nothing_beside_the_error():
    """Neither in destructors, of which Python prints tracebacks, nor in their logs."""
    body = (
        "__import__('logging').getLogger('matplotlib').warning('x')\n"
        "    class Loop:\n"
        "        def __del__(self): raise AttributeError('_ssock')\n"
        "    loop = Loop()\n"
        "    raise errors.UserError('Too many open files')"
    )
    assert run(body).stderr == "-c: error: Too many open files\n"


def test_text_that_the_terminal_cannot_show_is_no_error(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    result = run("print('1 ± 2')")
    assert (result.returncode, result.stdout, result.stderr) == (0, "1 ? 2\n", "")


def test_removed_working_folder_is_reported(tmp_path):
    command = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec {sys.executable}"
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        ["sh", "-c", f"{command} {ROOT}/launch.py --help"],
        capture_output=True,
        text=True,
        check=False,
    )
    line = "launch.py: error: the working folder was removed: change to another\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_bug_keeps_its_traceback():
    result = run("raise RuntimeError('a bug')")
    assert "Traceback" in result.stderr
    assert result.returncode == 1


def test_warning_is_one_line():
    result = run("import warnings; warnings.warn('a\\nb\\x1b[2J')")
    assert result.stderr == "-c: warning: a b\\x1b[2J\n"
    assert result.returncode == 0
