"""How the windows of a batch come together: on the device, or before it on the host."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.data.arrays import machine_memory
from dt_jax.data.sampler import Data, Sampler, Windows
from dt_jax.types import Array, Batch
from dt_jax.utils import distributed
from dt_jax.utils.sharding import Placement


class Feed(Protocol):
    """What a compiled program gets for each update, and how a batch is made of it.

    With more than one seed everything has a leading axis for them.

    Attributes:
      placement: which devices get what.
      data: what the program gets each time, a pytree of arrays.
    """

    placement: Placement
    data: Any

    def inputs(self, step: int) -> Any:
        """Return this process's part of what the update after `step` others gets.

        It is a pytree of NumPy arrays [B, ...], with its share of B and of the seeds.
        """

    def batch(self, data: Any, inputs: Any) -> Batch:
        """Return its batch; may be traced by JAX."""


class OnHost:
    """Batches are gathered by NumPy, and sent."""

    data = ()

    def __init__(self, samplers: Sequence[Sampler], placement: Placement):
        self._samplers, self.placement = samplers, placement

    def inputs(self, step: int) -> Batch:
        """Return the part of the batch of `step`."""
        return _inputs(self._samplers, self.placement, step, Sampler.gather)

    def batch(self, data: Any, inputs: Batch) -> Batch:
        """Return the batch as it came."""
        return inputs


class OnDevice:
    """The dataset lies on the device, which is told where the windows lie.

    On the CPU the arrays are not copied: the dataset's own are used (see data.arrays).
    """

    def __init__(self, samplers: Sequence[Sampler], placement: Placement):
        self._samplers, self.placement = samplers, placement
        self.data = placement.copy_to_all(samplers[0].data)

    def inputs(self, step: int) -> Windows:
        """Return where the windows of the part of `step` lie, int32."""
        windows = _inputs(self._samplers, self.placement, step, Sampler.windows)
        return Windows(*(numbers.astype(np.int32) for numbers in windows))

    def batch(self, data: Data, inputs: Windows) -> Batch:
        """Return what `Sampler.gather` returns, to the same bits."""
        slots = jnp.arange(self._samplers[0].seq_len, dtype=jnp.int32)
        slots = jnp.expand_dims(slots, range(inputs.left.ndim))  # [1, T]
        valid = slots < inputs.left[..., None]  # [B, T]
        rows = inputs.rows[..., None] + slots

        def window(values: Array, offset: Array, scale: Array) -> Array:
            # Rows past the last transition are clipped: they are padding anyway.
            taken = jnp.take(values, rows, axis=0, mode="clip")
            offset, scale = (
                jnp.broadcast_to(x.reshape((1,) * rows.ndim + (-1,)), taken.shape)
                for x in (offset, scale)
            )
            # XLA would multiply by 1/scale, and sometimes round otherwise.
            scale = jax.lax.optimization_barrier(scale)
            return jnp.where(valid[..., None], (taken - offset) / scale, 0)

        returns = jnp.take(data.returns_to_go, rows, mode="clip") * data.reward_scale
        return Batch(
            states=window(data.observations, data.state_mean, data.state_std),
            actions=window(data.actions, data.action_center, data.action_scale),
            returns_to_go=jnp.where(valid, returns, 0),
            timesteps=inputs.timesteps[..., None] + slots,
            mask=valid.astype(returns.dtype),
        )


def _inputs(
    samplers: Sequence[Sampler],
    placement: Placement,
    step: int,
    make: Callable[[Sampler, np.ndarray], Any],
) -> Any:
    """Make something of this process's indices of `step`; one seed gets no axis."""
    each = [
        make(sampler, sampler.indices(step)[placement.windows])
        for sampler in samplers[placement.seeds]
    ]
    if len(samplers) == 1:
        return each[0]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *each)


def make_feed(samplers: Sequence[Sampler], placement: Placement, share: float) -> Feed:
    """Return what feeds the batches of `samplers` to a run's devices.

    Args:
      samplers: of one dataset, one for each seed.
      placement: of the run.
      share: of each device's memory that the data may take; more stays on the host, and
        so does what is mapped from the disk.
    """
    arrays = samplers[0].data[:3]
    stats = jax.local_devices()[0].memory_stats() or {}  # none on the CPU
    there = stats.get("bytes_limit", machine_memory())
    mapped = any(isinstance(array, np.memmap) for array in arrays)
    large = sum(array.nbytes for array in arrays) > share * there
    # All processes do the same: what they compile has to be one program.
    if int(distributed.largest(mapped or large)):
        return OnHost(samplers, placement)
    return OnDevice(samplers, placement)
