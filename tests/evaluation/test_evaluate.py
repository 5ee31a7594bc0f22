"""Checkpoints that are evaluated in an environment, perhaps another than the run's."""

import numpy as np
import pytest
from random_run import make_normalizer, write_random_run

from dt_jax.config import default_config
from dt_jax.evaluation.evaluate import evaluate, load_run
from dt_jax.evaluation.policy import Policy
from dt_jax.runs import manifest
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

ONES = [1.0, 1.0, 1.0]


@pytest.fixture
def run_with(tmp_path):
    """Return a function that writes a run for hopper with changes to its record."""

    def write(**changes):
        write_random_run(tmp_path / "run", None, make_normalizer(states=11))
        content = manifest.read(tmp_path / "run/checkpoints", 7)
        content.record.update(changes)
        manifest.write(tmp_path / "run/checkpoints", 7, content)
        return tmp_path / "run"

    return write


@pytest.mark.parametrize("use", [Policy.load, evaluate])
def test_run_that_learned_labels_is_refused_at_once(tmp_path, use):
    rows = 40
    np.savez(
        tmp_path / "data.npz",
        observations=np.random.default_rng(0).standard_normal((rows, 3)),
        actions=np.zeros((rows, 2)),
        rewards=np.ones(rows),
        terminals=np.arange(rows) % 10 == 9,
    )
    path = str(tmp_path / "data.npz")
    config = default_config(
        "expected_return", env_name=None, data_path=path, update_steps=1
    )
    train(config.lock(), tmp_path / "run")
    message = "this run learned labels and does not act: name the run that it is a "
    with pytest.raises(UserError, match=message):
        use(tmp_path / "run")


@pytest.mark.parametrize("low", [-1.0, -2.0])
def test_other_bounds_on_actions_than_in_training_are_refused(run_with, low):
    """For `evaluate` and `video`; the network's actions would mean something else."""
    run = run_with(action_bounds=[[-1.0, -1.0, low], ONES])
    if low == -1:
        assert load_run(run).spec.name == "hopper-demo"
        return
    message = "number 2 was between -2 and 1, in hopper-demo it is between -1 and 1"
    with pytest.raises(UserError, match=message):
        load_run(run)


@pytest.mark.parametrize("record", [{}, {"action_bounds": None}])
def test_a_run_of_unknown_bounds_can_be_evaluated(run_with, record):
    """Imported ones, and those trained without an environment."""
    assert load_run(run_with(**record)).spec.name == "hopper-demo"


@pytest.mark.parametrize(
    ("center", "scale", "refused"),
    [
        (0.0, 1.0, False),
        (0.5, 0.5, False),
        (0.9, 1.0, False),  # a constant number
        (300.0, 200.0, True),
        (0.5, 0.6, True),
        (1.5, 1.0, True),
    ],
)
def test_actions_of_a_run_without_environment_have_to_be_within_the_bounds(
    run_with, center, scale, refused
):
    units = make_normalizer(center, scale, states=11).to_record()
    run = run_with(action_bounds=None, normalizer=units)
    if not refused:
        assert load_run(run).spec.name == "hopper-demo"
        return
    message = "whose number 0 is between .*, in hopper-demo it is between -1 and 1; cho"
    with pytest.raises(UserError, match=message):
        load_run(run)


def test_targets_far_outside_the_training_data_are_a_warning(run_with):
    histogram = {"edges": [0.0, 500.0, 4090.0], "counts": [3, 4]}
    run = run_with(dataset={"return_histogram": histogram})
    load_run(run, changes={"target_returns": (12000.0, 100.0)})
    with pytest.warns(
        UserWarning, match=r"target_returns 1e\+06 are far outside .*4.09"
    ):
        load_run(run, changes={"target_returns": (1e6, 100.0)})


def test_a_value_that_its_key_does_not_accept_is_refused(run_with):
    with pytest.raises(UserError, match="eval_episodes=-1: expected"):
        load_run(run_with(), changes={"eval_episodes": -1})
