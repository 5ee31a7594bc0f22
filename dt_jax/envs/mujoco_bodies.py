"""Many copies of one MuJoCo model, stepped together on all cores."""

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path

import mujoco
import numpy as np
from mujoco.rollout import Rollout

from dt_jax.envs.base import usable_cores
from dt_jax.utils.errors import UserError

# Or it would write MUJOCO_LOG.TXT into the working folder; `Bodies.step` tells it.
mujoco.set_mju_user_warning(lambda message: None)


class Bodies:
    """N copies of one MuJoCo model.

    A step is a function of position, velocity and control alone: the constraint solver
    starts cold at each, so neither threads, nor other copies, nor what went before make
    a difference to a bit of it.

    `mujoco.rollout` is as fast as threads over mj_step (benchmarks/stepping.py), and
    needs no MjData for each copy.

    Attributes:
      rest: [nq], the model's reference position.
      qpos: [N, nq] float64, the positions; set them to put the bodies elsewhere.
      qvel: [N, nv] float64, the velocities.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num: int,
        substeps: int,
        num_threads: int | None = None,
    ):
        """Set up N bodies in the reference position, without velocity.

        Args:
          model: without actuator activations, mocap bodies or plugins.
          num: N.
          substeps: simulation steps of `model` in one step here.
          num_threads: the usable cores where not given.
        """
        threads = min(num_threads or usable_cores(), num)
        # Or MuJoCo would put a body whose numbers explode back to where it began.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self.rest = model.qpos0.copy()
        self.qpos = np.tile(self.rest, (num, 1))
        self.qvel = np.zeros((num, model.nv))
        self._model, self._substeps = model, substeps
        self._scratch = [mujoco.MjData(model) for _ in range(threads)]
        self._rollout = Rollout(nthread=threads if threads > 1 else 0)

    @property
    def observations(self) -> np.ndarray:
        """Positions, then velocities, [N, nq + nv] float64."""
        return np.concatenate([self.qpos, self.qvel], axis=1)

    @property
    def state_sizes(self) -> tuple[int, int]:
        """How many numbers a position and a velocity have, nq and nv."""
        return self._model.nq, self._model.nv

    def step(self, controls: np.ndarray, moving: np.ndarray | None = None) -> None:
        """Advance the bodies.

        Args:
          controls: [N, nu].
          moving: [N] bool, which ones; the others stay as they are. All, by default.

        Raises:
          UserError: positions or velocities have exploded.
        """
        who = np.arange(len(self.qpos)) if moving is None else np.flatnonzero(moving)
        if not len(who):
            return
        # MuJoCo's full physics state: time, which nothing here depends on, and these.
        time = np.zeros((len(who), 1))
        states = np.concatenate([time, self.qpos[who], self.qvel[who]], axis=1)
        held = np.repeat(controls[who, None], self._substeps, axis=1)
        after, _ = self._rollout.rollout(self._model, self._scratch, states, held)
        if not (np.abs(after[:, -1]) < mujoco.mjMAXVAL).all():
            raise UserError("MuJoCo's simulation has become unstable: numbers exploded")
        nq = self._model.nq
        self.qpos[who] = after[:, -1, 1 : 1 + nq]
        self.qvel[who] = after[:, -1, 1 + nq :]


def gymnasium_xml(name: str) -> AbstractContextManager[Path]:
    """Return where Gymnasium keeps the model of a body, "ant.xml"."""
    # Not files("gymnasium.envs.mujoco"): that imports it, and all it renders with.
    return as_file(files("gymnasium") / "envs" / "mujoco" / "assets" / name)
