"""Commands as a user starts them, each in its own process."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Of a run that takes seconds.
SMALL_NETWORK = [
    "--config.embedding_dim=8",
    "--config.num_layers=1",
    "--config.seq_len=3",
    "--config.batch_size=4",
]


def launch_command(data, workdir, *flags):
    """Return the command of a run of two updates on a file of hopper's sizes.

    Further flags take precedence.
    """
    return [
        *("launch.py", "--config=configs/hopper.py:medium", *SMALL_NETWORK),
        *("--config.episode_len=40", "--config.eval_episodes=1"),
        *("--config.target_returns=50", "--config.update_steps=2"),
        *("--config.warmup_steps=1", "--config.num_workers=0"),
        *(f"--config.data_path={data}", f"--workdir={workdir}", *flags),
    ]


def start(*command, **environment):
    """Start python with `command` in the checkout, on the CPU.

    Args:
      *command: the arguments.
      **environment: further environment variables.
    """
    if os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "1":  # see conftest.py
        environment = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"} | environment
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*command, **environment):
    """Run a command, see `start`; return its exit status, stdout and stderr."""
    process = start(*command, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def refusal(*command, **environment):
    """Run a command that must fail by the user's mistake; return its one line."""
    status, _, err = run(*command, **environment)
    assert status == 2, err
    (line,) = err.splitlines()
    return line


def wait_until_it_listens(process):
    """Wait until a process handles SIGUSR1; before, Python is still starting."""
    handled = 1 << (signal.SIGUSR1 - 1)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        (caught,) = re.findall(r"SigCgt:\s*([0-9a-f]+)", status)
        if int(caught, 16) & handled:
            return
        time.sleep(0.01)
