"""Several processes that train one run together, on one machine or on many.

With one process, as nearly always, nothing here does anything.
"""

import hashlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dt_jax.utils.errors import UserError
from dt_jax.utils.signals import SIGNALS, Stopped

_FAILED = 255  # above every signal
_GRACE_SECONDS = 1.0
_OF_A_LOST_CONNECTION = "gloo", "nccl", "connection", "unavailable", "coordination"


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes of this run; at the end, wait for them.

    An error ends this process then and there, in one line: the others may be lost, or
    wait for what does not come.

    Who they are is what JAX finds out from SLURM, GKE, Open MPI or a TPU pod; or what
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say. Call it before
    JAX's back end starts. Only the first process prints anything but its errors.

    Raises:
      UserError: nothing says who they are, or they don't come.
    """
    # It would take SIGTERM away from `dt_jax.utils.signals`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            num_processes=_number("JAX_NUM_PROCESSES"),
            process_id=_number("JAX_PROCESS_ID"),
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed: JAX can't join the other processes ({error}); start all "
            "of them by srun, or set JAX_COORDINATOR_ADDRESS=host:port, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0) for each"
        ) from None
    if not leads():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        warnings.simplefilter("ignore")
    try:
        yield
        largest(0).block_until_ready()
    except Exception as error:
        if _lost(error):
            raise UserError(
                "another process of this run has exited or is unreachable: start all "
                f"of them again ({_first_line(error)})"
            ) from error
        raise
    jax.distributed.shutdown()


def exit_if_joined(status: int) -> None:
    """End this process at once if it has joined others: none of them can be awaited.

    A clean exit would wait for the others in JAX's shutdown barrier.
    """
    if not jax.distributed.is_initialized():
        return
    for each in SIGNALS:  # the launcher of the others may send one as they end
        signal.signal(each, signal.SIG_IGN)
    if leads():  # JAX aborts the others once the main process is gone: let them exit
        time.sleep(_GRACE_SECONDS)
    sys.stderr.flush()
    os._exit(status)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


def _lost(error: BaseException | None) -> bool:
    """Tell whether an error says that a connection is lost."""
    # A ValueError where it is noticed as a program is called, not as it runs.
    of_jax = isinstance(error, jax.errors.JaxRuntimeError | ValueError)
    why = _first_line(error).lower() if error and of_jax else ""
    return any(word in why for word in _OF_A_LOST_CONNECTION)


def may_be_alone(error: BaseException | None) -> bool:
    """Tell whether an error may mean that another process is gone: don't wait then."""
    return isinstance(error, jax.errors.JaxRuntimeError) or _lost(error)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not text.isdecimal():
        raise UserError(f"{variable}={text}: expected a number")
    return int(text)


def leads() -> bool:
    """Tell whether this process is the one that writes what needs writing once."""
    return jax.process_index() == 0


def largest(number: int) -> jax.Array:
    """Return the largest of the numbers [] int32 that all processes call this with.

    It comes when they all have; until it is looked at, this one need not wait.
    """
    if jax.process_count() == 1:
        return jnp.asarray(number, jnp.int32)
    each, largest = _one_device_of_each_process()
    mine = np.array([number], np.int32)
    return largest(
        jax.make_array_from_callback((jax.process_count(),), each, lambda _: mine)
    )


class Agreement:
    """Signals that any of the processes has got, told to all at the same call."""

    def __init__(self) -> None:
        self._before: jax.Array | None = None

    def __call__(self, asked: signal.Signals | None) -> signal.Signals | None:
        """Return a signal that some process called this with, or called it with before.

        That is one call late, so that nobody waits for the slowest.
        """
        if jax.process_count() == 1:
            return asked
        before, self._before = self._before, largest(asked or 0)
        number = 0 if before is None else int(before)
        return signal.Signals(number) if number else None


@cache
def _one_device_of_each_process():
    first: dict[int, jax.Device] = {}
    for device in jax.devices():
        first.setdefault(device.process_index, device)
    mesh = Mesh([first[process] for process in sorted(first)], "process")
    everywhere = NamedSharding(mesh, PartitionSpec())
    return (
        NamedSharding(mesh, PartitionSpec("process")),
        jax.jit(jnp.max, out_shardings=everywhere),
    )


@contextmanager
def all_or_none() -> Iterator[None]:
    """Do something in all processes; where one fails or is stopped, all are.

    Raises:
      UserError: it failed in this process, or in another, which tells why.
      Stopped: a signal has come to one of them.
    """
    if jax.process_count() == 1:
        yield
        return
    mine, error = 0, None
    try:
        yield
    except Stopped as stopped:
        mine = stopped.signal
    except Exception as failure:
        if may_be_alone(failure):
            raise  # nobody to agree with
        mine, error = _FAILED, failure
    worst = int(largest(mine))
    if error:
        raise error
    if worst == _FAILED:
        raise UserError("another process of this run has failed, and tells why")
    if worst:
        raise Stopped(signal.Signals(worst))


def check_same(**what: Any) -> None:
    """Raise a UserError unless all processes call this with what reads the same."""
    if jax.process_count() == 1:
        return
    for name, value in what.items():
        digest = hashlib.sha256(str(value).encode()).digest()[:4]
        number = int.from_bytes(digest) >> 1
        if int(largest(number)) != -int(largest(-number)):
            shown = " ".join(str(value).split())
            raise UserError(
                f"the processes of this run differ in {name} (here {shown}): start "
                "all of them with one command, on the same data and one folder"
            )


def gather(array: np.ndarray) -> np.ndarray:
    """Put the arrays [..., n] of all processes together: [..., processes·n]."""
    if jax.process_count() == 1:
        return array
    return np.concatenate(multihost_utils.process_allgather(array), axis=-1)
