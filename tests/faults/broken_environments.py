"""User environments with one fault each, by the name "broken_environments:X-v0".

They have hopper's sizes, so that its data can be used.
"""

import os
import sys
import tempfile

import gymnasium
import numpy as np

FAULTY_STEP = 7  # after so many steps, faults in the middle of an episode occur


class Working(gymnasium.Env):
    """Without a fault; an episode has 20 steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (11,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(11, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(11, np.float32), 1.0, False, False, {}


class RaisesInConstructor(Working):
    def __init__(self):
        raise RuntimeError("the licence\nhas expired")


class ExitsInConstructor(Working):
    def __init__(self):
        raise SystemExit(0)


class RaisesAtReset(Working):
    def reset(self, *, seed=None, options=None):
        raise RuntimeError("the simulator\nis not running")


class RaisesInStep(Working):
    def step(self, action):
        if self.time == FAULTY_STEP:
            raise ZeroDivisionError("division by zero")
        return super().step(action)


class ExitsInStep(Working):
    def step(self, action):
        if self.time == FAULTY_STEP:
            raise SystemExit(0)
        return super().step(action)


class NanObservation(Working):
    def step(self, action):
        observation, *rest = super().step(action)
        observation[4] = np.nan if self.time > FAULTY_STEP else 0
        return observation, *rest


class InfiniteFirstObservation(Working):
    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return observation + np.inf, info


class NanReward(Working):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, np.nan if self.time > FAULTY_STEP else reward, *rest


class NoneReward(Working):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, None, *rest


class ShortObservation(Working):
    """One number, which NumPy would broadcast to all eleven."""

    def step(self, action):
        _, *rest = super().step(action)
        return np.zeros(1, np.float32), *rest


class LongFirstObservation(Working):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((11, 1), np.float32), {}


class FourValues(Working):
    """The API of gym before 0.26."""

    def step(self, action):
        observation, reward, ended, _, info = super().step(action)
        return observation, reward, ended, info


class RaisesKeyboardInterruptAtReset(Working):
    def reset(self, *, seed=None, options=None):
        raise KeyboardInterrupt


class RaisesKeyboardInterrupt(Working):
    def step(self, action):
        raise KeyboardInterrupt("the window was closed")


class ClosesStdout(Working):
    def step(self, action):
        sys.stdout.close()
        return super().step(action)


class ChangesFolder(Working):
    """In the constructor, at a reset and in a step, to three folders."""

    def __init__(self):
        os.chdir(tempfile.mkdtemp())

    def reset(self, *, seed=None, options=None):
        os.chdir(tempfile.mkdtemp())
        return super().reset(seed=seed)

    def step(self, action):
        os.chdir(tempfile.gettempdir())
        return super().step(action)


class TextAsEnd(Working):
    def step(self, action):
        observation, reward, _, *rest = super().step(action)
        return observation, reward, "False", *rest


class TextAsReward(Working):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, "1.5", *rest


class TextAsObservation(Working):
    def step(self, action):
        observation, *rest = super().step(action)
        return observation.astype(str), *rest


class NoSpaces(gymnasium.Env):
    pass


class RaisesInClose(Working):
    def close(self):
        raise RuntimeError("closed already")


for kind in list(globals().values()):
    if isinstance(kind, type) and issubclass(kind, gymnasium.Env):
        gymnasium.register(f"{kind.__name__}-v0", kind, max_episode_steps=20)
