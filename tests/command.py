"""The programs as a user starts them, each in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
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


def wait_until_it_listens(process):
    """Wait for the handler of SIGUSR1: before, Python has hardly started."""
    listens = 1 << (signal.SIGUSR1 - 1)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        (caught,) = re.findall(r"SigCgt:\s*([0-9a-f]+)", status)
        if int(caught, 16) & listens:
            return
        time.sleep(0.01)
