import pytest
from scipy.stats import spearmanr

from configs import quickstart
from dt_jax.config import validate
from dt_jax.summary import last_evaluation
from dt_jax.train import train_and_evaluate


@pytest.mark.slow
def test_the_achieved_return_follows_the_target(tmp_path):
    """The quickstart as `python launch.py` runs it: two minutes on two cores."""
    config = quickstart.get_config().lock()
    validate(config)
    train_and_evaluate(config, tmp_path)
    _, evaluation = last_evaluation(tmp_path)
    means = evaluation.returns.mean(axis=1)
    assert spearmanr(evaluation.target_returns, means).statistic >= 0.9
    assert means.max() - means.min() > 2000
