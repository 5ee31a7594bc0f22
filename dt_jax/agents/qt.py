"""Q-value regularised Transformer (Hu et al., 2024, https://arxiv.org/abs/2405.17098).

A Decision Transformer whose loss also maximises Q of the actions that it predicts, so
that it prefers what a critic knows to be better than what followed in one trajectory.
Two modes: "qt" learns the critic together with the policy, and acts by the best of
several candidate returns; "qcs" (Kim et al., 2024, https://arxiv.org/abs/2402.02017)
has a critic that is trained first and then frozen, and weighs it by how far a
trajectory's return is from the data's best.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dt_jax.agents.base import Metrics, Trained, TrainState
from dt_jax.agents.candidates import CANDIDATE_KEYS, CandidateAgent
from dt_jax.agents.critic import STAGE_KEYS
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.agents.iql import ImplicitQLearning
from dt_jax.agents.losses import action_error, expected_value, masked_mean
from dt_jax.agents.optim import (
    adam_with_l2,
    make_optimizer,
    make_schedule,
    optimizer_step,
)
from dt_jax.data.normalizer import Normalizer
from dt_jax.networks.critics import TwinQ, apply, mish
from dt_jax.types import Array, Batch, Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.keys import (
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_INTEGER,
    PROBABILITY,
    Key,
    boolean,
    integer,
    number,
    one_of,
    or_none,
    text,
    united,
)

# Where a key is None: its value in each mode.
_CANDIDATES = {"qt": 50, "qcs": 1}
_CRITIC_LAYERS = {"qt": 3, "qcs": 2}

_SAME = (  # keys whose values are attributes of these names
    *("mode", "eta", "discount", "tau", "k_rewards", "q_scale", "q_min"),
    *("ema_decay", "ema_every", "ema_start", "best_return", "return_range"),
    *("candidate_std", "choice_temperature", "sample_actions"),
)

# fmt: off
_KEYS = (
    Key("mode", "qt", one_of("qt", "qcs"),
        '"qt": the critic is learnt together with the policy. "qcs": a critic of the '
        'agent iql is trained first and does not change.', architecture=True),
    Key("eta", 1.0, NOT_NEGATIVE,
        "qt: weight of Q, divided by its mean size, against the errors of actions and "
        "states. 0: imitation only."),
    Key("k_rewards", True, boolean(),
        "qt: targets of Q add up the rewards until the window's end. False: one-step "
        "targets, which can join parts of different trajectories within a window."),
    Key("ema_decay", 0.995, PROBABILITY,
        "qt: decay of the average of the policy's parameters, which acts."),
    Key("ema_every", 5, POSITIVE_INTEGER, "qt: updates between two of that average."),
    Key("ema_start", 1000, integer(0),
        "qt: updates before the first of that average; until then the initial "
        "parameters act."),
    Key("critic_reward_scale", 1.0, or_none(POSITIVE),
        "Factor from rewards to those that the critic learns; 1 as in the papers. "
        "None: reward_scale."),
    Key("q_scale", 1.0, NOT_NEGATIVE,
        "qcs: weight of Q, divided by its mean size, for each percent that a "
        "trajectory's normalised return is below the best."),
    Key("q_min", 0.0, NOT_NEGATIVE,
        "qcs: lower bound of that difference, in percent."),
    Key("best_return", None, or_none(number("a number", lambda x: True)),
        "qcs: the return from which that is measured; None: the data's best.",
        from_data=True),
    Key("return_range", None, or_none(POSITIVE),
        "qcs: the return that is 100 percent; None: from the return that scores 0 to "
        "the one that scores 100, or without them the range of the data's returns.",
        from_data=True),
    Key("labels_from", None, or_none(text("the folder of a run")),
        "qcs: a run of iql on the same data, whose critic is used instead of training "
        "one."),
    Key("critic_layers", None, or_none(integer(0, 100)),
        "Hidden layers of the critic; None: 3 in qt, 2 in qcs.", architecture=True),
    Key("learning_rate", 3e-4, POSITIVE, "Adam's largest learning rate.", corl=True),
    Key("weight_decay", 1e-4, NOT_NEGATIVE,
        "qt: L2 penalty of every parameter, part of Adam's gradient; qcs: AdamW's "
        "weight decay.", corl=True),
    Key("lr_schedule", "cosine",
        one_of("cosine", "warmup_cosine", "warmup_constant"),
        '"cosine" falls from learning_rate to 0 by update_steps, as in the paper of '
        'qt; "warmup_cosine" to a tenth after warmup_steps; "warmup_constant" is what '
        'the authors of QCS use. In qt the rate of the critic has the same shape.'),
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class QRegularizedTransformerAgent(CandidateAgent):
    """A Decision Transformer with a critic in its loss.

    In mode "qt" `TrainState.params` has the "actor" and the "critic", and `extra` their
    averages, which act. In mode "qcs" it has the "actor", and `extra` the "critic".

    Attributes:
      critic_optimizer: of mode "qt".
      critic_scale: factor from a batch's rewards to those that the critic learns.
      others: see the keys.
    """

    KEYS: ClassVar[tuple[Key, ...]] = united(
        (*_KEYS, *CANDIDATE_KEYS, *STAGE_KEYS),
        DecisionTransformerAgent.KEYS,
        ImplicitQLearning.KEYS,
    )

    critic_optimizer: optax.GradientTransformation
    mode: str
    eta: float
    discount: float
    tau: float
    k_rewards: bool
    ema_decay: float
    ema_every: int
    ema_start: int
    critic_scale: float
    q_scale: float
    q_min: float
    best_return: float
    return_range: float

    @classmethod
    def from_config(cls, config: ConfigDict, normalizer: Normalizer) -> Self:
        """Return the agent of a configuration and a dataset's units."""
        base = DecisionTransformerAgent.from_config(config, normalizer)
        is_qt = config.mode == "qt"
        model = base.model
        if is_qt and config.seq_len > 1:  # else no window has a next state
            model = model.clone(state_size=normalizer.observation_size)

        def schedule(rate: float) -> optax.Schedule:
            lengths = config.warmup_steps, config.update_steps
            return make_schedule(config.lr_schedule, rate, *lengths)

        scale = normalizer.reward_scale
        own, of_critic = schedule(config.learning_rate), schedule(config.qf_lr)
        activation = mish if is_qt else nn.relu
        make, clip = adam_with_l2 if is_qt else make_optimizer, config.clip_grad
        return cls(
            model=model,
            normalizer=normalizer,
            optimizer=make(own, config.betas, config.weight_decay, clip),
            schedule=own,
            compute_dtype=base.compute_dtype,
            critic=TwinQ(config.critic_dim, _critic_layers(config), activation),
            critic_optimizer=adam_with_l2(of_critic, (0.9, 0.999), 0.0, clip),
            critic_scale=(config.critic_reward_scale or scale) / scale,
            num_candidates=config.num_candidates or _CANDIDATES[config.mode],
            **{name: config[name] for name in _SAME},
        )

    @classmethod
    def check_config(cls, config: ConfigDict) -> None:
        """Raise a UserError where keys contradict each other."""
        super().check_config(config)
        keys = {key.name: key for key in cls.KEYS}
        if config.reward_scale == 0:
            expected = "a number above 0: the critic learns rewards"
            raise keys["reward_scale"].error(0, expected=expected)
        if config.labels_from and config.mode == "qt":
            expected = "None with mode=qt, which trains its own critic"
            raise keys["labels_from"].error(config.labels_from, expected=expected)
        if config.mode == "qt" and not config.action_tokens:
            expected = "true with mode=qt: states are predicted from actions"
            raise keys["action_tokens"].error(False, expected=expected)
        if config.mode == "qt" and config.k_rewards and config.seq_len == 1:
            expected = "at least 2, or k_rewards=False: a target needs a next step"
            raise keys["seq_len"].error(1, expected=expected)

    @classmethod
    def stages(cls, config: ConfigDict) -> Mapping[str, Mapping[str, Any]]:
        """Return the critic's run, in mode "qcs"."""
        if config.mode == "qt":
            return {}
        return {
            "critic": {
                "agent": "iql",
                "update_steps": config.critic_update_steps,
                "batch_size": config.critic_batch_size,
                "critic_layers": _critic_layers(config),
                "reward_scale": config.critic_reward_scale or config.reward_scale,
            }
        }

    @property
    def batch_fields(self) -> tuple[str, ...]:  # type: ignore[override]
        """The fields of a batch that an update reads."""
        fields = DecisionTransformerAgent.batch_fields
        if self.mode == "qcs":
            return (*fields, "episode_returns")
        targets = () if self.k_rewards else ("next_states", "has_next")
        return (*fields, "rewards", "terminals", *targets)

    def init(self, key: jax.Array) -> TrainState:
        """Return the state before the first update."""
        actor_key, critic_key, update_key = jax.random.split(key, 3)
        states = jnp.zeros((1, self.observation_size), jnp.float32)
        actions = jnp.zeros((1, self.action_size), jnp.float32)
        actor = self.init_params(actor_key)
        critic = self.critic.init(critic_key, states, actions)["params"]
        both = {"actor": actor, "critic": critic}
        params = both if self.mode == "qt" else {"actor": actor}
        optimizers = {"actor": self.optimizer, "critic": self.critic_optimizer}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state={name: optimizers[name].init(params[name]) for name in params},
            key=update_key,
            extra=both if self.mode == "qt" else {"critic": critic},
        )

    def warm_start(self, state: TrainState, params: Params) -> TrainState:
        """Return the state with parameters of another run, the averages included."""
        if self.mode == "qt":
            return state.replace(params=params, extra=params)
        actor, critic = {"actor": params["actor"]}, {"critic": params["critic"]}
        return state.replace(params=actor, extra=critic)

    def with_stages(
        self, state: TrainState, stages: Mapping[str, Trained]
    ) -> TrainState:
        """Return the state with the frozen critic of mode "qcs".

        Raises:
          UserError: the run of `labels_from` has another critic than the configuration.
        """
        agent, params = stages["critic"]
        theirs, ours = cast(ImplicitQLearning, agent).critic, self.critic
        keys: dict[str, tuple[float, float]] = {
            "critic_dim": (theirs.hidden_dim, ours.hidden_dim),
            "critic_layers": (theirs.hidden_layers, ours.hidden_layers),
        }
        scale = self.critic_scale * self.normalizer.reward_scale
        if not math.isclose(agent.normalizer.reward_scale, scale):
            keys["critic_reward_scale"] = agent.normalizer.reward_scale, scale
        changed = [f"{key} {a:g} -> {b:g}" for key, (a, b) in keys.items() if a != b]
        if changed:
            keys_text = ", ".join(changed)
            raise UserError(f"the critic there has other keys: set back {keys_text}")
        if not self.normalizer.same_inputs(agent.normalizer):
            raise UserError(
                "the critic there has other units of states and actions: set env_name, "
                "split, episode_len and max_action to those of its run"
            )
        return state.replace(extra={"critic": params["critic"]})

    def acting_params(self, state: TrainState) -> Params:
        """Return the parameters of the policy that acts, and of its critic."""
        return state.extra if self.mode == "qt" else {**state.params, **state.extra}

    def init_params(self, key: jax.Array) -> Params:
        """Return freshly initialised parameters of the policy."""
        return self._init_params(key, self._method)

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Return the state after one more update, and its metrics."""
        key = jax.random.fold_in(state.key, state.step)
        dropout_key, coin_key = jax.random.split(key)
        if self.mode == "qcs":
            return self._update_qcs(state, batch, dropout_key)
        coin = jax.random.bernoulli(coin_key)
        return self.update_qt(state, batch, coin, dropout_key)

    def update_qt(
        self, state: TrainState, batch: Batch, coin: Array, dropout_key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Return the state after one more update in mode "qt", and its metrics.

        Args:
          state: before it.
          batch: [B, T, ...].
          coin: bool, whether the policy maximises the first critic and divides by the
            second, or the other way round.
          dropout_key: for the policy.
        """
        critic, critic_opt = state.params["critic"], state.opt_state["critic"]
        y, valid = self.targets(state.extra, batch)
        loss = jax.value_and_grad(self.critic_loss)
        critic_loss, grads = loss(critic, batch, y, valid)
        critic, critic_opt = optimizer_step(
            self.critic_optimizer, critic, critic_opt, grads
        )
        # The policy's loss has the critic after its step, as in the reference.
        actor, actor_opt, metrics = self._actor_step(
            state,
            lambda actor: self.actor_loss(actor, critic, batch, coin, dropout_key),
        )

        due = (state.step > self.ema_start) & (state.step % self.ema_every == 0)
        rate = jnp.where(due, 1 - self.ema_decay, 0.0)
        average = optax.incremental_update(actor, state.extra["actor"], rate)
        target = optax.incremental_update(critic, state.extra["critic"], self.tau)
        target_mean = masked_mean(y, valid) / self._unit(y)
        metrics |= {"critic_loss": critic_loss, "target_mean": target_mean}
        state = state.replace(
            step=state.step + 1,
            params={"actor": actor, "critic": critic},
            opt_state={"actor": actor_opt, "critic": critic_opt},
            extra={"actor": average, "critic": target},
        )
        return state, metrics

    def targets(self, acting: Params, batch: Batch) -> tuple[Array, Array]:
        """Return the targets of Q, [B, T], and 1 where they are valid, [B, T].

        With `k_rewards`, from the last position l of the window backwards:
        y_l = r_l after a termination, else min Q'(s_l, π'(s_l)), from which the others
        are only bootstrapped, and y_i = r_i + discount · y_{i+1}. Else of one step:
        y_i = r_i + discount · (1 - d_i) min Q'(s_{i+1}, π'(s_{i+1})).

        Args:
          acting: the averages of actor and critic, π' and Q'.
          batch: [B, T, ...].
        """
        rewards = batch.rewards * jnp.asarray(self.critic_scale, batch.rewards.dtype)
        if not self.k_rewards:
            following = self._next_window(batch)
            value = self._acting_q(acting, following)
            y = rewards + self.discount * (1 - batch.terminals) * value
            return y, batch.has_next + batch.terminals
        value = self._acting_q(acting, batch)
        has_later = jnp.pad(batch.mask[:, 1:], ((0, 0), (0, 1)))
        is_end = batch.mask * (1 - has_later)  # 1 at the window's last position
        bootstraps = is_end * (1 - batch.terminals)
        x = jnp.where(bootstraps > 0, value, rewards * batch.mask)
        # y_i = Σ_{j >= i} discount^{j-i} x_j.
        steps = jnp.arange(x.shape[1])
        ahead = steps[None] - steps[:, None]
        powers = self.discount ** jnp.maximum(ahead, 0).astype(x.dtype)
        y = x @ jnp.where(ahead >= 0, powers, 0).T
        return y, batch.mask - bootstraps

    def critic_loss(
        self, critic: Params, batch: Batch, y: Array, valid: Array
    ) -> Array:
        """Return the sum of both critics' mean squared errors over valid targets."""
        q = apply(self.critic, critic, batch.states, batch.actions)
        return masked_mean(jnp.square(q - y[None]).sum(axis=0), valid)

    def actor_loss(
        self,
        actor: Params,
        critic: Params,
        batch: Batch,
        coin: Array,
        dropout_key: jax.Array,
    ) -> tuple[Array, Metrics]:
        """Return MSE(a) + MSE(s') - η E Q_1(s, π(s)) / E |Q_2(s, π(s))|, and its parts.

        Means are over valid steps, those of s' over steps that are followed by another
        in the window. |Q_2| has no gradient.
        """
        predicted, next_states = self._predict(actor, batch, dropout_key)
        errors = self._imitation_error(predicted, batch)
        action_loss = masked_mean(errors, batch.mask)
        state_loss: Array = jnp.zeros_like(action_loss)
        if next_states is not None:
            errors = jnp.square(next_states - batch.states[:, 1:]).mean(axis=-1)
            state_loss = masked_mean(errors, batch.mask[:, 1:])
        q = self._policy_q(critic, batch, predicted)
        first, second = jnp.where(coin, q, q[::-1])
        size = jax.lax.stop_gradient(masked_mean(jnp.abs(second), batch.mask))
        value_loss = -masked_mean(first, batch.mask) / size
        loss = action_loss + state_loss + self.eta * value_loss
        parts = {
            "action_loss": action_loss,
            "state_loss": state_loss,
            "value_loss": value_loss,
            "q_mean": masked_mean(q.mean(axis=0), batch.mask) / self._unit(q),
        }
        return loss, parts

    def _update_qcs(
        self, state: TrainState, batch: Batch, dropout_key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Return the state after one more update in mode "qcs", and its metrics."""
        critic = state.extra["critic"]
        actor, opt_state, metrics = self._actor_step(
            state, lambda actor: self.qcs_loss(actor, critic, batch, dropout_key)
        )
        params, opt_state = {"actor": actor}, {"actor": opt_state}
        state = state.replace(step=state.step + 1, params=params, opt_state=opt_state)
        return state, metrics

    def _actor_step(
        self, state: TrainState, loss: Callable[[Params], tuple[Array, Metrics]]
    ) -> tuple[Params, optax.OptState, Metrics]:
        """Return the policy and its optimiser's state after a step, and metrics."""
        actor, opt_state = state.params["actor"], state.opt_state["actor"]
        (value, parts), grads = jax.value_and_grad(loss, has_aux=True)(actor)
        metrics = {
            "train_loss": value,
            **parts,
            "learning_rate": jnp.asarray(self.schedule(state.step), value.dtype),
            "grad_norm": optax.tree.norm(grads),
        }
        return *optimizer_step(self.optimizer, actor, opt_state, grads), metrics

    def qcs_loss(
        self, actor: Params, critic: Params, batch: Batch, dropout_key: jax.Array
    ) -> tuple[Array, Metrics]:
        """Return the mean of MSE_i - λ_τ min Q(s_i, π(s_i)), and its parts.

        λ_τ = q_scale · max(100 (g* - g_τ), q_min) / E |Q| for the trajectory τ, with
        normalised returns g: Q has the largest weight where the return is low. Means
        are over valid steps.
        """
        predicted = self._predict(actor, batch, dropout_key)[0]
        errors = self._imitation_error(predicted, batch)
        q = self._policy_q(critic, batch, predicted).min(axis=0)
        size = jax.lax.stop_gradient(masked_mean(jnp.abs(q), batch.mask))
        returns = batch.episode_returns / self.normalizer.reward_scale
        below = 100 * (self.best_return - returns) / self.return_range
        weights = self.q_scale * jnp.maximum(below, self.q_min) / size
        loss = masked_mean(errors - weights * q, batch.mask)
        parts = {
            "action_loss": masked_mean(errors, batch.mask),
            "value_loss": -masked_mean(weights * q, batch.mask),
            "q_mean": masked_mean(q, batch.mask) / self._unit(q),
        }
        return loss, parts

    def validation_loss(self, params: Params, batch: Batch) -> Array:
        """Return the error of each action without dropout; see `Agent`."""
        return super().validation_loss(params["actor"], batch)

    def _predict(
        self, actor: Params, batch: Batch, dropout_key: jax.Array | None = None
    ) -> tuple[Array, Array | None]:
        """Return the actions [B, T, A], and the states after them, if predicted."""
        predicted = self._forward(actor, batch, dropout_key, self._method)
        return predicted if self._method else (predicted, None)

    @property
    def _method(self) -> str | None:
        """Of the network, in training."""
        return None if self.model.state_size is None else "predict_with_states"

    def _imitation_error(self, predicted: Array, batch: Batch) -> Array:
        """Return the error of each predicted action, or -log π of logits, [B, T]."""
        discrete = self.normalizer.discrete
        return action_error(predicted, batch.actions, discrete).mean(axis=-1)

    def _acting_q(self, acting: Params, batch: Batch) -> Array:
        """Return the smaller average Q of what the averaged policy does, [B, T]."""
        predicted, _ = self._predict(acting["actor"], batch)
        return self._policy_q(acting["critic"], batch, predicted).min(axis=0)

    def _policy_q(self, critic: Params, batch: Batch, predicted: Array) -> Array:
        """Return both Q of predicted actions, [2, B, T]; of logits, their means."""
        q = partial(apply, self.critic, critic)
        if self.normalizer.discrete:
            return expected_value(q, batch.states, predicted)
        return q(batch.states, predicted)

    def _next_window(self, batch: Batch) -> Batch:
        """Return the window one step later, valid where `has_next` is 1."""
        last = self.model.episode_len + self.model.seq_len - 1  # of the timestep table
        return batch._replace(
            states=batch.next_states,
            actions=jnp.roll(batch.actions, -1, axis=1),
            returns_to_go=batch.returns_to_go - batch.rewards,
            timesteps=jnp.minimum(batch.timesteps + 1, last),
        )

    def _unit(self, like: Array) -> Array:
        """Return what one unit of reward is to the critic."""
        unit = self.critic_scale * self.normalizer.reward_scale
        return jnp.asarray(unit, like.dtype)


def _critic_layers(config: ConfigDict) -> int:
    layers = config.critic_layers
    return _CRITIC_LAYERS[config.mode] if layers is None else layers
