"""What acting keeps of past tokens, so that a timestep does not compute them again.

A **window** keeps of its tokens what does not depend on the others. Deeper layers
change as the window moves, and are computed again. A **ring** keeps what each block
needs of the last tokens, and computes only the new ones. That is the same where no
action depends on tokens that have left the window, see `DecisionTransformer.has_ring`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.networks.transformer import Past, Transformer
from dt_jax.types import Array


class Window(NamedTuple):
    """The tokens of the last T timesteps of N episodes."""

    # Of each token the normalised embedding, and for attention the first block's
    # projections: [N, T, K, D] each, timestep t in slot t mod T.
    embedded: tuple[Array, ...]


class Ring(NamedTuple):
    """What each block needs of the last M tokens of N episodes."""

    blocks: Past  # inputs, or keys and values, [N, M, D] each, the newest last


class NewTokens(NamedTuple):
    """The tokens of a timestep of N episodes, under C returns-to-go."""

    action: list[Array]  # [N, 1, D], the previous one; none where it is no token
    returns: Array  # [N, C, D], the actual one first
    state: Array  # [N, 1, D]
    timesteps: Array  # [N] int32; 0: a new episode


def empty_window(
    shape: tuple[int, int, int, int], mixer: str, dtype: jnp.dtype
) -> Window:
    """Return the empty window of a shape, [N, T, K, D]."""
    parts = 1 if mixer == "conv" else 4
    return Window(tuple(jnp.zeros(shape, dtype) for _ in range(parts)))


def empty_ring(
    shape: tuple[int, int, int], mixer: str, num_layers: int, dtype: jnp.dtype
) -> Ring:
    """Return the empty ring of a shape, [N, M, D]."""
    parts = 1 if mixer == "conv" else 2
    return Ring(
        tuple(
            tuple(jnp.zeros(shape, dtype) for _ in range(parts))
            for _ in range(num_layers)
        )
    )


def extend_ring(
    transformer: Transformer, ring: Ring, new: NewTokens, band: int | None
) -> tuple[Ring, Array]:
    """Return the ring after a timestep, and its features under each return, [N, C, D].

    Args:
      transformer: the blocks.
      ring: of the timestep before.
      new: the tokens of the timestep.
      band: the timesteps to which a token attends; None for a convolution.
    """
    n, c, d = new.returns.shape
    actions = len(new.action)
    states = jnp.broadcast_to(new.state, (n, c, d))
    tokens = jnp.concatenate([*new.action, new.returns, states], axis=1)
    if band is None:  # a convolution sees zeros before an episode's first token
        first = (new.timesteps == 0)[:, None]
        ring = jax.tree.map(lambda x: jnp.where(first[..., None], 0, x), ring)
        mask = (np.arange(tokens.shape[1]) >= actions)[None] | ~first
    else:
        mask = _visible_in_ring(c, actions, band, new.timesteps)
    features, extended = transformer.extend(
        tokens, ring.blocks, mask, select=lambda x: x[:, actions + c :]
    )
    kept = np.array([*range(actions), actions, actions + c])  # the actual return's

    def move(past: Array, extended: Array) -> Array:
        tokens = extended[:, kept] if c > 1 else extended
        return jnp.concatenate([past, tokens], axis=1)[:, len(kept) :]

    return jax.tree.map(move, ring, Ring(extended)), features


def _visible_in_ring(c: int, actions: int, band: int, timesteps: Array) -> Array:
    """Return which of the M kept and J new tokens each new one sees, [N, J, M + J]."""
    # How many timesteps ago tokens were; an action token is of the timestep before.
    age_of_kind = np.array([1, 0, 0] if actions else [0, 0])
    kept = (np.arange(band, 0, -1)[:, None] + age_of_kind).ravel()
    new = np.repeat(age_of_kind, [*[1] * actions, c, c])
    ages = np.concatenate([kept, new])
    # Of the new tokens, a return sees the action and itself, and its state the return.
    branch = np.concatenate([[-1] * actions, np.tile(np.arange(c), 2)])
    own = ((branch == -1) | (branch == branch[:, None])) & np.tri(len(new), dtype=bool)
    visible = np.concatenate([np.ones((len(new), len(kept)), bool), own], axis=1)
    visible &= ages - new[:, None] < band
    exists = ages.astype(np.int32)[None] <= timesteps[:, None]
    return jnp.asarray(visible)[None] & exists[:, None]


def extend_window(
    transformer: Transformer, window: Window, new: NewTokens
) -> tuple[Window, Array]:
    """Return the window after a timestep, and its features under each return [N, C, D].

    Args:
      transformer: the blocks.
      window: of the timestep before.
      new: the tokens of the timestep.
    """
    tokens = jnp.concatenate([*new.action, new.returns[:, :1], new.state], axis=1)
    embedded = transformer.embed(tokens, deterministic=True)
    rows, slots = jnp.arange(len(tokens)), new.timesteps % window.embedded[0].shape[1]
    window = jax.tree.map(
        lambda kept, part: kept.at[rows, slots].set(part), window, Window(embedded)
    )
    if transformer.convolution:
        features = _convolve(transformer, window, new.returns, new.timesteps)
    else:
        features = _attend(transformer, window, new.returns[:, 1:], new.timesteps)
    return window, features


def _attend(
    transformer: Transformer, window: Window, candidates: Array, timesteps: Array
) -> Array:
    """Return the newest state's features under C returns, [N, C, D].

    The first is the return in the cache. Each of the others follows from a return
    and a state token of its own, which are appended to the window: they see all of
    it but its newest return and state, and nothing of each other. So the window
    itself is computed once.

    Args:
      transformer: the blocks.
      window: with the newest timestep.
      candidates: [N, C - 1, D], embeddings of the other returns.
      timesteps: [N] int32, the newest.
    """
    n, t, kinds = window.embedded[0].shape[:3]
    c = candidates.shape[1]
    visible, newest = _visible_in_window(t, kinds, timesteps)
    tokens = tuple(part.reshape(n, kinds * t, -1) for part in window.embedded)

    def take_newest(x: Array) -> Array:
        return jnp.take_along_axis(x, newest[..., None], axis=1)

    if c == 0:
        return transformer.forward(
            tokens, visible, select=take_newest, deterministic=True
        )

    def append(tokens: Array, returns: Array) -> Array:
        """Append the return tokens and as many copies of the state token."""
        state = jnp.repeat(take_newest(tokens), c, axis=1)
        return jnp.concatenate([tokens, returns, state], axis=1)

    embedded = transformer.embed(candidates, deterministic=True)
    # What the newest state sees but the prompt and itself, [N, 1, K T].
    token = jnp.arange(kinds * t, dtype=newest.dtype)[None]
    history = take_newest(visible)
    history &= (token < newest - 1)[:, None] | (token > newest)[:, None]
    own = jnp.broadcast_to(jnp.eye(c, dtype=bool)[None], (n, c, c))
    nothing = jnp.zeros_like(own)
    past = jnp.broadcast_to(history, (n, 2 * c, kinds * t))
    returns = jnp.concatenate([own, nothing], axis=2)
    states = jnp.concatenate([own, own], axis=2)
    appended = jnp.concatenate([returns, states], axis=1)  # [N, 2C, 2C]
    blind = jnp.zeros((n, kinds * t, 2 * c), bool)
    visible = jnp.concatenate(
        [
            jnp.concatenate([visible, blind], axis=2),
            jnp.concatenate([past, appended], axis=2),
        ],
        axis=1,
    )
    return transformer.forward(
        tuple(map(append, tokens, embedded)),
        visible,
        select=lambda x: jnp.concatenate(
            [take_newest(x), x[:, kinds * t + c :]], axis=1
        ),
        deterministic=True,
    )


def _visible_in_window(t: int, kinds: int, timesteps: Array) -> tuple[Array, Array]:
    """Return which tokens of a window of T timesteps see which, [N, KT, KT].

    And the index of the newest state, [N, 1].
    """
    now = timesteps[:, None]
    # The newest timestep in each slot; negative while the slot is empty.
    of_slot = now - (now - jnp.arange(t, dtype=now.dtype)[None]) % t  # [N, T]
    # a_t-1, R_t and s_t share slot t: their positions are 3t, 3t + 1 and 3t + 2.
    token = jnp.arange(kinds, dtype=now.dtype)[None, None]
    position = kinds * of_slot[..., None] + token
    position = position.reshape(len(timesteps), kinds * t)
    # The window starts with a return-to-go, without the action before it.
    first = kinds * jnp.maximum(now - t + 1, 0) + (kinds - 2)
    causal = position[:, None] <= position[..., None]
    visible = (position >= first)[:, None] & causal
    return visible, kinds * (now % t) + kinds - 1


def _convolve(
    transformer: Transformer, window: Window, returns: Array, timesteps: Array
) -> Array:
    """Return the newest state's features under C returns, [N, C, D].

    The window is laid out as in training: its first timestep first.

    Args:
      transformer: the blocks.
      window: with the newest timestep.
      returns: [N, C, D], embeddings of the newest.
      timesteps: [N] int32, the newest.
    """
    (tokens,) = window.embedded
    n, t, kinds, d = tokens.shape
    c = returns.shape[1]
    first = jnp.maximum(timesteps - t + 1, 0)
    slots = (first[:, None] + jnp.arange(t, dtype=first.dtype)[None]) % t
    tokens = jnp.take_along_axis(tokens, slots[..., None, None], axis=1)
    tokens = tokens.reshape(n, kinds * t, d)[:, kinds - 2 :]  # from a return on
    newest = jnp.repeat(kinds * (timesteps - first), c)[:, None]  # return
    (embedded,) = transformer.embed(returns, deterministic=True)
    tokens = jnp.repeat(tokens, c, axis=0)
    embedded = embedded.reshape(n * c, d)
    tokens = jnp.asarray(tokens).at[jnp.arange(n * c), newest[:, 0]].set(embedded)
    features = transformer.forward(
        (tokens,),
        visible=None,
        select=lambda x: jnp.take_along_axis(x, newest[..., None] + 1, axis=1),
        deterministic=True,
    )
    return features.reshape(n, c, d)
