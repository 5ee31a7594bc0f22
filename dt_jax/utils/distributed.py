"""Several processes that train one run together, on one machine or on many.

With one process every function here returns at once.
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

_FAILED = 255  # above every signal's number
_GRACE_SECONDS = 1.0
_CONNECTION_WORDS = "gloo", "nccl", "connection", "unavailable", "coordination"


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes of this run, and wait for them at the end.

    JAX finds them by SLURM, GKE, Open MPI or a TPU pod, or by the variables
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. Call it before JAX's
    back end starts. Only the main process prints anything but errors.

    Raises:
      UserError: the other processes are unknown, do not join, or are lost.
    """
    # JAX's preemption service would take SIGTERM from `dt_jax.utils.signals`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            num_processes=_environment_number("JAX_NUM_PROCESSES"),
            process_id=_environment_number("JAX_PROCESS_ID"),
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed: JAX cannot join the other processes ({error}); start all "
            "of them with srun, or set JAX_COORDINATOR_ADDRESS=host:port, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0) for each"
        ) from None
    if not is_main_process():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        warnings.simplefilter("ignore")
    try:
        yield
        maximum(0).block_until_ready()
    except Exception as error:
        if _is_lost_connection(error):
            raise UserError(
                "another process of this run has exited or is unreachable: start all "
                f"of them again ({_first_line(error)})"
            ) from error
        raise
    jax.distributed.shutdown()


def exit_if_joined(status: int) -> None:
    """End this process at once if it has joined others.

    A clean exit would wait in JAX's shutdown barrier, for processes that may be lost.
    """
    if not jax.distributed.is_initialized():
        return
    for each in SIGNALS:  # a launcher may send one when the other processes end
        signal.signal(each, signal.SIG_IGN)
    if is_main_process():  # JAX aborts the others when it exits: let them exit first
        time.sleep(_GRACE_SECONDS)
    sys.stderr.flush()
    os._exit(status)


def is_main_process() -> bool:
    """Return whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def is_peer_lost(error: BaseException | None) -> bool:
    """Return whether an error may mean that another process is lost: do not wait."""
    return isinstance(error, jax.errors.JaxRuntimeError) or _is_lost_connection(error)


def maximum(number: int) -> jax.Array:
    """Return the maximum of the numbers [] int32 that all processes call this with.

    Asynchronous: it blocks only when the result is read.
    """
    if jax.process_count() == 1:
        return jnp.asarray(number, jnp.int32)
    sharding, compute = _one_device_per_process()
    mine = np.array([number], np.int32)
    return compute(
        jax.make_array_from_callback((jax.process_count(),), sharding, lambda _: mine)
    )


class SharedMaximum:
    """The maximum of a number over all processes, without waiting for the slowest."""

    def __init__(self) -> None:
        self._previous: jax.Array | None = None

    def __call__(self, number: int) -> int:
        """Return the maximum over all processes; with several, of the previous call."""
        if jax.process_count() == 1:
            return number
        previous, self._previous = self._previous, maximum(number)
        return 0 if previous is None else int(previous)


@contextmanager
def all_succeed() -> Iterator[None]:
    """Synchronise at the end of a block; if one process fails or stops, all do.

    Processes synchronise after such a block, never inside it: a failed process would
    miss a collective.

    Raises:
      UserError: the block failed in this process, or in another that reports why.
      Stopped: one of the processes has received a signal.
    """
    if jax.process_count() == 1:
        yield
        return
    status, error = 0, None
    try:
        yield
    except Stopped as stopped:
        status = stopped.signal
    except Exception as failure:
        if is_peer_lost(failure):
            raise  # a collective would hang
        status, error = _FAILED, failure
    worst = int(maximum(status))
    if error:
        raise error
    if worst == _FAILED:
        raise UserError("another process of this run has failed and reports why")
    if worst:
        raise Stopped(signal.Signals(worst))


def check_equal(**values: Any) -> None:
    """Raise a UserError unless all processes call this with equal values."""
    if jax.process_count() == 1:
        return
    for name, value in values.items():
        digest = hashlib.sha256(str(value).encode()).digest()[:4]
        number = int.from_bytes(digest) >> 1
        if int(maximum(number)) != -int(maximum(-number)):
            shown = " ".join(str(value).split())
            raise UserError(
                f"the processes of this run differ in {name} (here {shown}): start "
                "all of them with the same command, data and folder"
            )


def gather(array: np.ndarray) -> np.ndarray:
    """Concatenate the arrays [..., n] of all processes, [..., processes·n]."""
    if jax.process_count() == 1:
        return array
    return np.concatenate(multihost_utils.process_allgather(array), axis=-1)


@cache
def _one_device_per_process():
    first: dict[int, jax.Device] = {}
    for device in jax.devices():
        first.setdefault(device.process_index, device)
    mesh = Mesh([first[process] for process in sorted(first)], "process")
    replicated = NamedSharding(mesh, PartitionSpec())
    return (
        NamedSharding(mesh, PartitionSpec("process")),
        jax.jit(jnp.max, out_shardings=replicated),
    )


def _is_lost_connection(error: BaseException | None) -> bool:
    # JAX raises a ValueError where it notices the loss as a program is called.
    if not isinstance(error, jax.errors.JaxRuntimeError | ValueError):
        return False
    return any(word in _first_line(error).lower() for word in _CONNECTION_WORDS)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


def _environment_number(variable: str) -> int | None:
    value = os.environ.get(variable)
    if value is not None and not value.isdecimal():
        raise UserError(f"{variable}={value}: expected a number")
    return None if value is None else int(value)
