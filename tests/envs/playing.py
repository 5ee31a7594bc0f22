"""What the tests of every engine do with it."""

import numpy as np


def play(env, actions):
    """Step on the host: observations [T + 1, N, S], rewards and done [T, N]."""
    first = env.host_reset()
    steps = [env.host_step(a) for a in actions]
    observations, rewards, done = map(np.stack, zip(*steps, strict=True))
    return np.concatenate([first[None], observations]), rewards, done
