"""The Decision Transformer's network: returns, states and actions in, actions out.

Chen et al., 2021 (https://arxiv.org/abs/2106.01345), in CORL's variant: pre-LN blocks,
an action head alone, a tanh on it.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from dt_jax.networks.precision import at_least_float32
from dt_jax.networks.transformer import Linear, Transformer
from dt_jax.types import Array


class Memory(NamedTuple):
    """What the network keeps of the tokens it has seen, [..., 3, D] a timestep.

    The three are the action before, the return-to-go and the state: what is known when
    an action is chosen. Each part depends on its own token alone; all that is deeper
    changes when the window moves on.
    """

    x: Array  # normalised embeddings
    queries: Array  # the first block's
    keys: Array
    values: Array


class DecisionTransformer(nn.Module):
    """Predict the action of each timestep from what came before it.

    Attributes:
      action_size: A.
      seq_len: T, the most timesteps that the model is shown.
      episode_len: the longest episode, in environment steps.
      max_action: actions lie in [-max_action, max_action].
      activation: a key of `transformer.ACTIVATIONS`.
    """

    action_size: int
    seq_len: int
    episode_len: int
    embedding_dim: int
    num_layers: int
    num_heads: int
    attention_dropout: float
    residual_dropout: float
    embedding_dropout: float
    max_action: float
    activation: str = "gelu"

    def setup(self) -> None:
        """Name the parameters."""
        d = self.embedding_dim
        # Windows that start near an episode's end count on through their padding:
        # hence seq_len rows more than an episode has steps.
        self.timestep_emb = nn.Embed(
            self.episode_len + self.seq_len,
            d,
            embedding_init=nn.initializers.normal(0.02),
        )
        self.return_emb, self.state_emb, self.action_emb = (Linear(d) for _ in range(3))
        self.transformer = Transformer(
            d,
            self.num_layers,
            self.num_heads,
            self.attention_dropout,
            self.residual_dropout,
            self.embedding_dropout,
            self.activation,
        )
        self.action_head = Linear(self.action_size)

    def __call__(
        self,
        states: Array,
        actions: Array,
        returns_to_go: Array,
        timesteps: Array,
        deterministic: bool = True,
    ) -> Array:
        """Return the action after each (return-to-go, state), [B, T, A].

        Windows shorter than T are padded on the right. No padding mask is needed:
        under the causal mask nothing that comes later reaches a valid output.

        Args:
          states: [B, T, S], normalised.
          actions: [B, T, A]; the last one of a window is never read.
          returns_to_go: [B, T], scaled.
          timesteps: [B, T] int32, counted from the episode's start.
          deterministic: whether dropout is off; otherwise it draws from the
            "dropout" stream.
        """
        b, t = timesteps.shape
        # One positional embedding is shared by the three tokens of a timestep.
        time = self.timestep_emb(timesteps)
        tokens = jnp.stack(
            [
                self.return_emb(returns_to_go[..., None]) + time,
                self.state_emb(states) + time,
                self.action_emb(actions) + time,
            ],
            axis=2,
        )  # [B, T, 3, D] -> [B, L, D]: R_0, s_0, a_0, R_1, ..., s_T-1
        tokens = tokens.reshape(b, 3 * t, -1)[:, :-1]
        causal = jnp.tril(jnp.ones((3 * t - 1, 3 * t - 1), bool))[None]
        features = self.transformer.finish(
            *self.transformer.begin(tokens, deterministic),
            visible=causal,
            read=lambda x: x[:, 1::3],  # the states
            deterministic=deterministic,
        )
        return self._action(features)

    def remember(
        self, states: Array, last_actions: Array, returns_to_go: Array, timesteps: Array
    ) -> Memory:
        """Return what a timestep adds to the memory of N episodes: [N, 3, D] each.

        Args:
          states: [N, S], normalised.
          last_actions: [N, A], of the timestep before; anything in the first.
          returns_to_go: [N], scaled.
          timesteps: [N] int32, from 0.
        """
        time = self.timestep_emb(timesteps)
        time_before = self.timestep_emb(jnp.maximum(timesteps - 1, 0))
        tokens = jnp.stack(
            [
                self.action_emb(last_actions) + time_before,
                self.return_emb(returns_to_go[:, None]) + time,
                self.state_emb(states) + time,
            ],
            axis=1,
        )
        x, projections = self.transformer.begin(tokens, deterministic=True)
        return Memory(x, *projections)

    def decide(self, memory: Memory, timesteps: Array) -> Array:
        """Return the action of each episode, [N, A], as from its last T timesteps.

        Args:
          memory: [N, T, 3, D], where timestep t lies in slot t mod T.
          timesteps: [N] int32, the newest.
        """
        n, t = memory.x.shape[:2]
        now = timesteps[:, None]
        # The newest timestep that has each slot; negative before there is one.
        of_slot = now - (now - jnp.arange(t, dtype=now.dtype)[None]) % t  # [N, T]
        # a_t-1, R_t and s_t share slot t: their places in the sequence are 3t and on.
        token = jnp.arange(3, dtype=now.dtype)[None, None]
        place = (3 * of_slot[..., None] + token).reshape(n, 3 * t)
        # The window begins with a return-to-go: the action before it is out of it.
        first = 3 * jnp.maximum(now - t + 1, 0) + 1
        seen = (place >= first)[:, None] & (place[:, None] <= place[..., None])
        newest = 3 * (now % t) + 2  # [N, 1], the state's

        def read(x: Array) -> Array:
            return jnp.take_along_axis(x, newest[..., None], axis=1)

        x, q, k, v = (part.reshape(n, 3 * t, -1) for part in memory)
        features = self.transformer.finish(
            x, (q, k, v), visible=seen, read=read, deterministic=True
        )
        return self._action(features)[:, 0]

    def _action(self, features: Array) -> Array:
        """Map [..., D] to actions [..., A], in float32 at least."""
        return jnp.tanh(at_least_float32(self.action_head(features))) * self.max_action
