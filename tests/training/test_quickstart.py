"""`python launch.py`: the achieved return follows the target return."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from dt_jax.config import load_config
from dt_jax.runs.evaluations import last_evaluation
from dt_jax.training.train import train


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    """Collect the data in a temporary folder instead of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DT_JAX_DATA", str(tmp_path_factory.mktemp("cache")))
        yield


def run(workdir, **changes):
    """Return the target returns, and the mean return that is achieved at each."""
    train(load_config("configs/quickstart.py", **changes), workdir)
    _, evaluation = last_evaluation(workdir)
    return evaluation.target_returns, evaluation.returns.mean(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_achieved_return_follows_the_target(tmp_path, seed):
    """It takes minutes on two cores."""
    targets, means = run(tmp_path, train_seed=seed)
    assert len(targets) >= 5
    assert spearmanr(targets, means).statistic >= 0.9
    assert np.ptp(means) > 2000


@pytest.mark.slow
def test_without_return_tokens_all_targets_give_the_same_return(tmp_path):
    _, means = run(tmp_path, reward_scale=0.0)
    assert np.ptp(means) == 0


def test_the_target_returns_are_within_the_datas():
    """Between the mean returns of its lowest and its highest level."""
    targets = load_config("configs/quickstart.py").target_returns
    assert min(targets) >= 384
    assert max(targets) <= 4008
