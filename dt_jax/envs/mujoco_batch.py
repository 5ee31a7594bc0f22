"""Many copies of one MuJoCo model, stepped together on all cores."""

import os
from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path

try:
    import mujoco
except Exception:  # MUJOCO_GL names a renderer that does not work; only videos need it
    if "MUJOCO_GL" not in os.environ:
        raise
    renderer = os.environ.pop("MUJOCO_GL")
    import mujoco

    os.environ["MUJOCO_GL"] = renderer
import numpy as np
from mujoco.rollout import Rollout

from dt_jax.envs.base import usable_cores
from dt_jax.utils.errors import UserError

# Without this MuJoCo writes MUJOCO_LOG.TXT to the working directory;
# `MujocoBatch.step` reports the problem instead.
mujoco.set_mju_user_warning(lambda message: None)


class MujocoBatch:
    """N independent copies of one MuJoCo model.

    A step is a pure function of position, velocity and control: the constraint solver
    starts cold at each step, so that results are bitwise independent of the number of
    threads, of the other copies and of earlier steps.

    `mujoco.rollout` is as fast as threads over mj_step (benchmarks/stepping.py) and
    needs no MjData per copy.

    Args:
      model: without actuator activations, mocap bodies or plugins.
      num: N.
      substeps: the number of simulation steps in one step here.
      num_threads: by default the usable cores.

    Attributes:
      rest: [nq], the model's reference position.
      qpos: [N, nq] float64, the positions; initially `rest`. May be set.
      qvel: [N, nv] float64, the velocities; initially 0. May be set.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num: int,
        substeps: int,
        num_threads: int | None = None,
    ):
        threads = min(num_threads or usable_cores(), num)
        # Otherwise MuJoCo resets a copy whose simulation diverges.
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

    def step(self, controls: np.ndarray, moving: np.ndarray | None = None) -> None:
        """Advance the copies by one step.

        Args:
          controls: [N, nu].
          moving: [N] bool, the copies to step; by default all.

        Raises:
          UserError: the simulation diverges.
        """
        which = np.arange(len(self.qpos)) if moving is None else np.flatnonzero(moving)
        if not len(which):
            return
        # MuJoCo's full physics state: time, which has no effect here, qpos and qvel.
        time = np.zeros((len(which), 1))
        states = np.concatenate([time, self.qpos[which], self.qvel[which]], axis=1)
        repeated = np.repeat(controls[which, None], self._substeps, axis=1)
        after, _ = self._rollout.rollout(self._model, self._scratch, states, repeated)
        if not (np.abs(after[:, -1]) < mujoco.mjMAXVAL).all():
            raise UserError("MuJoCo's simulation has become unstable: it diverged")
        nq = self._model.nq
        self.qpos[which] = after[:, -1, 1 : 1 + nq]
        self.qvel[which] = after[:, -1, 1 + nq :]


def gymnasium_xml(name: str) -> AbstractContextManager[Path]:
    """Return the path of one of Gymnasium's MuJoCo models, "ant.xml"."""
    # files("gymnasium.envs.mujoco") would import that package with its renderer.
    return as_file(files("gymnasium") / "envs" / "mujoco" / "assets" / name)
