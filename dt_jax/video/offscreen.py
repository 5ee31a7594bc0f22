"""Offscreen rendering of MuJoCo models, by EGL or OSMesa."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

import mujoco
import numpy as np

from dt_jax.utils.errors import UserError

# MuJoCo's offscreen backends on Linux by preference, with their Debian packages.
PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}
_OTHER_PLATFORMS = {"darwin": ["cgl"], "win32": ["glfw"]}

# What `Renderer` needs of a backend. Some abort the process if a library is missing.
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
    """Return the backend to render with: MUJOCO_GL, or the first that works.

    Sets MUJOCO_GL to it, for other renderers in this process.

    Raises:
      UserError: no backend works.
    """
    requested = os.environ.get("MUJOCO_GL", "").strip().lower()
    candidates = _OTHER_PLATFORMS.get(sys.platform, [*PACKAGES])
    for name in [requested] if requested else candidates:
        # Probed in a subprocess: PyOpenGL is bound to the first backend it loads.
        environment = {**os.environ, "MUJOCO_GL": name}
        if not runs(_PROBE.format(name), environment):
            continue
        os.environ["MUJOCO_GL"] = name
        return name
    if requested:
        packages = PACKAGES.get(requested)
        hint = f", or on Debian: apt-get install {packages}" if packages else ""
        raise UserError(f"MUJOCO_GL={requested} does not work here: unset it{hint}")
    raise UserError(
        "offscreen rendering needs EGL or OSMesa, and neither works here; on Debian: "
        f"apt-get install {PACKAGES['egl']}, or {PACKAGES['osmesa']}"
    )


def runs(code: str, environment: dict[str, str] | None = None) -> bool:
    """Return whether `code` runs without an error in a new Python process."""
    with TemporaryDirectory() as folder:  # a failure may write MUJOCO_LOG.TXT
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
    """Return the OpenGL context of this process."""
    context_class = import_module(f"mujoco.{backend()}").GLContext
    # Never freed: OSMesa's destructor prints errors while the interpreter exits.
    immortal = type("GLContext", (context_class,), {"__del__": lambda self: None})
    return immortal(64, 64)  # each renderer has its own buffers


class Renderer:
    """Renders one model through one camera; use it in one thread only.

    Attributes:
      model: colours, body positions and the like may be changed.
      data: the model's state; set `qpos`.
      camera: a free camera; see `point_camera`.

    Raises:
      UserError: no rendering backend works.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int):
        _context().make_current()
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        self.model, self.data = model, mujoco.MjData(model)
        self.camera = mujoco.MjvCamera()  # a free one
        self._option = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(model, maxgeom=4000)
        font_scale = mujoco.mjtFontScale.mjFONTSCALE_100.value
        model.vis.quality.shadowsize = 2048
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._buffers = mujoco.MjrContext(model, font_scale)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._buffers)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)

    def point_camera(
        self, at: Sequence[float], distance: float, azimuth: float, elevation: float
    ) -> None:
        """Point the camera at a position [3]; in metres and degrees."""
        self.camera.lookat[:], self.camera.distance = at, distance
        self.camera.azimuth, self.camera.elevation = azimuth, elevation

    def render(
        self, add_to: Callable[[mujoco.MjvScene], None] = lambda scene: None
    ) -> np.ndarray:
        """Return a frame of the present state, [height, width, 3] uint8.

        `add_to` adds further geoms to the scene.
        """
        _context().make_current()  # other renderers may have changed it
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
        add_to(self._scene)
        mujoco.mjr_render(self._rectangle, self._scene, self._buffers)
        pixels = np.empty((self._rectangle.height, self._rectangle.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rectangle, self._buffers)
        return np.ascontiguousarray(pixels[::-1])

    def close(self) -> None:
        """Release the buffers."""
        self._buffers.free()
