"""The Decision Transformer as an agent: its loss, its update and its way of acting."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dt_jax.agents.base import TrainState
from dt_jax.networks.decision_transformer import DecisionTransformer, Memory
from dt_jax.types import Array, Batch, Params
from dt_jax.utils.errors import UserError

Metrics = dict[str, Array]

# What brings data into the network's units, as an agent, its run's record and
# everything between them call it.
SCALING = ("state_mean", "state_std", "action_center", "action_scale")


class Context(NamedTuple):
    """What N running episodes remember."""

    memory: Memory  # [N, T, 3, D] of their last T timesteps, t in slot t mod T
    actions: Array  # [N, A] the last ones, in the network's units
    length: Array  # [N] int32, timesteps seen since the episode's start
    next_return: Array  # [N] scaled return-to-go of the newest timestep
    target: Array  # [N] scaled return-to-go that an episode starts with


@dataclass(frozen=True)
class DecisionTransformerAgent:
    """The network together with the scaling of what goes in and comes out.

    Attributes:
      model: the network.
      state_mean: [S] of the training data, float32.
      state_std: [S], positive.
      reward_scale: factor from environment rewards to the network's returns-to-go.
      action_center: [A], the environment's action for the network's 0.
      action_scale: [A], positive; the network's 1 in the environment's units.
      compute_dtype: what the training loss is computed in, the parameters' type where
        None; normalisation, softmax, the loss itself and all acting keep to that.
    """

    model: DecisionTransformer
    state_mean: np.ndarray
    state_std: np.ndarray
    reward_scale: float
    action_center: np.ndarray | float = 0.0
    action_scale: np.ndarray | float = 1.0
    compute_dtype: str | None = None

    @classmethod
    def from_config(
        cls,
        config: ConfigDict,
        state_mean: np.ndarray,
        state_std: np.ndarray,
        action_center: np.ndarray,
        action_scale: np.ndarray,
    ) -> "DecisionTransformerAgent":
        """Return the agent of a configuration, a dataset's statistics and its units."""
        model = DecisionTransformer(
            action_size=len(action_center),
            seq_len=config.seq_len,
            episode_len=config.episode_len,
            embedding_dim=config.embedding_dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            attention_dropout=config.attention_dropout,
            residual_dropout=config.residual_dropout,
            embedding_dropout=config.embedding_dropout,
            max_action=config.max_action,
            activation=config.activation,
        )
        return cls(
            model,
            state_mean,
            state_std,
            config.reward_scale,
            action_center,
            action_scale,
            None if config.compute_dtype == "float32" else config.compute_dtype,
        )

    def check_sizes(self, observation_size: int, action_size: int) -> None:
        """Raise a UserError unless S and A are an environment's."""
        sizes = len(self.state_mean), self.model.action_size
        if sizes != (observation_size, action_size):
            raise UserError(
                f"trained on observations of {sizes[0]} and actions of {sizes[1]} "
                f"numbers; the environment has {observation_size} and {action_size}"
            )

    def init_params(self, key: jax.Array) -> Params:
        """Return freshly drawn parameters."""
        t = self.model.seq_len
        return self.model.init(
            key,
            states=jnp.zeros((1, t, len(self.state_mean))),
            actions=jnp.zeros((1, t, self.model.action_size)),
            returns_to_go=jnp.zeros((1, t)),
            timesteps=jnp.zeros((1, t), jnp.int32),
        )["params"]

    def loss(self, params: Params, batch: Batch, dropout_key: jax.Array) -> Array:
        """Return Σ(mask·err²) / (B·T·A): as in CORL, padding counts in the mean."""
        return jnp.mean(self.squared_error(params, batch, dropout_key))

    def squared_error(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None = None
    ) -> Array:
        """Return that of each predicted action, [B, T, A]; 0 in the padding."""
        inputs = batch.states, batch.actions, batch.returns_to_go
        if self.compute_dtype:
            params, inputs = jax.tree.map(
                lambda x: x.astype(self.compute_dtype), (params, inputs)
            )
        predicted = self._apply(
            params,
            *inputs,
            batch.timesteps,
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
        )
        return jnp.square(predicted - batch.actions) * batch.mask[..., None]

    def start(self, target_returns: Array) -> Context:
        """Return the empty context of N episodes that are to reach their targets.

        Args:
          target_returns: [N], in the environment's own units.
        """
        n, dtype = target_returns.shape[0], target_returns.dtype
        target = target_returns * jnp.asarray(self.reward_scale, dtype)
        slots = n, self.model.seq_len, 3, self.model.embedding_dim
        return Context(
            memory=Memory(*(jnp.zeros(slots, dtype) for _ in Memory._fields)),
            actions=jnp.zeros((n, self.model.action_size), dtype),
            length=jnp.zeros(n, jnp.int32),
            next_return=target,
            target=target,
        )

    def act(
        self,
        params: Params,
        context: Context,
        observations: Array,
        rewards: Array,
        done: Array,
    ) -> tuple[Context, Array]:
        """Take in what the environments answered, and choose the next actions.

        Args:
          params: the network's parameters.
          context: of the N episodes, before this timestep.
          observations: [N, S], raw.
          rewards: [N], for the actions chosen last; zeros at the first timestep.
          done: [N] bool, whether the last action ended the episode, so that
            `observations` begin a new one there.

        Returns:
          The context after this timestep, and the actions [N, A] in the environment's
          units.
        """
        dtype = context.actions.dtype
        states = observations.astype(dtype) - self.state_mean[None].astype(dtype)
        states /= self.state_std[None].astype(dtype)
        earned = rewards.astype(dtype) * jnp.asarray(self.reward_scale, dtype)
        timesteps = jnp.where(done, 0, context.length)
        returns_to_go = jnp.where(
            timesteps == 0, context.target, context.next_return - earned
        )
        new = self._apply(
            params, states, context.actions, returns_to_go, timesteps, method="remember"
        )
        rows, slots = jnp.arange(len(timesteps)), timesteps % self.model.seq_len
        memory = jax.tree.map(
            lambda kept, part: kept.at[rows, slots].set(part), context.memory, new
        )
        actions = self._apply(params, memory, timesteps, method="decide")
        return context._replace(
            memory=memory,
            actions=actions,
            length=timesteps + 1,
            next_return=returns_to_go,
        ), self._in_environment_units(actions)

    def _in_environment_units(self, actions: Array) -> Array:
        """Map the network's actions [N, A]; by 0 and 1 not a bit is changed."""
        center, scale = (
            jnp.broadcast_to(jnp.asarray(x, actions.dtype), actions.shape)
            for x in (self.action_center, self.action_scale)
        )
        return center + scale * actions

    def _apply(self, params: Params, *inputs: Any, **kwargs: Any) -> Any:
        return self.model.apply({"params": params}, *inputs, **kwargs)


def make_update(
    agent: DecisionTransformerAgent,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return the pure training step; a leading seed axis can be vmapped over it."""

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        dropout_key = jax.random.fold_in(state.key, state.step)
        loss, grads = jax.value_and_grad(agent.loss)(state.params, batch, dropout_key)
        # optax mixes integers and floats; the rest of the program runs without that.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "train_loss": loss,
            "learning_rate": jnp.asarray(schedule(state.step), loss.dtype),
            "grad_norm": optax.tree.norm(grads),
        }
        params = optax.apply_updates(state.params, updates)
        return state.replace(
            step=state.step + 1, params=params, opt_state=opt_state
        ), metrics

    return update


def init_train_state(
    agent: DecisionTransformerAgent, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """Return the state before the first update."""
    init_key, dropout_key = jax.random.split(jax.random.key(seed))
    params = agent.init_params(init_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        key=dropout_key,
    )
