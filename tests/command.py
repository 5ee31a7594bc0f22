"""The programs as a user starts them, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def start(*command, **environment):
    """Start python with `command`, on the CPU; more variables as keywords."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*command, **environment):
    """Return its exit status, stdout and stderr."""
    process = start(*command, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def refusal(*command, **environment):
    """Run a command that must fail by its user's mistake; return its one line."""
    status, _, err = run(*command, **environment)
    assert status == 2, err
    (line,) = err.splitlines()
    return line
