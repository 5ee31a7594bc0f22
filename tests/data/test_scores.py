import numpy as np
import pytest

from dt_jax.data.registry import lookup, normalized_score

# REF_MIN_SCORE and REF_MAX_SCORE of d4rl/infos.py.
D4RL = {
    "halfcheetah-medium-v2": (-280.178953, 12135.0),
    "hopper-medium-v2": (-20.272305, 3234.3),
    "walker2d-medium-v2": (1.629008, 4592.3),
    "maze2d-umaze-v1": (23.85, 161.86),
    "antmaze-umaze-v2": (0.0, 1.0),
    "pen-human-v1": (96.262799, 3076.8331017826877),
}


@pytest.mark.parametrize(("name", "reference"), D4RL.items())
def test_against_d4rls_constants(name, reference):
    low, high = reference
    returns = [low, high, (low + high) / 2]
    score = normalized_score(lookup(name), returns)
    np.testing.assert_allclose(score, [0, 100, 50], atol=1e-4)


def test_keeps_the_shape_and_takes_a_number():
    spec = lookup("hopper-demo")
    returns = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert normalized_score(spec, returns).shape == (2, 3)
    assert normalized_score(spec, 3234.3) == pytest.approx(100)
