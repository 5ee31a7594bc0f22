import numpy as np
import pytest

from dt_jax import envs
from dt_jax.errors import UserError
from dt_jax.registry import all_specs

BUILT = {"halfcheetah", "hopper", "walker2d"}


@pytest.mark.parametrize("name", sorted(all_specs()))
def test_every_dataset_has_its_environment_or_one_clear_line(name):
    spec = all_specs()[name]
    if spec.family in BUILT:
        env = envs.make(spec, seeds=[0])
        sizes = (env.observation_size, env.action_size)
        assert sizes == (spec.observation_size, spec.action_size)
        return
    with pytest.raises(UserError) as error:
        envs.make(spec, seeds=[0])
    line = str(error.value)
    assert line.startswith(f"{name} cannot be evaluated: there is no {spec.family} ")
    assert "--config.eval_episodes=0" in line
    assert "\n" not in line


def test_episode_seeds_are_distinct_int32_and_stable():
    many = envs.episode_seeds(42, 1000)
    assert envs.episode_seeds(42, 10) == many[:10]
    assert len(set(many)) == 1000
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in many)
    assert not set(many) & set(envs.episode_seeds(43, 1000))
    assert not set(many) & set(envs.episode_seeds((42, 1), 1000))
    assert envs.episode_seeds(42, 0) == []


def test_a_seed_drawn_twice_is_used_once(monkeypatch):
    class Repeating:
        def __init__(self, seed):
            pass

        def generate_state(self, n):
            return np.array([2, 4, 2, 4, 6, 8, 2, 10], np.uint32)[:n]

    monkeypatch.setattr(np.random, "SeedSequence", Repeating)
    assert envs.episode_seeds(0, 4) == [1, 2, 3, 4]
    assert envs.episode_seeds(0, 2) == [1, 2]
