"""D4RL's normalised scores."""

from collections.abc import Sequence

import numpy as np

from dt_jax.data.registry import DatasetSpec
from dt_jax.types import Array


def normalized_score(
    spec: DatasetSpec, returns: float | Sequence[float] | Array
) -> np.ndarray | None:
    """Return 100 (R - ref_min) / (ref_max - ref_min), of the shape of `returns`.

    None where `spec` has no such references.

    0 is D4RL's random policy and 100 its expert: section 5.2 of Fu et al., D4RL,
    https://arxiv.org/abs/2004.07219, with the constants of d4rl/infos.py.
    """
    if spec.ref_min is None or spec.ref_max is None:
        return None
    returns = np.asarray(returns, np.float64)
    return 100 * (returns - spec.ref_min) / (spec.ref_max - spec.ref_min)
