"""Environments as users write them, each with one thing wrong: "broken_environments:X".

They are of hopper's sizes, so that its data fits them.
"""

import gymnasium
import numpy as np

SIZES = {"observation": 11, "action": 3}
WHEN = 7  # steps, after which those that break in the middle of an episode do


class Sound(gymnasium.Env):
    """Nothing is wrong with this one; episodes last for 20 steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (11,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(11, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(11, np.float32), 1.0, False, False, {}


class RaisesWhenBuilt(Sound):
    def __init__(self):
        raise RuntimeError("the licence\nhas expired")


class LeavesWhenBuilt(Sound):
    def __init__(self):
        raise SystemExit(0)


class RaisesAtReset(Sound):
    def reset(self, *, seed=None, options=None):
        raise RuntimeError("the simulator\nis not running")


class RaisesInTheMiddle(Sound):
    def step(self, action):
        if self.time == WHEN:
            raise ZeroDivisionError("division by zero")
        return super().step(action)


class LeavesInTheMiddle(Sound):
    def step(self, action):
        if self.time == WHEN:
            raise SystemExit(0)
        return super().step(action)


class ObservesNaN(Sound):
    def step(self, action):
        observation, *rest = super().step(action)
        observation[4] = np.nan if self.time > WHEN else 0
        return observation, *rest


class ObservesInfinityAtFirst(Sound):
    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return observation + np.inf, info


class RewardsNaN(Sound):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, np.nan if self.time > WHEN else reward, *rest


class RewardsNothing(Sound):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, None, *rest


class ObservesLess(Sound):
    """One number, which NumPy would spread over all eleven."""

    def step(self, action):
        _, *rest = super().step(action)
        return np.zeros(1, np.float32), *rest


class StartsWithMore(Sound):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((11, 1), np.float32), {}


class ReturnsFour(Sound):
    """As gym's did before version 0.26."""

    def step(self, action):
        observation, reward, ended, _, info = super().step(action)
        return observation, reward, ended, info


class ObservesImages(Sound):
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)


class ChoosesOneOfFour(Sound):
    action_space = gymnasium.spaces.Discrete(4)


class ActsWithoutBounds(Sound):
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)


class HasNoSpaces(gymnasium.Env):
    pass


class IsOfOtherSizes(Sound):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)


class FailsWhenClosed(Sound):
    def close(self):
        raise RuntimeError("closed already")


for kind in list(globals().values()):
    if isinstance(kind, type) and issubclass(kind, gymnasium.Env):
        gymnasium.register(f"{kind.__name__}-v0", kind, max_episode_steps=20)
