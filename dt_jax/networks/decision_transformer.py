"""The Decision Transformer's network: returns, states and actions in, actions out.

Chen et al., 2021 (https://arxiv.org/abs/2106.01345), in CORL's variant: pre-LN blocks,
an action head with a tanh, and on request a head for the next state. Tokens can also
be mixed by the Decision ConvFormer's convolution, or by attention to few timesteps.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.networks.acting import (
    NewTokens,
    Ring,
    Window,
    empty_ring,
    empty_window,
    extend_ring,
    extend_window,
)
from dt_jax.networks.layers import Linear, at_least_float32
from dt_jax.networks.transformer import Select, Transformer
from dt_jax.types import Array


def _uniform(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -1, 1)


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
      mixer: "attention" or "conv", the Decision ConvFormer's convolution.
      conv_width: tokens that the convolution covers.
      attention_band: W, the timesteps that attention covers; None: all.
      action_tokens: whether the previous actions are tokens.
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
    mixer: str = "attention"
    conv_width: int = 6
    attention_band: int | None = None
    action_tokens: bool = True

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
        self.state_emb = Linear(d)
        if self.action_tokens:
            self.action_emb = Linear(d)
        self.transformer = Transformer(
            d,
            self.num_layers,
            self.num_heads,
            self.attention_dropout,
            self.residual_dropout,
            self.embedding_dropout,
            self.activation,
            (self.conv_width, self.kinds) if self.mixer == "conv" else None,
        )
        self.action_head = Linear(self.action_size)
        if self.state_size is not None:
            self.state_head = Linear(self.state_size)

    @property
    def kinds(self) -> int:
        """K, the tokens of a timestep: return-to-go, state and, mostly, action."""
        return 3 if self.action_tokens else 2

    @property
    def receptive_field(self) -> int | None:
        """The tokens on which an action depends; None: all of the window."""
        if self.mixer == "conv":
            return self.num_layers * (self.conv_width - 1) + 1
        if self.attention_band is None:
            return None
        return self._tokens(self.num_layers * (self.attention_band - 1) + 1)

    @property
    def has_ring(self) -> bool:
        """Whether acting computes only new tokens, from what it keeps in a ring.

        It does where the receptive field is within the window. Then no action depends
        on tokens that the moving window cuts off.
        """
        field = self.receptive_field
        return field is not None and field <= self._tokens(self.seq_len)

    def _tokens(self, timesteps: int) -> int:
        """Return the tokens of a window, from a return-to-go to a state."""
        return self.kinds * timesteps - (self.kinds - 2)

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
            select=lambda x: x[:, 1 :: self.kinds],  # the states
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
        # The tokens of a timestep share one positional embedding.
        time = self._time(timesteps)
        embedded = [
            self.return_emb(returns_to_go[..., None]) + time,
            self.state_emb(states) + time,
        ]
        if self.action_tokens:
            embedded.append(self.action_emb(actions) + time)
        # [B, T, K, D] -> [B, L, D]: R_0, s_0, a_0, R_1, ..., s_T-1
        tokens = jnp.stack(embedded, axis=2).reshape(b, self.kinds * t, -1)
        if self.action_tokens:
            tokens = tokens[:, :-1]
        return self.transformer.forward(
            self.transformer.embed(tokens, deterministic),
            visible=self._visible(tokens.shape[1]),
            select=select,
            deterministic=deterministic,
        )

    def _visible(self, length: int) -> Array:
        """Return which tokens of a window see which, [1, L, L]."""
        token = np.arange(length)
        visible = token <= token[:, None]
        if self.attention_band is not None:
            timestep = token // self.kinds
            visible &= timestep[:, None] - timestep < self.attention_band
        return jnp.asarray(visible)[None]

    def start(self, n: int, dtype: jnp.dtype) -> Window | Ring:
        """Return what acting keeps of N episodes, before their first timestep."""
        d = self.embedding_dim
        if not self.has_ring:
            shape = n, self.seq_len, self.kinds, d
            return empty_window(shape, self.mixer, dtype)
        tokens = self.conv_width - 1
        if self.attention_band is not None:
            tokens = self.kinds * self.attention_band
        return empty_ring((n, tokens, d), self.mixer, self.num_layers, dtype)

    def step(
        self,
        cache: Window | Ring,
        states: Array,
        last_actions: Array,
        returns_to_go: Array,
        timesteps: Array,
    ) -> tuple[Window | Ring, Array]:
        """Return the cache after a timestep of N episodes, and its actions or logits.

        Args:
          cache: as `start` or `step` returned it.
          states: [N, S], normalised.
          last_actions: [N, A], of the previous timestep; any value in the first.
          returns_to_go: [N, C], scaled: the actual one, then others that are tried and
            leave no trace.
          timesteps: [N] int32, from 0: a new episode.

        Returns:
          The cache, and the actions under each return, [N, C, A].
        """
        time = self._time(timesteps[:, None])
        before = self._time(jnp.maximum(timesteps - 1, 0)[:, None])
        new = NewTokens(
            action=[self.action_emb(last_actions[:, None]) + before]
            if self.action_tokens
            else [],
            returns=self.return_emb(returns_to_go[..., None]) + time,
            state=self.state_emb(states[:, None]) + time,
            timesteps=timesteps,
        )
        blocks, band = self.transformer, self.attention_band
        if isinstance(cache, Ring):
            cache, features = extend_ring(blocks, cache, new, band)
        else:
            cache, features = extend_window(blocks, cache, new)
        return cache, self._action(features)

    def _time(self, timesteps: Array) -> Array | float:
        """Return what is added to the tokens of timesteps [...], [..., D] or 0."""
        return self.timestep_emb(timesteps) if self.timestep_embedding else 0.0

    def _action(self, features: Array) -> Array:
        """Map [..., D] to actions or logits [..., A], in float32 at least."""
        outputs = at_least_float32(self.action_head(features))
        return outputs if self.discrete else jnp.tanh(outputs) * self.max_action
