"""Videos of episodes: a view of each kind of environment, captions, files."""

from collections.abc import Callable

from dt_jax.data.registry import EnvSpec
from dt_jax.utils.errors import UserError
from dt_jax.video.adroit_view import AdroitView
from dt_jax.video.locomotion_view import LocomotionView
from dt_jax.video.maze_view import AntMazeView, Maze2DView
from dt_jax.video.native_view import EnvPoolView, GymnasiumView
from dt_jax.video.view import Size, View

# By `EnvSpec.engine`.
_VIEWS: dict[str, Callable[[EnvSpec, int, Size], View]] = {
    "locomotion": LocomotionView,
    "adroit": AdroitView,
    "maze2d": Maze2DView,
    "antmaze": AntMazeView,
    "envpool": EnvPoolView,
    "gymnasium": GymnasiumView,
    "minari": GymnasiumView,
}


def make_view(spec: EnvSpec, seed: int, size: Size) -> View:
    """Build an environment with one episode, and what renders it.

    Args:
      spec: the environment.
      seed: of the episode.
      size: width and height of the frames in pixels.

    Raises:
      UserError: the environment cannot be built or rendered.
    """
    if spec.engine not in _VIEWS:
        raise UserError(
            f"{spec.name}: environments of {spec.engine} cannot be rendered; choose a "
            "D4RL dataset with --env_name"
        )
    return _VIEWS[spec.engine](spec, seed, size)
