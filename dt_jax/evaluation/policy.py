"""A trained agent, ready to act in any loop."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import jax
import numpy as np

from dt_jax.agents import make_agent
from dt_jax.agents.base import Agent, Context
from dt_jax.config.load import from_dict
from dt_jax.data.normalizer import Normalizer
from dt_jax.runs.folder import read_checkpoint
from dt_jax.types import Array, Params
from dt_jax.utils.errors import UserError


@dataclass(frozen=True)
class TrainedAgent:
    """The agent of a run's checkpoint."""

    workdir: str | Path  # the run's folder, as given
    agent: Agent  # without parameters
    params: Params  # acting; of a run with several seeds with a leading axis
    step: int  # completed updates
    record: dict[str, Any]  # what the checkpoint holds besides

    def seed_params(self, seed: int | None) -> Params:
        """Return the parameters of one seed, of the first if it is None.

        Raises:
          UserError: the run has no such seed.
        """
        config = self.record["config"]
        first, count = config["train_seed"], config["num_seeds"]
        index = 0 if seed is None else seed - first
        if not 0 <= index < count:
            raise UserError(
                f"{self.workdir} has no seed {seed}: it has {count}, from {first} on"
            )
        if count == 1:
            return self.params
        return jax.tree.map(lambda x: x[index], self.params)


def load_agent(workdir: str | Path, checkpoint: str | int) -> TrainedAgent:
    """Return the agent of a run's checkpoint.

    Raises:
      UserError: there is no such run or no such valid checkpoint, or its agent is not
        registered.
    """
    found = read_checkpoint(workdir, checkpoint)
    agent, count = make_agent(found.config, found.normalizer), found.config.num_seeds
    like = acting_shapes(agent)
    if count > 1:
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), like
        )
    return TrainedAgent(workdir, agent, found.params(like), found.step, found.record)


def _agent_of(record: dict[str, Any]) -> Agent:
    normalizer = Normalizer.from_record(record["normalizer"])
    return make_agent(from_dict(record["config"]), normalizer)


def acting_shapes(agent: Agent) -> Params:
    """Return the shapes of an agent's acting parameters, of one seed."""
    return jax.eval_shape(lambda: agent.acting_params(agent.init(jax.random.key(0))))


class _Episodes(NamedTuple):
    context: Context  # the agent's
    lengths: np.ndarray  # timesteps seen in each running episode, [N]
    single: bool  # reset for one episode: no leading axis


class Policy:
    """Acts in one or many running episodes; raw observations in, actions out.

    An interrupted call changes nothing. Several threads may call one policy; copies
    share its program, and continue its episodes each on its own. A policy that `load`
    has returned can be pickled, without its episodes.

    Examples:
      >>> policy = Policy.load("runs/quickstart")
      >>> policy.reset(2000.0)
      >>> action = policy.act(observation)
      >>> action = policy.act(next_observation, reward)
    """

    def __init__(self, agent: Agent, params: Params):
        self.agent = agent
        self._params = params
        self._record: dict[str, Any] | None = None  # of the checkpoint, if any
        self._start = jax.jit(agent.start)
        # As constants of the program, the parameters are prepared once for all steps.
        # The context is not donated: copies may share it, and a call be interrupted.
        self._act = jax.jit(partial(agent.act, params))
        self._episodes: _Episodes | None = None
        self._lock = RLock()

    @classmethod
    def load(
        cls,
        workdir: str | Path,
        checkpoint: str | int = "last",
        seed: int | None = None,
    ) -> "Policy":
        """Return the policy that a run has trained.

        Args:
          workdir: the run's folder.
          checkpoint: "last", "best" (by evaluation) or the number of a step.
          seed: which one, in a run with several; None: the first.

        Raises:
          UserError: there is no such run, no such valid checkpoint or no such seed, or
            the run's agent is not registered or does not act.
        """
        trained = load_agent(workdir, checkpoint)
        trained.agent.check_acts()
        policy = cls(trained.agent, trained.seed_params(seed))
        policy._record = trained.record
        return policy

    def __copy__(self) -> "Policy":
        other = object.__new__(type(self))
        vars(other).update(vars(self), _lock=RLock())
        return other

    def __deepcopy__(self, memo: Any) -> "Policy":
        return copy(self)  # what it shares is never changed

    def __reduce__(self) -> tuple[Any, ...]:
        if self._record is None:
            raise TypeError(
                "only a policy that Policy.load has returned can be pickled"
            )
        return _unpickled, (type(self), self._record, jax.device_get(self._params))

    def reset(
        self,
        target_returns: float | Sequence[float] | np.ndarray | None = None,
        *,
        num_episodes: int | None = None,
        seed: int = 0,
    ) -> None:
        """Forget all episodes and start new ones.

        Args:
          target_returns: the target return of each of N episodes, [N], in the
            environment's units; a single number for one episode, whose observations,
            rewards and actions then have no leading axis. Only for agents that are
            conditioned on one.
          num_episodes: N, for agents without target returns; None: one episode without
            a leading axis.
          seed: of agents whose actions are random.

        Raises:
          ValueError: target returns are missing, not finite, or not used by the agent.
        """
        targets = None
        if self.agent.conditioned:
            if target_returns is None:
                raise ValueError(
                    "target_returns: this agent needs one for each episode, such as "
                    "policy.reset(3600.0)"
                )
            targets = np.asarray(target_returns, np.float32)
            if targets.ndim > 1 or not targets.size or not np.isfinite(targets).all():
                raise ValueError(
                    f"target_returns: expected finite ones, [N], got {target_returns!r}"
                )
            single, n = targets.ndim == 0, targets.size
            targets = np.atleast_1d(targets)
        else:
            if target_returns is not None:
                raise ValueError(
                    "target_returns: this agent does not use any, call policy.reset()"
                )
            single, n = num_episodes is None, num_episodes or 1
        keys = jax.random.split(jax.random.key(seed), n)
        with self._lock:
            self._episodes = _Episodes(
                self._start(targets, keys), np.zeros(n, int), single
            )

    def act(
        self,
        observations: Array,
        rewards: Array | float | None = None,
        done: Array | bool | None = None,
    ) -> np.ndarray:
        """Return the next action of each episode, [N, A], in environment units.

        Discrete actions are integers, [N], the numbers of the choices.

        Args:
          observations: [N, S], raw.
          rewards: [N], for the previous actions; from the second step on.
          done: [N] bool, which episodes the previous actions ended: their observations
            are the first ones of new episodes, with the same target returns.

        Raises:
          ValueError: no reset yet, rewards missing, a wrong shape, a value that is
            not finite, or an episode longer than the training's episode_len.
        """
        with self._lock:
            if self._episodes is None:
                raise ValueError("call reset() before the first act()")
            # Last, and at once: an interrupt comes before or after it.
            self._episodes, actions = self._advanced(
                self._episodes, observations, rewards, done
            )
        return actions

    def _advanced(
        self, episodes: _Episodes, observations: Any, rewards: Any, done: Any
    ) -> tuple[_Episodes, np.ndarray]:
        """Return the episodes after this timestep, and the actions; see `act`."""
        context, lengths, single = episodes
        n, size = len(lengths), self.agent.observation_size
        no_rewards = rewards is None
        observations = _checked("observations", observations, (n, size), single)
        rewards = np.zeros(n) if no_rewards else rewards
        rewards = _checked("rewards", rewards, (n,), single)
        ended = np.zeros(n, bool)
        if done is not None:
            ended = _checked("done", done, (n,), single) != 0
        seen = np.where(ended, 0, lengths)
        if no_rewards and seen.any():
            raise ValueError("rewards: needed from the second step of an episode on")
        limit = self.agent.episode_len
        if seen.max() == limit:
            raise ValueError(
                f"an episode is longer than the {limit} steps (episode_len) of "
                "training: pass done where one has ended, or reset()"
            )
        context, actions = self._act(context, observations, rewards, ended)
        actions = np.array(actions)
        if self.agent.normalizer.discrete:
            actions = actions.argmax(axis=-1)
        after = _Episodes(context, seen + 1, single)
        return after, actions[0] if single else actions


def _unpickled(kind: type[Policy], record: dict[str, Any], params: Params) -> Policy:
    """Return a policy as `Policy.load` returned it."""
    policy = kind(_agent_of(record), params)
    policy._record = record
    return policy


def _checked(name: str, value: Any, shape: tuple[int, ...], single: bool) -> np.ndarray:
    """Return `value` as a finite float32 array of `shape`."""
    array = np.asarray(value, np.float32)
    if single and array.ndim == len(shape) - 1:
        array = array[None]
    if array.shape != shape:
        expected, got = shape[single:], np.shape(value)
        raise ValueError(f"{name}: expected shape {expected}, got {got}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: NaN or infinity in {value!r}")
    return array
