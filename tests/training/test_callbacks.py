"""Callbacks of `train`: they see every row of metrics and may stop the run."""

import pytest
from helpers import assert_same_run, assert_same_training, changed, steps_of

from dt_jax.runs.metrics import read_metrics
from dt_jax.training.train import train


def stop_at(stop_step):
    """Return a callback that stops the run at a step, and the steps it has seen."""
    steps = []

    def callback(step, row, stop):
        steps.append(step)
        if step == stop_step:
            stop()

    return callback, steps


def test_each_callback_gets_every_row_in_order(small_config, tmp_path):
    rows, steps = [], []
    train(
        small_config,
        tmp_path,
        callbacks=[
            lambda step, row, stop: rows.append({"step": step, **row}),
            lambda step, row, stop: steps.append(step),
        ],
    )
    assert rows == read_metrics(tmp_path / "metrics.jsonl")
    assert steps == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("stop_step", "episodes", "seen", "saved"),
    [
        # There is nothing to save yet.
        pytest.param(0, 2, [0], [], marks=pytest.mark.slow),
        (2, 0, [2], [2]),  # no checkpoint is due
        (4, 2, [0, 2, 4], [3, 4]),  # an evaluation and a checkpoint are due
    ],
)
def test_a_stopped_run_resumes_to_the_same_bits(
    finished, small_config, tmp_path, stop_step, episodes, seen, saved
):
    config = changed(small_config, eval_episodes=episodes)
    callback, steps = stop_at(stop_step)
    run = train(config, tmp_path / "run", callbacks=[callback])
    assert (run.step, run.stopped) == (stop_step, True)
    assert steps == seen
    assert steps_of(tmp_path / "run") == saved
    assert not (tmp_path / "run" / "summary.png").exists()

    run = train(config, tmp_path / "run")
    assert (run.step, run.stopped) == (8, False)
    same = assert_same_run if episodes else assert_same_training
    same(tmp_path / "run", finished)


def test_a_stop_at_the_last_step_leaves_a_complete_run(small_config, tmp_path):
    config = changed(small_config, eval_episodes=0)
    callback, _ = stop_at(8)
    run = train(config, tmp_path, callbacks=[callback])
    assert (run.step, run.stopped) == (8, False)
    assert (tmp_path / "summary.png").exists()


def test_an_exception_of_a_callback_ends_the_run_and_reaches_the_caller(
    finished, small_config, tmp_path
):
    """The run resumes from its last checkpoint."""

    def failing(step, row, stop):
        if step == 6:
            raise ValueError("from the callback")

    config = changed(small_config, eval_episodes=0)
    with pytest.raises(ValueError, match="from the callback"):
        train(config, tmp_path / "run", callbacks=[failing])
    assert steps_of(tmp_path / "run")[-1] == 3
    train(config, tmp_path / "run")
    assert_same_training(tmp_path / "run", finished)
