"""Where a run's arrays lie: which device has which seeds, and which part of a batch."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from dt_jax.utils.errors import UserError


class Placement:
    """A mesh of devices with two axes: seeds apart, and each batch in equal parts.

    The seeds come first, for they need nothing of each other. The parameters of a seed
    are on all devices that have a part of its batches.

    Attributes:
      state: the sharding of what each seed has, [S, ...] or, of one seed, [...].
      everywhere: the sharding of what all devices have alike.
      seeds: those that this process makes batches for, of all S.
      windows: its part of them, of all B.
    """

    def __init__(self, devices: Sequence[jax.Device], num_seeds: int, batch_size: int):
        """Share out seeds and batches.

        Args:
          devices: all that the run is made on, other processes' among them.
          num_seeds: S.
          batch_size: B.

        Raises:
          UserError: a batch can't be shared out equally.
        """
        seeds = math.gcd(num_seeds, len(devices))
        parts = len(devices) // seeds
        if batch_size % parts:
            raise UserError(
                f"config.batch_size={batch_size}: expected a multiple of {parts}, for "
                f"it is shared out over {parts} of {len(devices)} devices; such as "
                f"{-(-batch_size // parts) * parts}"
            )
        mesh = Mesh(np.reshape(devices, (seeds, parts)), ("seed", "data"))
        axes = ("seed",) if num_seeds > 1 else ()
        self.state = NamedSharding(mesh, PartitionSpec(*axes))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self._batches = NamedSharding(mesh, PartitionSpec(None, *axes, "data"))
        whole = NamedSharding(mesh, PartitionSpec("seed", "data"))
        self._gather = jax.jit(lambda state: state, out_shardings=self.everywhere)
        shape = num_seeds, batch_size
        mine: Any = whole.addressable_devices_indices_map(shape).values()
        self.seeds, self.windows = (
            _hull([index[axis].indices(size) for index in mine])
            for axis, size in enumerate(shape)
        )
        axis = 0 if num_seeds > 1 else 1  # the first there is
        self._shape = shape[axis:]
        self._first = (self.seeds.start, self.windows.start)[axis:]

    def send(self, batches: Any) -> Any:
        """Put this process's part of several batches on its devices.

        Args:
          batches: a pytree of NumPy arrays [n, seeds, windows, ...], without the axis
            of seeds where there is one.

        Returns:
          The same of all processes: [n, S, B, ...], without the axis of one seed.
        """
        axes = len(self._shape)

        def whole(mine: np.ndarray) -> jax.Array:
            def part(index: Any) -> np.ndarray:
                places = zip(index[1 : 1 + axes], self._shape, self._first, strict=True)
                found = [
                    slice(start - first, stop - first)
                    for each, size, first in places
                    for start, stop, _ in [each.indices(size)]
                ]
                return mine[(slice(None), *found)]

            shape = mine.shape[0], *self._shape, *mine.shape[1 + axes :]
            return jax.make_array_from_callback(shape, self._batches, part)

        return jax.tree.map(whole, batches)

    def copy_to_all(self, tree: Any) -> Any:
        """Put the same NumPy arrays on every device."""
        return jax.tree.map(
            lambda x: jax.make_array_from_callback(
                np.shape(x), self.everywhere, lambda index: x[index]
            ),
            tree,
        )

    def copy_here(self, state: Any) -> Any:
        """Return what each seed has, of all seeds, on one device of this process."""
        if not self.state.is_fully_replicated:
            state = self._gather(state)
        return jax.tree.map(lambda x: x.addressable_data(0), state)


def place(config: ConfigDict) -> Placement:
    """Return where a run lies: on as many devices as its configuration says.

    Raises:
      UserError: there are not so many, or a batch can't be shared out among them.
    """
    asked = config.num_devices
    if jax.process_count() > 1:
        devices = jax.devices()
        if asked not in (None, len(devices)):
            raise UserError(
                f"config.num_devices={asked}: the {jax.process_count()} processes "
                f"have {len(devices)} devices, and all are used; leave it out"
            )
    else:
        devices = jax.local_devices()
        if (asked or 1) > len(devices):
            raise UserError(
                f"config.num_devices={asked}: JAX finds {len(devices)} here "
                f"({devices[0].device_kind}); give that or fewer"
            )
        devices = devices[: asked or 1]
    return Placement(devices, config.num_seeds, config.batch_size)


def _hull(ranges: Sequence[tuple[int, int, int]]) -> slice:
    """Return the smallest slice that has all (start, stop, step) in it."""
    return slice(min(r[0] for r in ranges), max(r[1] for r in ranges))
