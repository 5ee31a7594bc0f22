"""The contract between an agent and everything that trains, evaluates or saves it."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import flax.struct
import jax
import optax
from ml_collections import ConfigDict

from dt_jax.data.labels import Labels
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.trajectories import Trajectories
from dt_jax.types import Array, Batch, Params
from dt_jax.utils.keys import Key

Metrics = dict[str, Array]  # numbers; of several seeds [S]
Context = Any  # what an agent remembers of N running episodes, a pytree


class TrainState(flax.struct.PyTreeNode):
    """Everything that an update changes, as one pytree.

    Attributes:
      step: updates completed, int32.
      params: the parameters that the optimiser updates.
      opt_state: the optimiser's state.
      key: root of the random keys; each update folds its own step in.
      extra: an agent's further state, such as a critic or a target network.
    """

    step: Array
    params: Params
    opt_state: optax.OptState
    key: jax.Array
    extra: dict[str, Any] = flax.struct.field(default_factory=dict)


class Trained(NamedTuple):
    """The result of an earlier stage: an agent, and the acting parameters of a seed."""

    agent: "Agent"
    params: Params


class Agent(Protocol):
    """An algorithm: its configuration keys, its update and its way of acting.

    Agents inherit from it explicitly, for the methods that have a default.

    Its other methods are pure functions that JAX can trace. With several seeds
    `warm_start`, `with_stages` and `acting_params` get the states of all of them, with
    a leading axis; the others are mapped over seeds with vmap.

    Attributes:
      KEYS: the configuration keys of this algorithm.
      normalizer: the units of observations, actions and rewards.
      episode_len: the longest episode that it can act in, in environment steps.
      context_len: T, timesteps in a training window.
      batch_fields: the fields of `Batch` that `update` and `validation_loss` read.
      batch_kind: how windows are drawn: "windows" by their first transition, cut off at
        the trajectory's end; "window_ends" by their last, cut off at its start;
        "episodes" are whole trajectories, each with the same probability.
      conditioned: whether episodes start with a target return.
      validation_metric: what `validation_loss` measures; its mean is logged as
        eval/holdout_<validation_metric>.
    """

    KEYS: ClassVar[tuple[Key, ...]]
    normalizer: Normalizer
    episode_len: int
    context_len: int
    batch_fields: ClassVar[tuple[str, ...]]
    batch_kind: str = "windows"
    conditioned: ClassVar[bool]
    validation_metric: str = "action_mse"

    @property
    def observation_size(self) -> int:
        """S."""
        return self.normalizer.observation_size

    @property
    def action_size(self) -> int:
        """A."""
        return self.normalizer.action_size

    @classmethod
    def from_config(cls, config: ConfigDict, normalizer: Normalizer) -> "Agent":
        """Return the agent of a configuration and a dataset's units."""

    @classmethod
    def check_config(cls, config: ConfigDict) -> None:
        """Raise a UserError where keys, each valid by itself, contradict each other."""

    @classmethod
    def check_data(cls, trajectories: Trajectories) -> None:
        """Raise a UserError where the agent cannot learn from the data."""

    @classmethod
    def select(cls, config: ConfigDict, trajectories: Trajectories) -> Trajectories:
        """Return the trajectories to train on, of those that are not held out.

        All of them unless an agent overrides it. It may depend on nothing else.
        """
        return trajectories

    @classmethod
    def stages(cls, config: ConfigDict) -> Mapping[str, Mapping[str, Any]]:
        """Return the runs that a run of this agent begins with, in order.

        By the name of their subfolder, the values of their keys: "agent", and where
        they differ from `config`, further ones.
        """
        return {}

    @classmethod
    def make_labels(
        cls,
        config: ConfigDict,
        stages: Mapping[str, Trained],
        trajectories: Trajectories,
    ) -> Labels | None:
        """Return what training shows in place of the returns-to-go; None: themselves.

        Args:
          config: of the run.
          stages: the results of `stages`, of one seed.
          trajectories: the whole data.
        """
        return None

    def init(self, key: jax.Array) -> TrainState:
        """Return the state before the first update."""

    def warm_start(self, state: TrainState, params: Params) -> TrainState:
        """Return the state before the first update with parameters of another run.

        Agents override it whose `extra` depends on the parameters.

        Args:
          state: as `init` returns it; of several seeds with a leading axis.
          params: acting parameters, of the shapes that `acting_params` returns.
        """
        return state.replace(params=params)

    def with_stages(
        self, state: TrainState, stages: Mapping[str, Trained]
    ) -> TrainState:
        """Return the state before the first update with what it needs of the stages.

        Agents override it that keep a stage's parameters, such as those of a frozen
        critic, in `extra`: checkpoints have them, and a resumed run needs no stage.

        Args:
          state: as `init` or `warm_start` returns it; of several seeds with a leading
            axis.
          stages: the results of `stages`, likewise. A dry run has none, and a run
            without stages does not call this.
        """
        return state

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Return the state after one more update, and its metrics by any names."""

    def validation_loss(self, params: Params, batch: Batch) -> Array:
        """Return the error of each predicted number, [B, T, E], 0 in the padding.

        E is A for squared errors of actions; for discrete actions 1, -log π(a).

        Args:
          params: as `acting_params` returns them.
          batch: of trajectories that are held out.
        """

    def acting_params(self, state: TrainState) -> Params:
        """Return what acting needs, `state.params` unless an agent overrides it.

        Checkpoints hold it as `params`.
        """
        return state.params

    def check_acts(self) -> None:
        """Raise a UserError where the agent does not act: it only learns labels."""

    def start(self, target_returns: Array | None, keys: jax.Array) -> Context:
        """Return the context of N episodes before their first timestep.

        Args:
          target_returns: [N], in the environment's units; None where the agent is not
            conditioned.
          keys: [N] random keys, one per episode, for agents whose actions are drawn.
        """

    def act(
        self,
        params: Params,
        context: Context,
        observations: Array,
        rewards: Array,
        done: Array,
    ) -> tuple[Context, Array]:
        """Return the context after this timestep, and the actions to take.

        Args:
          params: as `acting_params` returns them.
          context: of the N episodes, before this timestep.
          observations: [N, S], raw.
          rewards: [N], for the previous actions; zeros at the first timestep.
          done: [N] bool, whether the previous action ended the episode, so that
            `observations` start a new one.

        Returns:
          The context, and actions [N, A] in the environment's units.
        """
