"""What holds for every engine: shapes, seeds, threads, time limits, actions."""

import numpy as np
import pytest
from playing import play

from dt_jax import envs
from dt_jax.data.registry import all_specs, lookup
from dt_jax.utils.errors import UserError

SPECS = {spec.environment: spec for spec in all_specs().values()}


def random_actions(steps, n, size):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (steps, n, size)).astype(np.float32)


@pytest.mark.parametrize("name", SPECS)
def test_environment_has_the_sizes_and_limit_of_its_datasets(name):
    spec = SPECS[name]
    env = envs.make(spec, seeds=[3, 5])
    sizes = env.observation_size, env.action_size
    assert sizes == (spec.observation_size, spec.action_size)
    assert env.max_episode_steps == spec.max_episode_steps
    observations = env.host_reset()
    assert observations.shape == (2, spec.observation_size)
    step = env.host_step(np.zeros((2, spec.action_size)))
    assert step.observations.shape == (2, spec.observation_size)
    assert step.rewards.shape == step.done.shape == (2,)
    dtypes = observations.dtype, step.observations.dtype, step.rewards.dtype
    assert set(dtypes) == {np.dtype(np.float32)}
    assert step.done.dtype == bool


ENGINES = pytest.mark.parametrize(
    "name",
    ["hopper", "pen", "door", "hammer", "relocate", "maze2d-umaze", "antmaze-medium"],
)


def make(name, seeds, limit=1000, **options):
    spec = SPECS[name]
    return envs.ENGINES[spec.engine](spec.env_id, seeds, limit, **options)


@ENGINES
def test_results_depend_only_on_the_seeds_and_actions(name):
    """Not on threads, other episodes or earlier ones."""
    seeds, actions = [7, 8, 7, 9, 10], random_actions(20, 5, SPECS[name].action_size)
    actions[:, 2] = actions[:, 0]
    one = make(name, seeds, num_threads=1)
    first = play(one, actions)
    for env in (one, make(name, seeds, num_threads=3)):
        for got, want in zip(play(env, actions), first, strict=True):
            np.testing.assert_array_equal(got, want)
    single = play(make(name, [9]), actions[:, 3:4])
    np.testing.assert_array_equal(single[0][:, 0], first[0][:, 3])
    np.testing.assert_array_equal(first[0][:, 0], first[0][:, 2])
    assert (first[0][0, 0] != first[0][0, 1]).any()


@ENGINES
def test_actions_are_clipped_and_nan_is_refused(name):
    actions = 3 * random_actions(10, 2, SPECS[name].action_size)
    env = make(name, [0, 1])
    wild, clipped = play(env, actions), play(env, np.clip(actions, -1, 1))
    np.testing.assert_array_equal(wild[0], clipped[0])
    actions[4, 1, 0] = np.nan
    with pytest.raises(UserError, match="was given a NaN action in episode 1 of 2"):
        play(env, actions)


@pytest.mark.parametrize(
    "name", ["halfcheetah", "door", "maze2d-umaze", "antmaze-umaze"]
)
def test_time_limit_ends_an_episode_and_later_actions_are_ignored(name):
    env = make(name, [0, 1], limit=4)
    still = np.zeros((4, 2, SPECS[name].action_size))
    done = play(env, still)[2]
    np.testing.assert_array_equal(done[:, 0], [False, False, False, True])
    env.host_step(np.full_like(still[0], np.nan))


# Mean return ± standard error of a uniformly random policy, 64 to 256 episodes of
# another implementation. D4RL's ref_min is such a mean, of halfcheetah -280.2.
@pytest.mark.parametrize(
    ("name", "mean", "error"),
    [
        ("hopper-demo", 18.56, 1.16),
        pytest.param("halfcheetah-demo", -288.1, 5.1, marks=pytest.mark.slow),
        ("walker2d-demo", 3.33, 0.42),
        ("pen-human-v1", 66.8, 28),
        pytest.param("door-human-v1", -56.52, 0.08, marks=pytest.mark.slow),
        pytest.param("hammer-human-v1", -274.6, 0.7, marks=pytest.mark.slow),
        pytest.param("relocate-human-v1", -7.6, 0.5, marks=pytest.mark.slow),
        ("maze2d-umaze-v1", 29.4, None),
        ("maze2d-medium-v1", 14.9, None),
        ("maze2d-large-v1", 12.0, None),
        ("antmaze-umaze-v2", 0, 0),
    ],
)
def test_random_policy_has_the_reference_return(name, mean, error):
    n = {"locomotion": 96, "adroit": 24, "maze2d": 100, "antmaze": 4}[
        lookup(name).engine
    ]
    env = envs.make(lookup(name), envs.episode_seeds(0, n))
    rng = np.random.default_rng(1)
    env.host_reset()
    running, returns = np.ones(n, bool), np.zeros(n)
    while running.any():
        _, rewards, done = env.host_step(rng.uniform(-1, 1, (n, env.action_size)))
        returns += running * rewards
        running &= ~done
    own_error = returns.std() / np.sqrt(n)
    error = own_error if error is None else error  # about the same
    assert abs(returns.mean() - mean) <= 4 * np.hypot(error, own_error)


def test_episode_seeds_are_distinct_int32_and_stable():
    many = envs.episode_seeds(42, 1000)
    assert envs.episode_seeds(42, 10) == many[:10]
    assert len(set(many)) == 1000
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in many)
    assert not set(many) & set(envs.episode_seeds(43, 1000))
    assert not set(many) & set(envs.episode_seeds((42, 1), 1000))
    assert envs.episode_seeds(42, 0) == []


def test_repeated_draws_are_skipped(monkeypatch):
    class Repeating:
        def __init__(self, seed):
            pass

        def generate_state(self, n):
            return np.array([2, 4, 2, 4, 6, 8, 2, 10], np.uint32)[:n]

    monkeypatch.setattr(np.random, "SeedSequence", Repeating)
    assert envs.episode_seeds(0, 4) == [1, 2, 3, 4]
    assert envs.episode_seeds(0, 2) == [1, 2]
