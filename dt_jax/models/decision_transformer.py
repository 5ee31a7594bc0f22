"""The Decision Transformer's network: returns, states and actions in, actions out.

Chen et al., 2021 (https://arxiv.org/abs/2106.01345), in CORL's variant: pre-LN blocks,
an action head alone, a tanh on it.
"""

import flax.linen as nn
import jax.numpy as jnp

from dt_jax.models.transformer import Transformer, dense
from dt_jax.types import Array


class DecisionTransformer(nn.Module):
    """Predict the action of each timestep from what came before it.

    Attributes:
      action_size: A.
      seq_len: T, the most timesteps that the model is shown.
      episode_len: the longest episode, in environment steps.
      max_action: actions lie in [-max_action, max_action].
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

    @nn.compact
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
        d = self.embedding_dim
        # Windows that start near an episode's end count on through their padding:
        # hence seq_len rows more than an episode has steps.
        time_embedding = nn.Embed(
            self.episode_len + self.seq_len,
            d,
            embedding_init=nn.initializers.normal(0.02),
            name="timestep_emb",
        )(timesteps)
        # One positional embedding is shared by the three tokens of a timestep.
        tokens = jnp.stack(
            [
                dense(d, "return_emb")(returns_to_go[..., None]) + time_embedding,
                dense(d, "state_emb")(states) + time_embedding,
                dense(d, "action_emb")(actions) + time_embedding,
            ],
            axis=2,
        ).reshape(b, 3 * t, d)  # [B, T, 3, D] -> [B, L, D]: R_0, s_0, a_0, R_1, ...
        features = Transformer(
            self.num_layers,
            self.num_heads,
            self.attention_dropout,
            self.residual_dropout,
            self.embedding_dropout,
            name="transformer",
        )(tokens, deterministic)
        at_states = features[:, 1::3]  # [B, T, D]
        return jnp.tanh(dense(self.action_size, "action_head")(at_states)) * (
            self.max_action
        )
