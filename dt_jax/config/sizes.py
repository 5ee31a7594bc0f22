"""Whether a configuration asks for more memory than there is, before any is taken."""

import jax
from ml_collections import ConfigDict

from dt_jax.data.arrays import machine_memory
from dt_jax.utils.errors import UserError

_FLOAT = 4  # bytes


def check_sizes(config: ConfigDict, *, trains: bool) -> None:
    """Refuse a network, a batch or episodes that no memory here can hold.

    Each is a lower bound of what XLA takes on a CPU, so that nothing is refused which
    would run: a slip by some zeros is meant. What the data decides, and the sizes of
    the environment, are left out.

    Args:
      config: validated; JAX's back end has started.
      trains: whether updates are made, or only episodes played.

    Raises:
      UserError: one of them is larger than the machine's memory and the device's.
    """
    there = machine_memory()
    for device in jax.local_devices():
        there += (device.memory_stats() or {}).get("bytes_limit", 0)
    for what, keys, numbers in _needed(config, trains):
        size = _FLOAT * numbers
        if size > there:
            settings = ", ".join(f"{key}={config[key]}" for key in keys)
            raise UserError(
                f"{what} of {settings} takes at least {size / 1e9:.3g} GB of memory, "
                f"and there are {there / 1e9:.3g}: give smaller numbers"
            )


def _needed(config: ConfigDict, trains: bool) -> list[tuple[str, tuple[str, ...], int]]:
    """Return what is large, which keys make it so, and how many numbers it has."""
    width, layers = config.embedding_dim, config.num_layers
    tokens = 3 * config.seq_len
    attended = config.num_heads * tokens  # attention weights of a token, in a layer
    network = 12 * layers * width**2
    network += (config.seq_len + (config.episode_len or 1)) * width
    seeds = config.num_seeds
    shape = "embedding_dim", "num_layers", "seq_len", "episode_len", "num_seeds"
    # The parameters; in training their gradients and Adam's two moments as well.
    needed: list[tuple[str, tuple[str, ...], int]]
    needed = [("a network", shape, (4 if trains else 1) * seeds * network)]
    if trains:  # what the backward pass needs of each token, in each layer
        numbers = config.batch_size * tokens * layers * (5 * width + attended)
        keys = "batch_size", *shape[:3], "num_seeds"
        needed.append(("a batch", keys, seeds * numbers))
    # One layer after the other; as wide as q, k, v and what goes in and comes out.
    episodes = seeds * config.eval_episodes * len(config.target_returns or (0,))
    numbers = episodes * tokens * max(5 * width, attended)
    played = "eval_episodes", "target_returns", "seq_len", "embedding_dim", "num_seeds"
    needed.append(("an evaluation", played, numbers))
    return needed
