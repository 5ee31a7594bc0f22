"""Decision Transformer (Chen et al., 2021, https://arxiv.org/abs/2106.01345).

The network predicts each action of a window from the returns-to-go, states and actions
before it. Conditioned on a target return, it acts to achieve it. Loss, optimiser and
hyper-parameters are those of CORL's `algorithms/offline/dt.py`.
"""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dt_jax.agents.base import Agent, Metrics, TrainState
from dt_jax.agents.discrete import choose
from dt_jax.agents.losses import action_error, masked_mean
from dt_jax.agents.optim import (
    OPTIMIZER_KEYS,
    apply_gradients,
    initial_state,
    optimizer_from_config,
)
from dt_jax.data.normalizer import Normalizer
from dt_jax.networks.acting import Ring, Window
from dt_jax.networks.decision_transformer import DecisionTransformer
from dt_jax.types import Array, Batch, Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.keys import (
    NOT_NEGATIVE,
    POSITIVE_INTEGER,
    PROBABILITY,
    Check,
    Key,
    boolean,
    integer,
    numbers,
    one_of,
    or_none,
)


def _parse_band(text: str) -> int | str:
    return text if text == "fit" else int(text)


# fmt: off
_KEYS = (
    Key("embedding_dim", 128, POSITIVE_INTEGER,
        "Width of every token; a multiple of num_heads.", architecture=True, corl=True),
    Key("num_layers", 3, integer(1, 1000),
        "Transformer blocks.", architecture=True, corl=True),
    Key("num_heads", 1, POSITIVE_INTEGER,
        "Attention heads in each block.", architecture=True, corl=True),
    Key("activation", "gelu", one_of("gelu", "relu", "gelu_new"),
        'Activation of each block\'s perceptron: "gelu" is CORL\'s, "relu" and '
        '"gelu_new" (with tanh instead of erf) are those of Hugging Face\'s models.',
        architecture=True),
    Key("seq_len", 20, integer(1, 10_000_000),
        "Context length in steps; each has three tokens: return-to-go, state, action.",
        architecture=True, corl=True),
    Key("timestep_embedding", True, boolean(),
        "Add an embedding of the timestep to each token. Without it tokens have no "
        "position but that of the causal mask.", architecture=True),
    Key("mixer", "attention", one_of("attention", "conv"),
        'How tokens are mixed: "attention", or "conv", the convolution of the Decision '
        'ConvFormer, which trains and acts faster.', architecture=True),
    Key("conv_width", 6, integer(1, 1000),
        'Tokens that the convolution covers, for mixer="conv".', architecture=True),
    Key("attention_band", None,
        or_none(Check('a positive integer or "fit"',
                      lambda band: band == "fit" or POSITIVE_INTEGER.accepts(band),
                      _parse_band)),
        'Timesteps to which a token attends, the last of them its own: acting is '
        'faster; "fit": as many as its layers can use in seq_len; None: all.',
        architecture=True),
    Key("action_tokens", True, boolean(),
        "Give the network the previous actions.", architecture=True),
    Key("attention_dropout", 0.1, PROBABILITY,
        "Dropout on the attention weights.", corl=True),
    Key("residual_dropout", 0.1, PROBABILITY,
        "Dropout on what each block adds to its input.", corl=True),
    Key("embedding_dropout", 0.1, PROBABILITY,
        "Dropout on the embedded tokens.", corl=True),
    Key("reward_scale", 0.001, or_none(NOT_NEGATIVE),
        "Factor from returns to the network's inputs; None: the power of ten that "
        "brings the data's largest return to between 1 and 10. 0 sets every return "
        "token to zero: the control that learns without a target.",
        from_data=True, corl=True),
    Key("target_returns", (12000.0, 6000.0),
        or_none(numbers("finite float32 numbers, all different, such as 3600,1800",
                        lambda targets: len(set(targets)) == len(targets))),
        "Target returns of the evaluation, not scaled; None: the best and the mean of "
        "the data's returns, or of the labels of first steps.",
        resumable=True, from_data=True, corl=True),
    Key("sample_actions", False, boolean(),
        "Draw discrete actions from the network's distribution when acting, instead of "
        "taking the likeliest.", resumable=True),
    Key("compute_dtype", "float32", one_of("float32", "bfloat16"),
        '"bfloat16" computes the matrix products of updates in it; parameters, '
        'normalisation, softmax, loss and acting stay in float32.'),
)
# fmt: on


def _network(
    config: ConfigDict, action_size: int = 1, discrete: bool = False
) -> DecisionTransformer:
    """Return the network of a configuration."""
    band = config.attention_band
    return DecisionTransformer(
        action_size=action_size,
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
        discrete=discrete,
        timestep_embedding=config.timestep_embedding,
        mixer=config.mixer,
        conv_width=config.conv_width,
        attention_band=_widest_band(config) if band == "fit" else band,
        action_tokens=config.action_tokens,
    )


def _widest_band(config: ConfigDict) -> int:
    """Return the band with which the layers together see at most seq_len timesteps."""
    return (config.seq_len - 1) // config.num_layers + 1


class Context(NamedTuple):
    """What N running episodes remember."""

    cache: Window | Ring  # of their last tokens
    actions: Array  # [N, A] the previous ones, in the network's units
    length: Array  # [N] int32, timesteps since the episode's start
    next_return: Array  # [N] scaled return-to-go of the newest timestep
    target: Array  # [N] scaled return-to-go that an episode starts with
    keys: jax.Array | None  # [N] for what is drawn next, if anything is


@dataclass(frozen=True)
class DecisionTransformerAgent(Agent):
    """The network with its optimiser, and the units of what goes in and comes out."""

    KEYS: ClassVar[tuple[Key, ...]] = (*_KEYS, *OPTIMIZER_KEYS)
    batch_fields: ClassVar[tuple[str, ...]] = (
        "states",
        "actions",
        "returns_to_go",
        "timesteps",
        "mask",
    )
    conditioned: ClassVar[bool] = True

    model: DecisionTransformer
    normalizer: Normalizer
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    compute_dtype: str | None = None  # of the training loss; None: the parameters'
    sample_actions: bool = False

    @classmethod
    def from_config(cls, config: ConfigDict, normalizer: Normalizer) -> Self:
        """Return the agent of a configuration and a dataset's units.

        Raises:
          UserError: continuous actions are to be drawn.
        """
        if config.sample_actions and not normalizer.discrete:
            raise UserError(
                "config.sample_actions: only discrete actions are drawn, and those of "
                "the data are continuous: leave it out"
            )
        model = _network(config, normalizer.action_size, normalizer.discrete)
        return cls(
            model,
            normalizer,
            *optimizer_from_config(config),
            None if config.compute_dtype == "float32" else config.compute_dtype,
            config.sample_actions,
        )

    @classmethod
    def check_config(cls, config: ConfigDict) -> None:
        """Raise a UserError where keys contradict each other."""
        keys = {key.name: key for key in cls.KEYS}
        if config.embedding_dim % config.num_heads:
            expected = f"a multiple of num_heads={config.num_heads}"
            raise keys["embedding_dim"].error(config.embedding_dim, expected=expected)
        if config.eval_episodes and config.target_returns == ():
            expected = "at least one number, or eval_episodes=0"
            raise keys["target_returns"].error((), expected=expected)
        band, network = config.attention_band, _network(config)
        if band and config.mixer == "conv":
            raise keys["attention_band"].error(band, expected='None with mixer="conv"')
        if band and not network.has_ring:
            expected = (
                f"at most {_widest_band(config)}, so that {config.num_layers} layers "
                f"see no more than seq_len={config.seq_len} timesteps"
            )
            raise keys["attention_band"].error(band, expected=expected)
        if config.mixer == "conv" and not network.has_ring:
            seen, kinds = network.receptive_field, network.kinds
            assert seen is not None
            warnings.warn(
                f"mixer=conv with seq_len={config.seq_len}: an action depends on "
                f"{seen} tokens, more than the window has, so acting computes the "
                f"window again at each step; seq_len={-(-(seen + kinds - 2) // kinds)} "
                "would not need that",
                stacklevel=2,
            )

    @property
    def episode_len(self) -> int:  # type: ignore[override]
        """The longest episode, in environment steps."""
        return self.model.episode_len

    @property
    def context_len(self) -> int:  # type: ignore[override]
        """T."""
        return self.model.seq_len

    @property
    def validation_metric(self) -> str:  # type: ignore[override]
        """What `validation_loss` measures."""
        return "action_nll" if self.normalizer.discrete else "action_mse"

    def init(self, key: jax.Array) -> TrainState:
        """Return the state before the first update."""
        init_key, dropout_key = jax.random.split(key)
        params = self.init_params(init_key)
        return initial_state(self.optimizer, params, dropout_key)

    def init_params(self, key: jax.Array) -> Params:
        """Return freshly initialised parameters."""
        return self._init_params(key)

    def _init_params(self, key: jax.Array, method: str | None = None) -> Params:
        """Return the parameters that a method of the network uses, by default all."""
        t = self.model.seq_len
        return self.model.init(
            key,
            states=jnp.zeros((1, t, self.observation_size), jnp.float32),
            actions=jnp.zeros((1, t, self.action_size), jnp.float32),
            returns_to_go=jnp.zeros((1, t), jnp.float32),
            timesteps=jnp.zeros((1, t), jnp.int32),
            method=method,
        )["params"]

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Return the state after one more update, and CORL's metrics of it."""
        dropout_key = jax.random.fold_in(state.key, state.step)
        loss, grads = jax.value_and_grad(self.loss)(state.params, batch, dropout_key)
        metrics = {
            "train_loss": loss,
            "learning_rate": jnp.asarray(self.schedule(state.step), loss.dtype),
            "grad_norm": optax.tree.norm(grads),
        }
        return apply_gradients(self.optimizer, state, grads), metrics

    def loss(self, params: Params, batch: Batch, dropout_key: jax.Array) -> Array:
        """Return Σ(mask·err²) / (B·T·A): as in CORL, padding counts in the mean.

        Of discrete actions, the mean cross-entropy, in which padding does not count.
        """
        errors = self._error(params, batch, dropout_key)
        if self.normalizer.discrete:
            return masked_mean(errors[..., 0], batch.mask)
        return jnp.mean(errors)

    def validation_loss(self, params: Params, batch: Batch) -> Array:
        """Return the error of each action without dropout; see `Agent`."""
        return self._error(params, batch, None)

    def _error(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None
    ) -> Array:
        """Return each action's squared error [B, T, A], or cross-entropy [B, T, 1].

        Both are 0 in the padding.
        """
        predicted = self._forward(params, batch, dropout_key)
        errors = action_error(predicted, batch.actions, self.normalizer.discrete)
        return errors * batch.mask[..., None]

    def _forward(
        self,
        params: Params,
        batch: Batch,
        dropout_key: jax.Array | None,
        method: str | None = None,
    ) -> Any:
        """Return what a method of the network predicts, by default actions [B, T, A].

        In `compute_dtype`; without `dropout_key` there is no dropout.
        """
        inputs = batch.states, batch.actions, batch.returns_to_go
        if self.compute_dtype:
            params, inputs = jax.tree.map(
                lambda x: x.astype(self.compute_dtype), (params, inputs)
            )
        return self._apply(
            params,
            *inputs,
            batch.timesteps,
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
            method=method,
        )

    def start(
        self, target_returns: Array | None, keys: jax.Array | None = None
    ) -> Context:
        """Return the empty context of N episodes.

        Args:
          target_returns: [N], in the environment's units.
          keys: [N], used if actions are drawn; else acting is deterministic.
        """
        assert target_returns is not None
        n, dtype = target_returns.shape[0], target_returns.dtype
        target = target_returns * jnp.asarray(self.normalizer.reward_scale, dtype)
        return Context(
            cache=self.model.start(n, dtype),
            actions=jnp.zeros((n, self.action_size), dtype),
            length=jnp.zeros(n, jnp.int32),
            next_return=target,
            target=target,
            keys=keys if self.sample_actions else None,
        )

    def act(
        self,
        params: Params,
        context: Context,
        observations: Array,
        rewards: Array,
        done: Array,
    ) -> tuple[Context, Array]:
        """Return the context after this timestep, and the actions; see `Agent.act`."""
        context, states = self._observe(context, observations, rewards, done)
        returns = context.next_return[:, None]
        cache, actions = self._step(params, context, states, returns)
        keys, draws = context.keys, None
        if self.sample_actions:
            assert keys is not None
            keys, draws = jax.vmap(jax.random.split, out_axes=1)(keys)
        actions = actions[:, 0]
        if self.normalizer.discrete:
            actions = choose(actions, draws)
        context = context._replace(cache=cache, actions=actions, keys=keys)
        return context, self.normalizer.to_environment(actions)

    def _observe(
        self, context: Context, observations: Array, rewards: Array, done: Array
    ) -> tuple[Context, Array]:
        """Return the context of this timestep, before it acts, and the states [N, S].

        The states are normalised. The arguments are those of `act`.
        """
        dtype, units = context.actions.dtype, self.normalizer
        states = units.normalize_states(observations.astype(dtype))
        earned = rewards.astype(dtype) * jnp.asarray(units.reward_scale, dtype)
        timesteps = jnp.where(done, 0, context.length)
        returns_to_go = jnp.where(
            timesteps == 0, context.target, context.next_return - earned
        )
        context = context._replace(length=timesteps + 1, next_return=returns_to_go)
        return context, states

    def _step(
        self, params: Params, context: Context, states: Array, returns_to_go: Array
    ) -> tuple[Window | Ring, Array]:
        """Return the cache after this timestep, and actions or logits [N, C, A].

        Args:
          params: the network's.
          context: as `_observe` returns it, and
          states: the same.
          returns_to_go: [N, C], scaled, see `DecisionTransformer.step`.
        """
        return self._apply(
            params,
            context.cache,
            states,
            context.actions,
            returns_to_go,
            context.length - 1,
            method="step",
        )

    def _apply(self, params: Params, *inputs: Any, **kwargs: Any) -> Any:
        return self.model.apply({"params": params}, *inputs, **kwargs)
