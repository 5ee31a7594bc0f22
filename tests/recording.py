"""Datasets that Minari's own DataCollector records in real environments."""

import warnings

import gymnasium
import minari
import numpy as np


def record(env, dataset_id, steps, act=None, **metadata):
    """Record one episode for each number in `steps`, cut there if it still runs.

    `act` takes the observation and the random generator; without it, actions are
    uniform in their space. Returns the observations [T + 1, ...] of each episode as the
    environment gave them, and its rewards [T].
    """
    seen = []
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about versions, and metadata that is missing
        if isinstance(env, str):
            env = gymnasium.make(env)
        collector = minari.DataCollector(env)
        for seed, length in enumerate(steps):
            observation, _ = collector.reset(seed=seed)
            observations, rewards = [observation], []
            for _ in range(length):
                if act is None:
                    space = env.action_space
                    action = rng.uniform(space.low, space.high)
                else:
                    action = act(observation, rng)
                action = action.astype(env.action_space.dtype)
                observation, reward, *ended, _ = collector.step(action)
                observations.append(observation)
                rewards.append(reward)
                if any(ended):
                    break
            seen.append((observations, np.array(rewards)))
        collector.create_dataset(dataset_id, **metadata)
        collector.close()
    return seen
