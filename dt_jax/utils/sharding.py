"""How a run is sharded: which device has which seeds, and which part of a batch."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dt_jax.utils.errors import UserError


class RunSharding:
    """A mesh of devices with two axes, "seed" and "data".

    Seeds are sharded first, because they are independent. The parameters of a seed are
    replicated on all devices that have a part of its batches.

    Attributes:
      state: the sharding of what each seed has, [S, ...], or [...] with one seed.
      replicated: the sharding of what all devices hold.
      seeds: the seeds, of all S, that this process makes batches for.
      windows: this process's part of each batch of B windows.
    """

    def __init__(self, devices: Sequence[jax.Device], num_seeds: int, batch_size: int):
        """Shard S seeds and batches of B windows over the devices of all processes.

        Raises:
          UserError: a batch cannot be split equally.
        """
        seeds = math.gcd(num_seeds, len(devices))
        parts = len(devices) // seeds
        if batch_size % parts:
            raise UserError(
                f"config.batch_size={batch_size}: expected a multiple of {parts}, the "
                f"devices of a batch, such as {-(-batch_size // parts) * parts}"
            )
        mesh = Mesh(np.reshape(devices, (seeds, parts)), ("seed", "data"))
        axes = ("seed",) if num_seeds > 1 else ()
        self.state = NamedSharding(mesh, PartitionSpec(*axes))
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self._batches = NamedSharding(mesh, PartitionSpec(None, *axes, "data"))
        self._gather = jax.jit(lambda state: state, out_shardings=self.replicated)
        shape = num_seeds, batch_size
        whole = NamedSharding(mesh, PartitionSpec("seed", "data"))
        local: Any = whole.addressable_devices_indices_map(shape).values()
        self.seeds, self.windows = (
            _enclosing_slice([index[axis].indices(size) for index in local])
            for axis, size in enumerate(shape)
        )
        self._shape = shape if num_seeds > 1 else shape[1:]

    def send(self, batches: Any) -> Any:
        """Put this process's part of several batches on its devices.

        Args:
          batches: a pytree of NumPy arrays [n, seeds, windows, ...], without the axis
            of seeds if there is one seed.

        Returns:
          The batches of all processes, [n, S, B, ...], without the axis of one seed.
        """

        def send_array(local: np.ndarray) -> jax.Array:
            rest = local.shape[1 + len(self._shape) :]
            shape = local.shape[0], *self._shape, *rest
            return jax.make_array_from_process_local_data(self._batches, local, shape)

        return jax.tree.map(send_array, batches)

    def replicate(self, tree: Any) -> Any:
        """Put the same NumPy arrays on every device."""
        return jax.tree.map(
            lambda x: jax.make_array_from_callback(
                np.shape(x), self.replicated, lambda index: x[index]
            ),
            tree,
        )

    def to_local_device(self, state: Any) -> Any:
        """Return the state of all seeds on one device of this process.

        Blocks until it is computed: JAX reports a lack of memory here, but may wait
        forever where the arrays of a failed program are copied to the host.
        """
        jax.block_until_ready(state)
        if not self.state.is_fully_replicated:
            state = self._gather(state)
        return jax.tree.map(lambda x: x.addressable_data(0), state)


def make_sharding(
    num_devices: int | None, num_seeds: int, batch_size: int
) -> RunSharding:
    """Return the sharding of a run over as many devices as its configuration names.

    Raises:
      UserError: there are fewer devices, or a batch cannot be split equally.
    """
    if jax.process_count() > 1:
        devices = jax.devices()
        if num_devices not in (None, len(devices)):
            raise UserError(
                f"config.num_devices={num_devices}: the {jax.process_count()} "
                f"processes have {len(devices)} devices, and all are used; leave it out"
            )
    else:
        devices = jax.local_devices()
        if (num_devices or 1) > len(devices):
            raise UserError(
                f"config.num_devices={num_devices}: JAX finds {len(devices)} here "
                f"({devices[0].device_kind}); give that or fewer"
            )
        devices = devices[: num_devices or 1]
    return RunSharding(devices, num_seeds, batch_size)


def _enclosing_slice(ranges: Sequence[tuple[int, int, int]]) -> slice:
    """Return the smallest slice that contains all (start, stop, step)."""
    return slice(min(r[0] for r in ranges), max(r[1] for r in ranges))
