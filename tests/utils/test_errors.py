import os
import subprocess
import sys
from pathlib import Path

import pytest

from dt_jax.utils.errors import did_you_mean

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("name", "known", "line"),
    [
        ("hoper", ["pen", "hopper"], "nearest: hopper"),
        ("HOPPER", ["pen", "hopper"], "nearest: hopper"),
        ("walker2d-v5", ["Walker2d-v5", "Walker2d-v4"], "nearest: Walker2d-v5, Walk"),
        ("zzz", ["pen", "hopper"], "known: hopper, pen"),
        ("0", LETTERS[:20], f"known: {', '.join(LETTERS[:20])}"),
        ("0", LETTERS, "among the 26 known: a, g, m, s, y"),
    ],
)
def test_did_you_mean(name, known, line):
    assert did_you_mean(name, known).startswith(line)


def run(body: str, stdout: int) -> subprocess.CompletedProcess:
    """Run a program whose main() is `body`; as users do, with buffered output."""
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
def nobody_reads():
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("lines", [1, 100_000])  # written at the end, or before
def test_a_reader_that_has_had_enough_is_no_error(nobody_reads, lines):
    result = run(f"print('line\\n' * {lines})", nobody_reads)
    assert result.stderr == ""
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("last", "told", "status"),
    [
        ("raise SystemExit(0)", "", 0),  # as --help ends
        ("raise errors.UserError('no data')", "-c: error: no data\n", 2),
    ],
)
def test_nobody_reads_what_is_left_when_main_ends_early(
    nobody_reads, last, told, status
):
    result = run(f"print('line'); {last}", nobody_reads)
    assert result.stderr == told
    assert result.returncode == status


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_once():
    with open("/dev/full", "w") as full:
        result = run("print('line')", full.fileno())
    assert result.stderr == (
        "-c: error: No space left on device; make room, and give the same command "
        "again\n"
    )
    assert result.returncode == 2


def test_the_line_names_the_program_as_it_is_started():
    command = [sys.executable, "-m", "dt_jax", "data", "list", "nothing"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr.startswith("python -m dt_jax data: error: there is no dataset")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        ("MemoryError('Unable to allocate 16 GiB')", "Unable to allocate 16 GiB;"),
        ("MemoryError()", "the machine has no more;"),
        ("RuntimeError('RESOURCE_EXHAUSTED: 9 bytes\\nStack')", "9 bytes; smaller"),
    ],
)
def test_a_lack_of_memory_is_told_in_one_line(raised, words):
    result = run(f"raise {raised}", subprocess.PIPE)
    assert result.stderr.startswith("-c: error: out of memory: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.returncode == 2


def test_a_fault_of_ours_keeps_its_traceback():
    result = run("raise RuntimeError('a bug')", subprocess.PIPE)
    assert "Traceback" in result.stderr
    assert result.returncode == 1


def test_what_a_shell_has_closed_is_not_written_to():
    code = (
        "from dt_jax.cli.common import run_command; import os, sys, warnings\n"
        "def main():\n"
        "    print('line'); sys.stdout.isatty(); warnings.warn('so')\n"
        "    assert os.open('.', os.O_RDONLY) > 2\n"
        "run_command(main, '-c')"
    )
    command = ["sh", "-c", f'"{sys.executable}" -c "$0" >&- 2>&-', code]
    assert subprocess.run(command, check=False).returncode == 0


def test_any_text_can_be_printed_and_no_line_is_coloured():
    body = r"import warnings; print('\udcff'); warnings.warn('\x1b[33mso\x1b[0m')"
    result = run(body, subprocess.PIPE)
    assert (result.stdout, result.returncode) == ("\\udcff\n", 0)
    assert result.stderr == "-c: warning: so\n"
