"""Behaviour cloning, and which trajectories it is trained on."""

import jax
import numpy as np
import pytest

from dt_jax.agents.bc import BehaviourCloning
from dt_jax.agents.contract import check_agent
from dt_jax.config import default_config, validate
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.trajectories import Trajectories
from dt_jax.types import Batch
from dt_jax.utils.errors import UserError

RETURNS = np.array([3, 1, 9, 4, 9, 2, 7, 5, 6, 0], np.float32)


@pytest.fixture
def trajectories(raw):
    """Ten trajectories of two steps, with RETURNS."""
    rows = 2 * len(RETURNS)
    raw = raw._replace(
        observations=raw.observations[:rows],
        actions=raw.actions[:rows],
        rewards=np.repeat(RETURNS / 2, 2),
        terminals=np.arange(rows) % 2 == 1,
        timeouts=np.zeros(rows, bool),
    )
    return Trajectories.from_raw(raw, source="x")


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (1.0, RETURNS),
        (0.29, [9, 9]),  # 2.9 trajectories: rounded down, in the order of the data
        (0.5, [9, 9, 7, 5, 6]),
        (0.1, [9]),  # of equal ones the first
        (0.001, [9]),
    ],
)
def test_top_fraction_keeps_the_trajectories_of_the_highest_returns(
    trajectories, capsys, fraction, expected
):
    config = default_config("bc", top_fraction=fraction)
    kept = BehaviourCloning.select(config, trajectories)
    np.testing.assert_array_equal(kept.episode_returns, expected)
    assert kept.observations is trajectories.observations
    line = capsys.readouterr().out
    if fraction == 1:
        assert line == ""
    else:
        assert f"{len(expected)} of 10 trajectories" in line
        assert line.endswith(f"returns from {min(expected)} to 9\n")
    if fraction == 0.1:
        assert kept.starts.tolist() == [4]


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_another_top_fraction_is_refused(fraction):
    config = default_config("bc", top_fraction=fraction)
    with pytest.raises(UserError, match="expected a number above 0 and at most 1"):
        validate(config)


def make_agent(**changes):
    config = default_config("bc", hidden_dim=16, **changes)
    units = Normalizer(
        np.full(3, 2, np.float32),
        np.full(3, 5, np.float32),
        np.full(2, 1, np.float32),
        np.full(2, 3, np.float32),
    )
    return BehaviourCloning.from_config(config, units)


def test_it_keeps_the_contract():
    check_agent("bc", make_agent())


def test_it_learns_a_function_of_the_state():
    agent = make_agent(
        learning_rate=1e-2, warmup_steps=1, clip_grad=None, update_steps=600
    )
    rng = np.random.default_rng(0)
    states = rng.normal(size=(256, 1, 3)).astype(np.float32)
    actions = 0.8 * np.tanh(states[..., :2] - states[..., 2:])
    batch = Batch(states=states, actions=actions, mask=np.ones((256, 1), np.float32))

    @jax.jit
    def train(state):
        def update(_, state):
            return agent.update(state, batch)[0]

        return jax.lax.fori_loop(0, 600, update, state)

    state = train(jax.jit(agent.init)(jax.random.key(0)))
    errors = agent.validation_loss(state.params, batch)
    assert errors.mean() < 0.03 * np.var(actions)
    observations = 5 * states[:, 0] + 2  # raw
    _, acted = agent.act(state.params, (), observations, None, None)
    in_units = (np.asarray(acted) - 1) / 3
    np.testing.assert_allclose(
        np.square(in_units - actions[:, 0]), errors[:, 0], atol=1e-4
    )
