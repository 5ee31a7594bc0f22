import numpy as np

from dt_jax import envs
from dt_jax.data.registry import all_specs


def test_every_dataset_has_an_environment_of_its_sizes():
    checked = set()
    for spec in all_specs().values():
        # Once per environment: building takes about a second.
        if spec.environment not in checked:
            env = envs.make(spec, seeds=[0])
            sizes = (env.observation_size, env.action_size)
            assert sizes == (spec.observation_size, spec.action_size)
            assert env.max_episode_steps == spec.max_episode_steps
            assert env.host_reset().shape == (1, spec.observation_size)
            checked.add(spec.environment)
    assert len(checked) == 3 + 4 + 2 * 3


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
