"""Environments that render themselves: Gymnasium's, Minari's and EnvPool's."""

import ctypes
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import cast

import envpool
import numpy as np

from dt_jax import envs
from dt_jax.data.registry import EnvSpec
from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.envs.gymnasium_env import GymnasiumEnv
from dt_jax.utils.errors import UserError
from dt_jax.video import offscreen
from dt_jax.video.view import Size, View

_DEFAULT_FPS = 30  # steps per second if the environment does not define it


class GymnasiumView(View):
    """A Gymnasium environment with the render mode rgb_array."""

    def __init__(self, spec: EnvSpec, seed: int, size: Size):
        """Build the environment; it chooses the size of its frames itself."""
        engine = cast(type[GymnasiumEnv], envs.ENGINES[spec.engine])
        arguments = spec.env_id, [seed], spec.max_episode_steps
        with closing(engine(*arguments, **spec.kwargs)) as plain:
            metadata = plain.envs[0].metadata
            has_mujoco = hasattr(plain.envs[0].unwrapped, "mujoco_renderer")
        if "rgb_array" not in metadata.get("render_modes", ()):
            raise UserError(
                f"{spec.name} cannot be rendered: its metadata has no render mode "
                "rgb_array; choose another environment"
            )
        self.step_seconds = 1 / (metadata.get("render_fps") or _DEFAULT_FPS)
        if has_mujoco:
            offscreen.backend()  # sets MUJOCO_GL, which Gymnasium's renderer reads
        env = engine(*arguments, **spec.kwargs | {"render_mode": "rgb_array"})
        self.env, self._env, self._name = env, env.envs[0], spec.name

    def render(self, observation: np.ndarray) -> np.ndarray:
        """Return a frame in the environment's own size."""
        try:
            return np.asarray(self._env.render(), np.uint8)
        except Exception as error:  # a missing package raises anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(f"{self._name} cannot be rendered: {reason}") from error


# Without a rendering backend, EnvPool's MuJoCo aborts the process.
_PROBE = """
import ctypes, envpool, mujoco
for path in {libraries!r}:
    ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
pool = envpool.make_gymnasium({name!r}, num_envs=1, seed=0, render_mode="rgb_array")
pool.reset()
pool.render()
"""


@cache
def _load_envpool_egl(name: str) -> None:
    """Load EnvPool's rendering libraries; raise a UserError if they do not work."""
    # EnvPool's MuJoCo looks up the EGL of its wheel among the global symbols.
    wheel = Path(envpool.__file__).parent.parent / "envpool.libs"
    libraries = [str(path) for path in wheel.glob("libEGL*")]
    if not offscreen.runs(_PROBE.format(libraries=libraries, name=name)):
        raise UserError(
            f"EnvPool cannot render {name} here; its MuJoCo bodies need EGL (Debian: "
            f"apt-get install {offscreen.PACKAGES['egl']}) and MUJOCO_GL must be unset"
        )
    for path in libraries:
        ctypes.CDLL(path, ctypes.RTLD_GLOBAL)


class EnvPoolView(View):
    """An EnvPool environment outside D4RL."""

    env: EnvPoolEnv
    step_seconds = 1 / _DEFAULT_FPS

    def __init__(self, spec: EnvSpec, seed: int, size: Size):
        _load_envpool_egl(spec.env_id)
        self.env = EnvPoolEnv(
            spec.env_id,
            [seed],
            spec.max_episode_steps,
            render_mode="rgb_array",
            render_width=size[0],
            render_height=size[1],
        )

    def render(self, observation: np.ndarray) -> np.ndarray:
        """Return EnvPool's own frame."""
        return np.asarray(self.env.pool.render())[0]
