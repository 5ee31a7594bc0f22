"""Batches: gathered on the device from a copy of the dataset, or on the host."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dt_jax.agents.base import Agent
from dt_jax.data.arrays import machine_memory
from dt_jax.data.sampler import DeviceDataset, Sampler, WindowIndices
from dt_jax.types import Array, Batch
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError
from dt_jax.utils.sharding import RunSharding

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batches(ABC):
    """What a compiled program gets for each update, and how it makes a batch of it.

    With more than one seed everything has a leading axis for them.
    """

    dataset: Any = ()  # what the program gets each time, a pytree of arrays

    def __init__(self, samplers: Sequence[Sampler], sharding: RunSharding):
        self._samplers, self.sharding = samplers, sharding

    @abstractmethod
    def inputs(self, step: int) -> Any:
        """Return this process's part of the inputs of the update after `step` others.

        A pytree of NumPy arrays [B, ...], with this process's part of B and the seeds.
        """

    @abstractmethod
    def batch(self, dataset: Any, inputs: Any) -> Batch:
        """Return the batch; may be traced by JAX."""

    def _local_part(self, step: int, make: Callable[[Sampler, np.ndarray], Any]) -> Any:
        """Apply `make` to this process's indices of `step`; one seed gets no axis."""
        each = [
            make(sampler, sampler.indices(step)[self.sharding.windows])
            for sampler in self._samplers[self.sharding.seeds]
        ]
        if len(self._samplers) == 1:
            return each[0]
        return jax.tree.map(lambda *arrays: np.stack(arrays), *each)


class HostBatches(Batches):
    """Batches are gathered by NumPy and sent to the device."""

    def inputs(self, step: int) -> Batch:
        """Return this process's part of the batch."""
        return self._local_part(step, Sampler.gather)

    def batch(self, dataset: Any, inputs: Batch) -> Batch:
        """Return the batch as it is."""
        return inputs


class DeviceBatches(Batches):
    """The dataset is on the device, which gets only the indices of the windows.

    On the CPU the arrays are not copied: see `data.arrays.aligned_empty`.
    """

    def __init__(self, samplers: Sequence[Sampler], sharding: RunSharding):
        super().__init__(samplers, sharding)
        each = [sampler.dataset for sampler in samplers]
        dataset = each[0]
        # Seeds may differ in their labels, and in nothing else.
        for name in "returns_to_go", "offsets":
            arrays = [getattr(one, name) for one in each]
            if any(array is not arrays[0] for array in arrays):
                dataset = dataset._replace(**{name: np.stack(arrays)})
        self.dataset = sharding.replicate(dataset)

    def inputs(self, step: int) -> WindowIndices:
        """Return this process's part of the window indices, int32."""
        windows = self._local_part(step, Sampler.windows)
        return WindowIndices(*(numbers.astype(np.int32) for numbers in windows))

    def batch(self, dataset: DeviceDataset, inputs: WindowIndices) -> Batch:
        """Return the same bits as `Sampler.gather`."""
        data, sampler = dataset, self._samplers[0]
        slots = jnp.arange(sampler.context_len, dtype=jnp.int32)
        slots = jnp.expand_dims(slots, range(inputs.left.ndim))  # [1, T]
        size, left = inputs.size[..., None], inputs.left[..., None]  # [B, 1]
        rows = inputs.rows[..., None] + slots  # [B, T]

        def vectors(
            values: Array, offset: Array, scale: Array, shift: int = 0
        ) -> Array:
            # Rows past the last transition are clipped: they are padding anyway.
            taken = jnp.take(values, rows + shift, axis=0, mode="clip")
            offset, scale = (
                jnp.broadcast_to(x.reshape((1,) * rows.ndim + (-1,)), taken.shape)
                for x in (offset, scale)
            )
            # XLA would multiply by 1/scale, and sometimes round differently.
            scale = jax.lax.optimization_barrier(scale)
            valid = (slots < size) & (slots < left - shift)
            return jnp.where(valid[..., None], (taken - offset) / scale, 0)

        def numbers(values: Array, offsets: Array | None) -> Array:
            taken = take(values, rows)
            if offsets is not None:
                taken = taken + take(offsets, inputs.rows + inputs.size - 1)[..., None]
            return jnp.where(slots < size, taken * data.reward_scale, 0)

        def take(values: Array, rows: Array) -> Array:
            if values.ndim == 2:  # of each seed
                return jax.vmap(take)(values, rows)
            return jnp.take(values, rows, mode="clip")

        def episode_returns() -> Array:
            taken = take(data.true_returns, inputs.rows - inputs.timesteps)
            return jnp.where(slots < size, (taken * data.reward_scale)[..., None], 0)

        def terminals() -> Array:
            last = (slots == left - 1) & (slots < size)
            return jnp.where(last, inputs.terminated[..., None], 0).astype(float_type)

        float_type = data.reward_scale.dtype
        offsets = data.offsets if sampler.has_offsets else None
        state_units = data.state_mean, data.state_std
        action_units = data.action_center, data.action_scale
        make: dict[str, Callable[[], Array]] = {
            "states": lambda: vectors(data.observations, *state_units),
            "actions": lambda: vectors(data.actions, *action_units),
            "rewards": lambda: numbers(data.rewards, None),
            "returns_to_go": lambda: numbers(data.returns_to_go, offsets),
            "timesteps": lambda: inputs.timesteps[..., None] + slots,
            "mask": lambda: (slots < size).astype(float_type),
            "terminals": terminals,
            "next_states": lambda: vectors(data.observations, *state_units, shift=1),
            "has_next": lambda: ((slots < size) & (slots < left - 1)).astype(
                float_type
            ),
            "episode_returns": episode_returns,
        }
        return Batch(**{name: make[name]() for name in sampler.fields})


def check_batch_memory(config: ConfigDict, agent: Agent) -> None:
    """Raise a UserError if the states and actions of a batch exceed the memory."""
    numbers = agent.context_len * (agent.observation_size + agent.action_size)
    size = 4 * config.num_seeds * config.batch_size * numbers / jax.process_count()
    if size > machine_memory():
        raise UserError(
            f"config.batch_size={config.batch_size}: a batch of {size / 1e9:.3g} GB "
            f"exceeds the memory of {machine_memory() / 1e9:.3g} GB; reduce it"
        )


def make_batches(
    samplers: Sequence[Sampler], sharding: RunSharding, share: float
) -> Batches:
    """Return the batches of a run, one sampler per seed, on the device where data fits.

    Data that takes more than `share` of a device's memory stays on the host, and so
    does data that is mapped from the disk.
    """
    arrays = samplers[0].dataset[:6]
    stats = jax.local_devices()[0].memory_stats() or {}  # none on the CPU
    available = stats.get("bytes_limit", machine_memory())
    mapped = any(isinstance(array, np.memmap) for array in arrays)
    large = sum(array.nbytes for array in arrays) > share * available
    # The same in all processes: they compile one program.
    if int(distributed.maximum(mapped or large)):
        return HostBatches(samplers, sharding)
    return DeviceBatches(samplers, sharding)


def prefetch(
    make: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Generator[Result, None, None]:
    """Yield `make` of each item in order, computed ahead by background threads.

    Args:
      make: called in any thread; what it raises is raised here.
      items: such as the steps to make batches for.
      num_workers: threads, which are at most twice as many items ahead. With 0, `make`
        is called in the caller's thread when its result is needed.
    """
    if num_workers == 0:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="prefetch")
    ahead: deque[Future[Result]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(make, item))
            if len(ahead) > 2 * num_workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:  # also when the consumer stops early, or `make` raises
        pool.shutdown(cancel_futures=True)
