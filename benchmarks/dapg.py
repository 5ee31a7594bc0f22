"""The published DAPG expert policies, which environments.py evaluates in Adroit.

Their weights are from https://github.com/aravindr93/hand_dapg (Apache-2.0), pickled in
dapg/policies; they are not part of this project. --dapg=FOLDER names a folder with
dapg_{pen,door,hammer,relocate}.npz, each with the arrays in_shift, in_scale, W0, b0,
W1, b1, W2, b2, out_scale, out_shift and log_std. For an observation o,

    mean = W2 tanh(W1 tanh(W0 (o - in_shift) / in_scale + b0) + b1) + b2
    action = clip(out_scale mean + out_shift + exp(log_std) N(0, 1), -1, 1)
"""

from pathlib import Path

import numpy as np

from dt_jax.utils.errors import UserError


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a policy."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; see {Path(__file__).name}")
    with np.load(path) as file:
        return dict(file)


def act(
    policy: dict[str, np.ndarray], observations: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Sample actions [N, A]; the environment clips them."""
    x = (observations - policy["in_shift"]) / policy["in_scale"]
    x = np.tanh(x @ policy["W0"].T + policy["b0"])
    x = np.tanh(x @ policy["W1"].T + policy["b1"])
    x = x @ policy["W2"].T + policy["b2"]
    means = x * policy["out_scale"] + policy["out_shift"]
    return means + np.exp(policy["log_std"]) * rng.standard_normal(means.shape)
