"""Datasets recorded with Minari's DataCollector in real environments."""

import warnings

import gymnasium
import gymnasium_robotics
import minari
import numpy as np

gymnasium.register_envs(gymnasium_robotics)


def smooth(space, rng):
    """Yield random actions, each close to the previous one."""
    if not isinstance(space, gymnasium.spaces.Box):
        yield from iter(space.sample, None)
    action = np.zeros(space.shape)
    while True:
        action = 0.95 * action + 0.2 * rng.standard_normal(space.shape)
        yield np.clip(action, space.low, space.high).astype(space.dtype)


def record(env, dataset_id, steps, *, collector=None, **metadata):
    """Record an episode for each number in `steps`, its maximum length.

    `collector` holds arguments of Minari's collector. Returns a list of observations
    [T + 1, ...] and one of rewards [T] for each episode.
    """
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about versions and missing metadata
        env = gymnasium.make(env) if isinstance(env, str) else env
        recorded = minari.DataCollector(env, **(collector or {}))
        for seed, length in enumerate(steps):
            observation, _ = recorded.reset(seed=seed)
            observations, rewards = [observation], []
            actions = smooth(env.action_space, np.random.default_rng(seed))
            for _, action in zip(range(length), actions, strict=False):
                observation, reward, *ended, _ = recorded.step(action)
                observations.append(observation)
                rewards.append(float(reward))
                if any(ended):
                    break
            seen.append((observations, rewards))
        recorded.create_dataset(dataset_id, **metadata)
        env.close()
        recorded._tmp_dir.cleanup()  # the collector's close() does not
    return seen
