"""The Decision Transformer's network: returns, states and actions in, actions out.

Chen et al., 2021 (https://arxiv.org/abs/2106.01345), in CORL's variant: pre-LN blocks,
an action head with a tanh, and on request a head for the next state.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dt_jax.networks.layers import Linear, at_least_float32
from dt_jax.networks.transformer import Select, Transformer
from dt_jax.types import Array


def _uniform(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -1, 1)


class TokenCache(NamedTuple):
    """What acting keeps of past tokens, [..., 3, D] per timestep.

    The three tokens are the previous action, the return-to-go and the state: what is
    known when an action is chosen. Each entry depends only on its own token; deeper
    layers change as the window moves, so that they cannot be cached.
    """

    x: Array  # normalised embeddings
    queries: Array  # the first block's
    keys: Array
    values: Array


class DecisionTransformer(nn.Module):
    """Predict the action of each timestep from what came before it.

    Attributes:
      action_size: A.
      seq_len: T, the longest context in timesteps.
      episode_len: the longest episode, in environment steps.
      max_action: actions lie in [-max_action, max_action].
      activation: a key of `layers.ACTIVATIONS`.
      discrete: whether actions are one-hot choices. What is predicted is then the
        logits of their probabilities, of any size.
      timestep_embedding: whether tokens know their timestep.
      state_size: S, for a head that predicts the next state; None: no such head.
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
    discrete: bool = False
    timestep_embedding: bool = True
    state_size: int | None = None

    def setup(self) -> None:
        """Define the submodules."""
        d = self.embedding_dim
        # Timesteps continue through the padding of windows near an episode's end:
        # hence seq_len more rows than an episode has steps.
        if self.timestep_embedding:
            self.timestep_emb = nn.Embed(
                self.episode_len + self.seq_len,
                d,
                embedding_init=nn.initializers.normal(0.02),
            )
        # With a bias of 0 and no time, the layer norm would leave only the return's
        # sign. This is torch's initialisation, and Online DT's.
        init = () if self.timestep_embedding else (_uniform, _uniform)
        self.return_emb = Linear(d, *init)
        self.state_emb, self.action_emb = Linear(d), Linear(d)
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
        if self.state_size is not None:
            self.state_head = Linear(self.state_size)

    def __call__(
        self,
        states: Array,
        actions: Array,
        returns_to_go: Array,
        timesteps: Array,
        deterministic: bool = True,
    ) -> Array:
        """Return the action or logits after each (return-to-go, state), [B, T, A].

        Windows shorter than T are padded on the right. No padding mask is needed:
        under the causal mask no later token reaches a valid output.

        Args:
          states: [B, T, S], normalised.
          actions: [B, T, A]; the last one of a window is not used.
          returns_to_go: [B, T], scaled.
          timesteps: [B, T] int32, counted from the episode's start.
          deterministic: whether dropout is off; else it uses the "dropout" stream.
        """
        features = self._features(
            states,
            actions,
            returns_to_go,
            timesteps,
            select=lambda x: x[:, 1::3],  # the states
            deterministic=deterministic,
        )
        return self._action(features)

    def predict_with_states(
        self,
        states: Array,
        actions: Array,
        returns_to_go: Array,
        timesteps: Array,
        deterministic: bool = True,
    ) -> tuple[Array, Array]:
        """Return the actions [B, T, A], and the states that follow them [B, T - 1, S].

        A state is predicted from the action before it. The arguments are those of
        `__call__`.
        """
        t = timesteps.shape[1]
        features = self._features(
            states,
            actions,
            returns_to_go,
            timesteps,
            select=lambda x: jnp.concatenate([x[:, 1::3], x[:, 2::3]], axis=1),
            deterministic=deterministic,
        )
        next_states = at_least_float32(self.state_head(features[:, t:]))
        return self._action(features[:, :t]), next_states

    def _features(
        self,
        states: Array,
        actions: Array,
        returns_to_go: Array,
        timesteps: Array,
        select: Select,
        deterministic: bool,
    ) -> Array:
        """Return the features of the selected tokens of windows, [B, R, D]."""
        b, t = timesteps.shape
        # The three tokens of a timestep share one positional embedding.
        time = self._time(timesteps)
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
        return self.transformer.forward(
            *self.transformer.embed(tokens, deterministic),
            visible=causal,
            select=select,
            deterministic=deterministic,
        )

    def encode_step(
        self, states: Array, last_actions: Array, returns_to_go: Array, timesteps: Array
    ) -> TokenCache:
        """Return one timestep's entries of the cache of N episodes, [N, 3, D] each.

        Args:
          states: [N, S], normalised.
          last_actions: [N, A], of the previous timestep; any value in the first.
          returns_to_go: [N], scaled.
          timesteps: [N] int32, from 0.
        """
        time = self._time(timesteps)
        time_before = self._time(jnp.maximum(timesteps - 1, 0))
        tokens = jnp.stack(
            [
                self.action_emb(last_actions) + time_before,
                self.return_emb(returns_to_go[:, None]) + time,
                self.state_emb(states) + time,
            ],
            axis=1,
        )
        x, projections = self.transformer.embed(tokens, deterministic=True)
        return TokenCache(x, *projections)

    def predict(self, cache: TokenCache, timesteps: Array) -> Array:
        """Return the action or logits of each episode, [N, A], from T timesteps.

        Args:
          cache: [N, T, 3, D], timestep t in slot t mod T.
          timesteps: [N] int32, the newest.
        """
        n, t = cache.x.shape[:2]
        visible, newest = self._window(t, timesteps)

        def select(x: Array) -> Array:
            return jnp.take_along_axis(x, newest[..., None], axis=1)

        x, q, k, v = (part.reshape(n, 3 * t, -1) for part in cache)
        features = self.transformer.forward(
            x, (q, k, v), visible=visible, select=select, deterministic=True
        )
        return self._action(features)[:, 0]

    def _time(self, timesteps: Array) -> Array | float:
        """Return what is added to the tokens of timesteps [...], [..., D] or 0."""
        return self.timestep_emb(timesteps) if self.timestep_embedding else 0.0

    def predict_candidates(
        self, cache: TokenCache, timesteps: Array, returns_to_go: Array
    ) -> Array:
        """Return the actions of each episode under C + 1 newest returns, [N, C + 1, A].

        The first is that of `predict`, under the return in the cache. Each of the
        others follows from a return and a state token of its own, which are appended to
        the window: they see all of it but its newest return and state, and nothing of
        each other. So the window itself is computed once.

        Args:
          cache: [N, T, 3, D], timestep t in slot t mod T.
          timesteps: [N] int32, the newest.
          returns_to_go: [N, C], scaled, of the newest timestep.
        """
        n, t = cache.x.shape[:2]
        c = returns_to_go.shape[1]
        visible, newest = self._window(t, timesteps)
        time = self._time(timesteps[:, None])
        x, projections = self.transformer.embed(
            self.return_emb(returns_to_go[..., None]) + time, deterministic=True
        )

        def extend(window: Array, returns: Array) -> Array:
            """Append the return tokens and as many copies of the state token."""
            window = window.reshape(n, 3 * t, -1)
            state = jnp.take_along_axis(window, newest[..., None], axis=1)
            return jnp.concatenate([window, returns, jnp.repeat(state, c, 1)], axis=1)

        x, q, k, v = map(extend, cache, (x, *projections))
        # What the newest state sees but the prompt and itself, [N, 1, 3T].
        token = jnp.arange(3 * t, dtype=newest.dtype)[None]
        history = jnp.take_along_axis(visible, newest[..., None], axis=1)
        history &= (token < newest - 1)[:, None] | (token > newest)[:, None]
        own = jnp.broadcast_to(jnp.eye(c, dtype=bool)[None], (n, c, c))
        nothing = jnp.zeros_like(own)
        past = jnp.broadcast_to(history, (n, 2 * c, 3 * t))
        returns = jnp.concatenate([own, nothing], axis=2)
        states = jnp.concatenate([own, own], axis=2)
        appended = jnp.concatenate([returns, states], axis=1)  # [N, 2C, 2C]
        blind = jnp.zeros((n, 3 * t, 2 * c), bool)
        visible = jnp.concatenate(
            [
                jnp.concatenate([visible, blind], axis=2),
                jnp.concatenate([past, appended], axis=2),
            ],
            axis=1,
        )

        def select(x: Array) -> Array:
            prompt = jnp.take_along_axis(x, newest[..., None], axis=1)
            return jnp.concatenate([prompt, x[:, 3 * t + c :]], axis=1)

        features = self.transformer.forward(
            x, (q, k, v), visible=visible, select=select, deterministic=True
        )
        return self._action(features)

    def _window(self, t: int, timesteps: Array) -> tuple[Array, Array]:
        """Return which tokens of a cache of T timesteps see which, [N, 3T, 3T].

        And the index of the newest state, [N, 1].
        """
        now = timesteps[:, None]
        # The newest timestep in each slot; negative while the slot is empty.
        of_slot = now - (now - jnp.arange(t, dtype=now.dtype)[None]) % t  # [N, T]
        # a_t-1, R_t and s_t share slot t: their positions are 3t, 3t + 1 and 3t + 2.
        token = jnp.arange(3, dtype=now.dtype)[None, None]
        position = (3 * of_slot[..., None] + token).reshape(len(timesteps), 3 * t)
        # The window starts with a return-to-go, without the action before it.
        first = 3 * jnp.maximum(now - t + 1, 0) + 1
        causal = position[:, None] <= position[..., None]
        visible = (position >= first)[:, None] & causal
        return visible, 3 * (now % t) + 2

    def _action(self, features: Array) -> Array:
        """Map [..., D] to actions or logits [..., A], in float32 at least."""
        outputs = at_least_float32(self.action_head(features))
        return outputs if self.discrete else jnp.tanh(outputs) * self.max_action
