"""MuJoCo models drawn without a screen, by EGL or else by OSMesa."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

import mujoco
import numpy as np

from dt_jax.utils.errors import UserError

# What MuJoCo can draw with on Linux, the first that works, and the Debian packages.
LIBRARIES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}
_ELSEWHERE = {"darwin": ["cgl"], "win32": ["glfw"]}

# All that `Picture` asks of a library. Where one is missing, some end the process.
_PROBE = """
import mujoco
from mujoco.{0} import GLContext
context = GLContext(8, 8)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco/>")
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100).free()
"""


@cache
def backend() -> str:
    """Return what draws here, "egl" or "osmesa"; or what MUJOCO_GL names.

    From then on MUJOCO_GL names it to others that draw in this process.

    Raises:
      UserError: nothing of that works.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    here = _ELSEWHERE.get(sys.platform, [*LIBRARIES])
    for name in [asked] if asked else here:
        # PyOpenGL settles on the first library that a process names.
        environment = {**os.environ, "MUJOCO_GL": name}
        if not runs(_PROBE.format(name), environment):
            continue
        os.environ["MUJOCO_GL"] = name
        return name
    if asked:
        needs = LIBRARIES.get(asked)
        hint = f", or on Debian: apt-get install {needs}" if needs else ""
        raise UserError(f"MUJOCO_GL={asked} draws nothing here: unset it{hint}")
    raise UserError(
        "nothing here draws without a screen, neither EGL nor OSMesa; on Debian: "
        f"apt-get install {LIBRARIES['egl']}, or {LIBRARIES['osmesa']}"
    )


def runs(code: str, environment: dict[str, str] | None = None) -> bool:
    """Tell whether a Python process of its own gets through `code`."""
    with TemporaryDirectory() as folder:  # one that fails may leave MUJOCO_LOG.TXT
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=folder,
            capture_output=True,
            check=False,
        )
    return done.returncode == 0


@cache
def _context() -> Any:
    """Return this process's one context."""
    kind = import_module(f"mujoco.{backend()}").GLContext
    # It lives as long as the process. Freed while that ends, OSMesa's would complain.
    lasting = type("GLContext", (kind,), {"__del__": lambda self: None})
    return lasting(64, 64)  # pictures have buffers of their own


class Picture:
    """One model, seen by one camera; in one thread of a process alone.

    Attributes:
      model: what is drawn; colours, positions of bodies and the like may be changed.
      data: its state: set `qpos`.
      camera: a free one, to be pointed.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int):
        """Set up buffers of width x height pixels.

        Raises:
          UserError: nothing draws here.
        """
        _context().make_current()
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        self.model, self.data = model, mujoco.MjData(model)
        self.camera = mujoco.MjvCamera()
        self._option = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(model, maxgeom=4000)
        size = mujoco.mjtFontScale.mjFONTSCALE_100.value
        model.vis.quality.shadowsize = 2048
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._buffers = mujoco.MjrContext(model, size)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._buffers)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)

    def draw(
        self, add: Callable[[mujoco.MjvScene], None] = lambda scene: None
    ) -> np.ndarray:
        """Return the pixels of the present state, [height, width, 3] uint8.

        Args:
          add: puts more into the scene than the model has.
        """
        _context().make_current()  # others may have one too
        mujoco.mj_forward(self.model, self.data)
        mujoco.mjv_updateScene(
            self.model,
            self.data,
            self._option,
            None,
            self.camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        add(self._scene)
        mujoco.mjr_render(self._rectangle, self._scene, self._buffers)
        size = self._rectangle.height, self._rectangle.width, 3
        pixels = np.empty(size, np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rectangle, self._buffers)
        return np.ascontiguousarray(pixels[::-1])

    def close(self) -> None:
        """Give back the buffers."""
        self._buffers.free()
