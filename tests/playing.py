"""Stepping an environment through given actions."""

import numpy as np


def play(env, actions):
    """Step through actions [T, N, A]; return observations, rewards and done.

    Their shapes are [T + 1, N, S], [T, N] and [T, N].
    """
    first = env.host_reset()
    steps = [env.host_step(a) for a in actions]
    observations, rewards, done = map(np.stack, zip(*steps, strict=True))
    return np.concatenate([first[None], observations]), rewards, done
