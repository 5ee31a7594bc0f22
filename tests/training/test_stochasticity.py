"""The decisive test of luck: what only labels without it teach.

In gambling the first action decides: its three choices return -5, -2.5 and 1 on
average, the first one 5 or -15 (dt_jax/envs/tabular.py). The return that a policy
achieves is computed exactly, from its probabilities of the first action. Targets beyond
the labels are not tested: there is no data about them.
"""

import h5py
import jax
import numpy as np
import pytest

from dt_jax.config.load import CONFIGS, load_config
from dt_jax.datasets.demo import collect_demo
from dt_jax.evaluation.policy import load_agent
from dt_jax.training.train import train

VALUES = np.array([-5, -2.5, 1])
SEEDS = 5


@pytest.fixture(scope="module")
def gambling(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "gambling.hdf5"
    collect_demo("gambling-demo", path, steps=40_000)
    return path


@pytest.fixture
def achieved(gambling, tmp_path):
    """Return a function that trains, and returns the labels and a function.

    Labels are by their first action, [seeds, episodes] each. The function maps target
    returns [K] or [seeds, K] to achieved returns [seeds, K].
    """

    def run(config_file, **changes):
        config = load_config(
            str(CONFIGS / config_file),
            data_path=str(gambling),
            eval_episodes=0,
            holdout_fraction=0.0,
            checkpoint_every=10_000,
            log_every=100,
            steps_per_dispatch=100,
            **{"num_seeds": SEEDS} | changes,
        )
        train(config, tmp_path)
        trained = load_agent(tmp_path, "last")
        with h5py.File(gambling) as file:
            first = file["actions"][::2].argmax(axis=1)
        path, labels = tmp_path / "labels" / "labels.npz", None
        if path.exists():
            values = np.load(path)["values"][:, ::2]
            labels = [values[:, first == action] for action in range(3)]
        params = [trained.seed_params(10 + i) for i in range(config.num_seeds)]

        def returns(targets):
            targets = np.broadcast_to(targets, (len(params), np.shape(targets)[-1]))
            return np.stack(
                [
                    first_action_probabilities(trained.agent, *each) @ VALUES
                    for each in zip(params, targets, strict=True)
                ]
            )

        return labels, returns

    return run


def first_action_probabilities(agent, params, targets):
    """Return the probabilities of the first action at each target, [K, A]."""
    units, k = agent.normalizer, len(targets)
    start = units.normalize_states(np.eye(1, agent.observation_size, dtype=np.float32))
    logits = agent.model.apply(
        {"params": params},
        states=np.tile(start, (k, 1, 1)),
        actions=np.zeros((k, 1, agent.action_size), np.float32),
        returns_to_go=np.float32(targets)[:, None] * np.float32(units.reward_scale),
        timesteps=np.zeros((k, 1), np.int32),
    )
    return np.asarray(jax.nn.softmax(logits[:, 0]))


def assert_skill(labels, returns):
    """Assert that the largest label is achieved; return what the three choices are.

    Asked for the mean label of each, [seeds, 3].
    """
    largest = np.max([each.max(axis=1) for each in labels], axis=0)
    assert (returns(largest[:, None]) >= 0.9).all()
    means = np.stack([each.mean(axis=1) for each in labels], axis=1)
    return returns(means)


@pytest.mark.slow
def test_a_decision_transformer_asked_for_5_gets_minus_5(achieved):
    _, returns = achieved("gambling.py", update_steps=600, warmup_steps=60)
    assert (returns([5.0]) <= -4).all()


@pytest.mark.slow
def test_expected_returns_are_achieved_by_whom_asks_for_them(achieved):
    labels, returns = achieved(
        "esper/gambling.py",
        labels="expected",
        return_updates=600,
        return_batch_size=512,
        update_steps=1_200,
    )
    for each, value in zip(labels, VALUES, strict=True):
        np.testing.assert_allclose(each.mean(axis=1), value, atol=0.75)
        assert (each.std(axis=1) < 0.01).all()  # one state, one action, one label
    np.testing.assert_allclose(returns(VALUES), [VALUES] * SEEDS, atol=0.75)
    assert_skill(labels, returns)


@pytest.mark.slow
def test_esper_asked_for_its_largest_label_returns_1(achieved):
    """Asked for the mean label of another choice, it makes that choice.

    Labels of the choices with luck are noisy: their means are less than 2 from the
    truth, as those of the reference.
    """
    labels, returns = achieved(
        "esper/gambling.py",
        cluster_updates=800,
        return_updates=200,
        update_steps=800,
    )
    for each, value in zip(labels, VALUES, strict=True):
        np.testing.assert_allclose(each.mean(axis=1), value, atol=2)
    np.testing.assert_allclose(assert_skill(labels, returns), [VALUES] * SEEDS, atol=1)


@pytest.mark.slow
def test_esper_of_the_papers_sizes_returns_1(achieved):
    labels, returns = achieved("esper/gambling.py:paper", num_seeds=1)
    np.testing.assert_allclose(assert_skill(labels, returns), [VALUES], atol=1)
