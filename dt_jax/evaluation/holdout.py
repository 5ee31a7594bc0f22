"""How well actions are predicted on trajectories that were not trained on."""

import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.data.sampler import Sampler
from dt_jax.types import Array, Batch, Params

METRIC = "eval/holdout_action_mse"
_MOST_WINDOWS = 2048  # a few seconds on a laptop at CORL's sizes


class HoldoutError:
    """The mean squared error of predicted actions, in the network's units.

    Each trajectory is laid out in windows side by side, so that every action is
    predicted once; of more than 2048 windows, so many are taken at equal distances.
    """

    def __init__(
        self, agent: DecisionTransformerAgent, sampler: Sampler, num_seeds: int = 1
    ):
        """Choose the windows.

        Args:
          agent: whose parameters are to be measured.
          sampler: of the trajectories held out.
          num_seeds: with more than one, parameters have a leading axis for them.
        """
        starts = sampler.side_by_side()
        count = min(len(starts), _MOST_WINDOWS)
        self._starts = starts[np.linspace(0, len(starts) - 1, count).astype(int)]
        self._sampler = sampler

        def sums(params: Params, batch: Batch) -> tuple[Array, Array]:
            return jnp.sum(agent.squared_error(params, batch)), jnp.sum(batch.mask)

        self._sums = jax.jit(sums if num_seeds == 1 else jax.vmap(sums, (0, None)))
        self._action_size = agent.model.action_size

    def __call__(self, params: Params) -> np.ndarray:
        """Return the error over all actions of the windows, [] or [S]; no dropout."""
        size = self._sampler.batch_size
        error, count = np.zeros(()), np.zeros(())
        for first in range(0, len(self._starts), size):
            starts = self._starts[first : first + size]
            # All batches have one shape, so that there is one program.
            batch = self._sampler.gather(np.resize(starts, size))
            batch.mask[len(starts) :] = 0
            batch_error, batch_count = jax.device_get(self._sums(params, batch))
            error = error + np.asarray(batch_error, np.float64)
            count = count + np.asarray(batch_count, np.float64)
        return error / (count * self._action_size)
