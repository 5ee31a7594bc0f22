import numpy as np
import pytest
from scipy.stats import spearmanr

from configs import quickstart
from dt_jax.config.load import validate
from dt_jax.runs.evaluations import last_evaluation
from dt_jax.training.train import train


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    """Collect the data here, and not into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DT_JAX_DATA", str(tmp_path_factory.mktemp("cache")))
        yield


def run(workdir, **changes):
    """Return the targets, and the mean return that the quickstart reached at each."""
    config = quickstart.get_config()
    config.update(changes)
    validate(config)
    train(config.lock(), workdir)
    _, evaluation = last_evaluation(workdir)
    return evaluation.target_returns, evaluation.returns.mean(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_achieved_return_follows_the_target(tmp_path, seed):
    """As `python launch.py` runs it: minutes on two cores."""
    targets, means = run(tmp_path, train_seed=seed)
    assert len(targets) >= 5
    assert spearmanr(targets, means).statistic >= 0.9
    assert np.ptp(means) > 2000


@pytest.mark.slow
def test_without_return_tokens_it_follows_nothing(tmp_path):
    _, means = run(tmp_path, reward_scale=0.0)
    assert np.ptp(means) == 0


def test_the_targets_lie_inside_the_data():
    """By the levels' mean returns that collect/demo.py measured."""
    targets = quickstart.get_config().target_returns
    assert min(targets) >= 384
    assert max(targets) <= 4008
