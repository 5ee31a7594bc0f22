"""The clusters of ESPER (Paster et al., 2022, https://arxiv.org/abs/2205.15967).

A cluster is a summary of the rest of a trajectory that has information about what the
agent will do, and none about how the environment answers: its actions are predicted
from it, and the next states must not be. The mean return of a cluster is then what the
agent can achieve by itself. The reference implementation is keirp/return_transforms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dt_jax.agents.base import Metrics, TrainState
from dt_jax.agents.expected_return import RETURN_KEYS, ReturnModel, make_adamw
from dt_jax.agents.losses import action_error, masked_mean
from dt_jax.agents.optim import apply_gradients, initial_state
from dt_jax.data.normalizer import Normalizer
from dt_jax.networks.esper import ClusterNetwork, NormedMLP, ReturnNetwork
from dt_jax.types import Array, Batch, Params
from dt_jax.utils.keys import NOT_NEGATIVE, POSITIVE, POSITIVE_INTEGER, Key, integer

# fmt: off
_KEYS = (
    Key("cluster_groups", 4, POSITIVE_INTEGER,
        "Groups of classes: a cluster is one class of each.", architecture=True),
    Key("cluster_classes", 32, integer(2, 100_000),
        "Classes in each group of clusters.", architecture=True),
    Key("cluster_updates", 5_000, POSITIVE_INTEGER,
        "Updates that learn the clusters, before those that learn their returns."),
    Key("action_loss_weight", 0.01, NOT_NEGATIVE,
        "Weight of the error of actions predicted from clusters."),
    Key("dynamics_loss_weight", 1.0, NOT_NEGATIVE,
        "Weight of the error of next states predicted from clusters, which clusters "
        "maximise."),
    Key("dynamics_lr", 5e-4, POSITIVE,
        "AdamW's learning rate for the dynamics, the prediction of next states."),
)
# fmt: on


class Draws(NamedTuple):
    """What an update draws for a batch of episodes.

    Attributes:
      gumbel: [B, T, G, C], noise that makes a maximum a sample.
      past: [3, B, T] int32, an earlier step of the episode or the same one, whose
        cluster predicts the action, and twice the next state.
    """

    gumbel: Array
    past: Array


class Predictions(NamedTuple):
    """What the networks predict in an update, for episodes aligned at their end."""

    logits: Array  # [B, T, G, C]
    clusters: Array  # [B, T, GC], drawn from them
    returns: Array  # [B, T], scaled
    actions: Array  # [B, T, A], or the logits of choices
    adversary: Array  # [B, T-1, S] next states, with gradients for clusters only
    next_states: Array  # [B, T-1, S], with gradients for the dynamics only
    baseline: Array  # [B, T-1, S], without clusters


@dataclass(frozen=True)
class ClusterReturn(ReturnModel):
    """Clusters of trajectories, and the expected return of each (ESPER).

    The first `cluster_updates` updates learn the clusters, further ones the returns.

    Attributes:
      networks: "cluster", "returns", "action" and "dynamics". `TrainState.params` has
        the parameters of each, and as "statistics" their running ones.
    """

    KEYS: ClassVar[tuple[Key, ...]] = (*RETURN_KEYS, *_KEYS)
    batch_kind: ClassVar[str] = "episodes"  # type: ignore[misc]

    networks: Mapping[str, nn.Module]
    normalizer: Normalizer
    optimizer: optax.GradientTransformation
    episode_len: int
    cluster_updates: int
    action_loss_weight: float
    dynamics_loss_weight: float

    @classmethod
    def from_config(cls, config: ConfigDict, normalizer: Normalizer) -> Self:
        """Return the agent of a configuration and a dataset's units."""
        dim, layers = config.return_dim, config.return_layers
        networks: dict[str, nn.Module] = {
            "cluster": ClusterNetwork(
                config.cluster_groups, config.cluster_classes, dim, layers
            ),
            "returns": ReturnNetwork(dim, layers),
            "action": NormedMLP(normalizer.action_size, dim, layers),
            "dynamics": NormedMLP(normalizer.observation_size, dim, layers),
        }
        adamw, switch = make_adamw(config.return_lr, config), config.cluster_updates
        clusters = optax.conditionally_mask(adamw, lambda step: step < switch)
        returns = optax.conditionally_mask(adamw, lambda step: step >= switch)
        optimizers = {
            "cluster": clusters,
            "action": clusters,
            "returns": returns,
            "dynamics": make_adamw(config.dynamics_lr, config),
            "statistics": optax.set_to_zero(),
        }
        return cls(
            networks=networks,
            normalizer=normalizer,
            optimizer=optax.multi_transform(optimizers, {x: x for x in optimizers}),
            episode_len=config.episode_len,
            cluster_updates=config.cluster_updates,
            action_loss_weight=config.action_loss_weight,
            dynamics_loss_weight=config.dynamics_loss_weight,
        )

    @property
    def context_len(self) -> int:  # type: ignore[override]
        """T, one step more than an episode, as in the reference."""
        return self.episode_len + 1

    def init(self, key: jax.Array) -> TrainState:
        """Return the state before the first update."""
        keys = dict(zip(self.networks, jax.random.split(key, 5), strict=False))
        states = jnp.zeros((1, 1, self.observation_size), jnp.float32)
        actions = jnp.zeros((1, 1, self.action_size), jnp.float32)
        cluster = cast(ClusterNetwork, self.networks["cluster"])
        clusters = jnp.zeros((1, 1, cluster.groups * cluster.classes), jnp.float32)
        inputs = {
            "cluster": (states, actions, states[..., 0]),
            "returns": (states, actions, clusters),
            "action": (_join(states, clusters),),
            "dynamics": (_join(states, actions, clusters),),
        }
        variables = {
            name: network.init(keys[name], *inputs[name], True)
            for name, network in self.networks.items()
        }
        params = {name: each["params"] for name, each in variables.items()}
        params["statistics"] = {
            name: each["batch_stats"] for name, each in variables.items()
        }
        return initial_state(self.optimizer, params, jax.random.split(key, 5)[4])

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Return the state after one more update, and its metrics."""
        draws = self.draw(jax.random.fold_in(state.key, state.step), batch.mask)
        return self.update_with(state, batch, draws)

    def update_with(
        self, state: TrainState, batch: Batch, draws: Draws
    ) -> tuple[TrainState, Metrics]:
        """Return the state after an update with these draws, and its metrics."""
        hard = state.step >= self.cluster_updates
        loss = jax.grad(self.loss, has_aux=True)
        grads, (metrics, statistics) = loss(state.params, batch, draws, hard)
        state = apply_gradients(self.optimizer, state, grads)
        return state.replace(params=state.params | {"statistics": statistics}), metrics

    def draw(self, key: jax.Array, mask: Array) -> Draws:
        """Return the draws for a batch with `mask` [B, T]."""
        gumbel_key, past_key = jax.random.split(key)
        pad = _padding(mask)[:, None]
        slots = jnp.arange(mask.shape[1], dtype=jnp.int32)
        earlier = jnp.maximum(slots[None] - pad + 1, 1)  # or the present one
        uniform = jax.random.uniform(past_key, (3, *mask.shape), mask.dtype)
        past = (uniform * earlier[None].astype(mask.dtype)).astype(jnp.int32)
        return Draws(self._gumbel(gumbel_key, mask), pad[None] + past)

    def _gumbel(self, key: jax.Array, mask: Array) -> Array:
        cluster = cast(ClusterNetwork, self.networks["cluster"])
        shape = *mask.shape, cluster.groups, cluster.classes
        return jax.random.gumbel(key, shape, mask.dtype)

    def loss(
        self, params: Params, batch: Batch, draws: Draws, hard: Array
    ) -> tuple[Array, tuple[Metrics, Params]]:
        """Return the sum of all losses, metrics, and the networks' statistics.

        Each loss has gradients only for its own networks:

          clusters and actions: -w_dyn·L_dyn + w_act·L_act, through the dynamics
          dynamics: L_dyn, and that of the same network without clusters
          returns: the squared error, of clusters that are fixed

        The reference's return loss counts padding, with returns of 0; this does not.

        Args:
          params: of the networks, and their statistics.
          batch: [B, T, ...].
          draws: random numbers.
          hard: whether clusters are samples; else they are soft, with gradients.
        """
        batch = _align_ends(batch, batch.mask)
        found, statistics = self.forward(params, batch, draws, hard)

        def dynamics_error(next_states: Array) -> Array:
            errors = jnp.square(next_states - batch.states[:, 1:]).mean(axis=-1)
            return masked_mean(errors, batch.mask[:, :-1])

        return_errors = jnp.square(found.returns - batch.returns_to_go)
        return_loss = masked_mean(return_errors, batch.mask)
        discrete = self.normalizer.discrete
        action_errors = action_error(found.actions, batch.actions, discrete)
        action_loss = masked_mean(action_errors.mean(axis=-1), batch.mask)
        cluster_loss = (
            self.action_loss_weight * action_loss
            - self.dynamics_loss_weight * dynamics_error(found.adversary)
        )
        dynamics_loss = dynamics_error(found.next_states)
        baseline = dynamics_error(found.baseline)
        metrics = {
            "train_loss": jnp.where(hard, return_loss, cluster_loss),
            "return_loss": return_loss,
            "action_loss": action_loss,
            "dynamics_loss": dynamics_loss,
            "baseline_dynamics_loss": baseline,
        }
        total = cluster_loss + return_loss + dynamics_loss + baseline
        return total, (metrics, statistics)

    def forward(
        self, params: Params, episodes: Batch, draws: Draws, hard: Array
    ) -> tuple[Predictions, Params]:
        """Return what training predicts, and the networks' statistics after it.

        Args:
          params: of the networks, and their statistics.
          episodes: aligned at their end.
          draws: random numbers.
          hard: see `loss`.
        """
        states, actions, mask = episodes.states, episodes.actions, episodes.mask
        statistics = dict(params["statistics"])

        def run(name: str, params: Params, *inputs: Array) -> Any:
            variables = {"params": params[name], "batch_stats": statistics[name]}
            result, moved = self.networks[name].apply(
                variables, *inputs, True, mutable=["batch_stats"]
            )
            statistics[name] = cast(Any, moved)["batch_stats"]
            return result

        def next_states(params: Params, clusters: Array) -> Array:
            return run("dynamics", params, _join(states, actions, clusters)[:, :-1])

        logits = run("cluster", params, states, actions, mask)
        clusters = _sample(logits, draws.gumbel, hard)
        fixed, frozen = jax.lax.stop_gradient((clusters, params))
        for_action, for_adversary, for_dynamics = draws.past
        predictions = Predictions(
            logits=logits,
            clusters=clusters,
            returns=run("returns", params, states, actions, fixed),
            actions=run("action", params, _join(states, _take(clusters, for_action))),
            # In this order, as the statistics of the dynamics move three times.
            adversary=next_states(frozen, _take(clusters, for_adversary)),
            next_states=next_states(params, _take(fixed, for_dynamics)),
            baseline=next_states(params, jnp.zeros_like(fixed)),
        )
        return predictions, statistics

    def predict(self, params: Params, batch: Batch, key: jax.Array) -> Array:
        """Return the expected scaled returns-to-go, [B, T], of sampled clusters."""
        return self.predict_with(params, batch, self._gumbel(key, batch.mask))

    def predict_with(self, params: Params, batch: Batch, gumbel: Array) -> Array:
        """Return the expected scaled returns-to-go, [B, T], with the noise `gumbel`."""
        inputs = batch.states, batch.actions, batch.mask
        states, actions, mask = _align_ends(inputs, batch.mask)

        def run(name: str, *inputs: Array) -> Any:
            variables = {
                "params": params[name],
                "batch_stats": params["statistics"][name],
            }
            return self.networks[name].apply(variables, *inputs, False)

        logits = run("cluster", states, actions, mask)
        clusters = _sample(logits, gumbel, jnp.array(True))
        predicted = run("returns", states, actions, clusters)
        return _align_ends(predicted, batch.mask, back=True)


def _sample(logits: Array, gumbel: Array, hard: Array) -> Array:
    """Return one class of each group [B, T, GC], or soft ones at temperature 1.

    Soft ones have gradients; hard ones need none, as the clusters are fixed by then.
    """
    soft = jax.nn.softmax(logits + gumbel, axis=-1)
    one_hot = jax.nn.one_hot(soft.argmax(axis=-1), soft.shape[-1], dtype=soft.dtype)
    return jnp.where(hard, one_hot, soft).reshape(*logits.shape[:2], -1)


def _padding(mask: Array) -> Array:
    """Return the number of padding steps of each episode, [B] int32."""
    return mask.shape[1] - mask.sum(axis=1).astype(jnp.int32)


def _align_ends(arrays: Any, mask: Array, *, back: bool = False) -> Any:
    """Move the padding of episodes from their end to their start, or back.

    Args:
      arrays: a pytree of [B, T, ...].
      mask: [B, T], with the padding at the end.
      back: whether the padding of `arrays` is at the start.
    """
    pad, slots = _padding(mask)[:, None], jnp.arange(mask.shape[1], dtype=jnp.int32)
    steps = (slots[None] + (pad if back else -pad)) % mask.shape[1]
    return jax.tree.map(lambda x: _take(x, steps), arrays)


def _take(x: Array, steps: Array) -> Array:
    """Return x [B, T, ...] at other timesteps [B, T]."""
    index = steps.reshape(*steps.shape, *(1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, index, axis=1)


def _join(*parts: Array) -> Array:
    return jnp.concatenate(parts, axis=-1)
