"""A trained Decision Transformer, ready to act in any loop."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dt_jax.agents.dt import (
    SCALING,
    Context,
    DecisionTransformerAgent,
)
from dt_jax.config.config import from_dict
from dt_jax.runs.checkpoint import choose
from dt_jax.types import Array, Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path


def restore(
    workdir: Path, which: str | int
) -> tuple[DecisionTransformerAgent, Params, dict[str, Any]]:
    """Return the agent, the parameters and the record of a run's checkpoint.

    Of a run with several seeds, parameters have a leading axis for them.

    Raises:
      UserError: there is no such run or no such valid checkpoint.
    """
    checkpoint = choose(user_path(workdir) / "checkpoints", which)
    record = checkpoint.record()
    agent = DecisionTransformerAgent.from_config(
        from_dict(record["config"]),
        **{key: np.asarray(record[key], np.float32) for key in SCALING},
    )
    like = jax.eval_shape(lambda: agent.init_params(jax.random.key(0)))
    num_seeds = record["config"]["num_seeds"]
    if num_seeds > 1:
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((num_seeds, *x.shape), x.dtype), like
        )
    return agent, checkpoint.params(like), record


def one_seed(
    workdir: str | Path, params: Params, record: dict[str, Any], seed: int | None
) -> Params:
    """Return the parameters of one seed of a run, of the first where it is None.

    Args:
      workdir: the run's folder, for the error line.
      params: as `restore` returned them.
      record: likewise.
      seed: as the run counts, from its train_seed on.

    Raises:
      UserError: the run has no such seed.
    """
    first, count = (record["config"][key] for key in ("train_seed", "num_seeds"))
    index = 0 if seed is None else seed - first
    if not 0 <= index < count:
        raise UserError(f"{workdir} has no seed {seed}, but {count} from {first} on")
    return params if count == 1 else jax.tree.map(lambda x: x[index], params)


class Policy:
    """Acts in one or many running episodes; raw observations in, actions out.

    Examples:
      >>> policy = Policy.load("runs/quickstart")
      >>> policy.reset(2000.0)
      >>> action = policy.act(observation)
      >>> action = policy.act(next_observation, reward)
    """

    def __init__(self, agent: DecisionTransformerAgent, params: Params):
        self.agent = agent
        self._start = jax.jit(agent.start)
        # As constants of the program, the parameters are prepared once for all steps.
        self._act = jax.jit(partial(agent.act, params), donate_argnums=0)
        self._context: Context | None = None
        self._single = False  # reset with one number: no leading axis
        self._lengths = np.zeros(0, int)  # timesteps seen in each running episode

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
          seed: which one's, in a run with several; None: the first one's.

        Raises:
          UserError: there is no such run, no such valid checkpoint or no such seed.
        """
        agent, params, record = restore(Path(workdir), checkpoint)
        return cls(agent, one_seed(workdir, params, record, seed))

    def reset(self, target_returns: float | Sequence[float] | np.ndarray) -> None:
        """Forget all episodes and begin new ones.

        Args:
          target_returns: what each of N episodes is to reach, [N], in the
            environment's units; a single number for one episode, whose observations,
            rewards and actions then have no leading axis.
        """
        targets = np.asarray(target_returns, np.float32)
        if targets.ndim > 1 or not targets.size or not np.isfinite(targets).all():
            raise ValueError(
                f"target_returns: expected a number or [N] finite ones, "
                f"got {target_returns!r}"
            )
        self._single = targets.ndim == 0
        self._context = self._start(np.atleast_1d(targets))
        self._lengths = np.zeros(targets.size, int)

    def act(
        self,
        observations: Array,
        rewards: Array | float | None = None,
        done: Array | bool | None = None,
    ) -> np.ndarray:
        """Return the next action of each episode, [N, A], in environment units.

        Args:
          observations: [N, S], raw.
          rewards: [N], what the last actions earned; from the second step on.
          done: [N] bool, which episodes the last actions ended: their observations
            are the first ones of new episodes, with the same targets.

        Raises:
          ValueError: no reset yet, rewards missing, a wrong shape, a value that is
            not finite, or an episode longer than the training's episode_len.
        """
        if self._context is None:
            raise ValueError("call reset(target_returns) before the first act()")
        n = len(self._lengths)
        observations = self._checked(
            "observations", observations, (n, len(self.agent.state_mean))
        )
        no_rewards = rewards is None
        rewards = self._checked("rewards", np.zeros(n) if no_rewards else rewards, (n,))
        ended = self._checked("done", np.zeros(n) if done is None else done, (n,)) != 0
        seen = np.where(ended, 0, self._lengths)
        if no_rewards and seen.any():
            raise ValueError("rewards: needed from the second step of an episode on")
        limit = self.agent.model.episode_len
        if seen.max() == limit:
            raise ValueError(
                f"an episode is longer than the {limit} steps (episode_len) of "
                "training: pass done where one has ended, or reset()"
            )
        self._context, actions = self._act(self._context, observations, rewards, ended)
        self._lengths = seen + 1
        actions = np.array(actions)
        return actions[0] if self._single else actions

    def _checked(self, name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Return `value` as a finite float32 array of `shape`."""
        array = np.asarray(value, np.float32)
        if self._single and array.ndim == len(shape) - 1:
            array = array[None]
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: NaN or infinity in {value!r}")
        return array
