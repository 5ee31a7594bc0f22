"""Frames of every kind of environment; skipped if no rendering backend works."""

import os

import envpool
import gymnasium
import mujoco
import numpy as np
import pytest
from command import run
from playing import play
from recording import record

from dt_jax import envs
from dt_jax.envs import mazes
from dt_jax.utils.errors import UserError
from dt_jax.video import make_view, offscreen
from dt_jax.video.adroit_view import AdroitModel
from dt_jax.video.offscreen import Renderer
from dt_jax.video.play import Episode, render_episode

SIZE = 160, 120
D4RL = (
    "halfcheetah-medium-v2",
    "hopper-medium-v2",
    "walker2d-medium-v2",
    "pen-human-v1",
    "door-human-v1",
    "hammer-human-v1",
    "relocate-human-v1",
    "maze2d-umaze-v1",
    "maze2d-large-v1",
    "antmaze-umaze-v2",
    "antmaze-large-play-v2",
)


@pytest.fixture
def backend():
    """Return the rendering backend; skip the test without one."""
    try:
        return offscreen.backend()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def backend_not_cached(monkeypatch):
    """Probe for the backend again."""
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    offscreen.backend.cache_clear()
    yield
    offscreen.backend.cache_clear()


def render(name, steps, size=SIZE):
    """Return the first and the last frame of an episode of random actions."""
    spec, rng = envs.lookup(name), np.random.default_rng(0)
    view = make_view(spec, 3, size)
    observation = view.env.host_reset()[0]
    played = envs.make(spec, [3]).host_reset()[0]
    np.testing.assert_array_equal(observation, played)
    view.start_episode(observation)
    first = view.render(observation)
    np.testing.assert_array_equal(view.render(observation), first)
    for _ in range(steps):
        low, high = spec.action_low, spec.action_high
        action = rng.uniform(low, high, spec.action_size)
        observation = view.env.host_step(action[None]).observations[0]
        last = view.render(observation)
    view.close()
    return first, last


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", D4RL)
def test_body_is_visible_and_moves(name):
    for frame in (frames := render(name, 15)):
        assert frame.shape == (120, 160, 3)
        assert frame.dtype == np.uint8
        assert frame.std() > 20  # not blank
    moved = np.abs(np.diff(np.array(frames, int), axis=0)).max(axis=(0, -1)) > 30
    assert 3 < moved.sum() < moved.size / 2  # the background is still


def path_pixels(frame):
    """Count the pixels in the path's pink, which nothing else has."""
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    return ((red > 150) & (green < 110) & (blue > green + 30)).sum()


def goal_pixels(frame):
    """Return the pixels [P, 2] in the goal's green, which nothing else has."""
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    return np.argwhere((green > red + 40) & (green > blue + 30))


def pixel(spec, maze, x, y):
    """Return the pixel [2] (row, column) of a place in a maze, and a metre in pixels.

    The top row of the frame is the first in maze2d and the last in antmaze.
    """
    row, column, metres, down = x + 0.2, y + 0.2, 1, 1
    if spec.engine == "antmaze":
        row, column, metres, down = y / 4 + maze.start[0], x / 4 + maze.start[1], 4, -1
    rows, columns = maze.free.shape
    cell = min(240 / rows, 320 / columns) / 1.06
    off = down * (row - (rows - 1) / 2), column - (columns - 1) / 2
    return np.array([119.5, 159.5]) + cell * np.array(off), cell / metres


def neighbourhood(frame, place):
    """Return the 3 x 3 pixels around a row and column."""
    row, column = np.rint(place).astype(int)
    return frame[row - 1 : row + 2, column - 1 : column + 2].astype(int)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", [name for name in D4RL if "maze" in name])
def test_path_and_goal_are_rendered(name):
    """At their places in the maze, all of which is visible."""
    spec = envs.lookup(name)
    maze = getattr(mazes, spec.engine)(spec.maze)
    goal = maze.goal
    path = maze.path(next(c for c in maze.cells if c != goal), goal)
    view = make_view(spec, 3, (320, 240))
    observation = view.env.host_reset()[0]
    view.start_episode(observation)
    found = goal_pixels(view.render(observation))
    at = view.env.goals[0] if spec.engine == "antmaze" else goal
    place, metre = pixel(spec, maze, *at)
    np.testing.assert_allclose(found.mean(axis=0), place, atol=4)
    # Its radius is that of the reward; walls hide a part.
    assert len(found) == pytest.approx(np.pi * (0.5 * metre) ** 2, rel=0.25)
    pixels, places = [], []
    for row, column in path:
        at = [row - 0.2, column - 0.2]
        if spec.engine == "antmaze":
            at = [4 * (column - maze.start[1]), 4 * (row - maze.start[0])]
        observation[:2] = at
        view.track(observation)
        frame = view.render(observation)
        pixels.append(path_pixels(frame))
        places.append(pixel(spec, maze, *at)[0])
        body = neighbourhood(frame, places[-1])
        assert (np.ptp(body, axis=-1) > 50).any()  # coloured, but not as the path
        assert path_pixels(body) < 9
    assert (np.diff(pixels) > 0).all()
    for place in places[:-1]:
        assert path_pixels(neighbourhood(frame, place))
    view.start_episode(observation)  # a new episode
    assert path_pixels(view.render(observation)) < pixels[1]
    view.close()
    for edge in frame[[0, -1]], frame[:, [0, -1]]:
        assert (edge > 180).all()  # floor outside the outermost walls


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("name", "speed"), [("maze2d-umaze-v1", 2), ("antmaze-umaze-v2", 15)]
)
def test_step_seconds_of_mazes_match_the_velocities(name, speed):
    spec, rng = envs.lookup(name), np.random.default_rng(0)
    view = make_view(spec, 3, (64, 64))
    actions = rng.uniform(-1, 1, (40, 1, spec.action_size))
    observations = play(view.env, actions)[0][:, 0]
    view.close()
    speeds = observations[:, speed : speed + 2]
    mean = (speeds[1:] + speeds[:-1]) / 2
    moved = np.diff(observations[:, :2], axis=0)
    seconds = (moved * mean).sum() / (mean * mean).sum()
    assert view.step_seconds == pytest.approx(seconds, rel=0.1)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("body", ["halfcheetah", "hopper", "walker2d"])
def test_floor_moves_and_is_periodic(body):
    view = make_view(envs.lookup(f"{body}-medium-v2"), 3, SIZE)
    observation = view.env.host_reset()[0].astype(int)

    def at(x):
        view.env.info["x_position"] = [x]
        return view.render(observation).astype(int)

    square = view._period / 2
    assert np.abs(at(0) - at(1000 * square)).mean() < 1
    moved = np.abs(at(0) - at(1001 * square))
    assert moved[60:].mean() > 40  # the floor
    assert moved[:20].max() < 5  # the sky
    view.close()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("body", ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"])
def test_body_is_posed_as_observed(body):
    theirs = gymnasium.make(body)
    theirs.reset(seed=0)
    theirs.action_space.seed(0)
    for _ in range(5):
        observation, _, _, _, info = theirs.step(theirs.action_space.sample())
    ours = make_view(envs.lookup(f"{body[:-3].lower()}-medium-v2"), 3, SIZE)
    ours.env.info = {"x_position": [info["x_position"]]}
    ours.render(observation)
    posed, state = ours._renderer.data.qpos, theirs.unwrapped.data.qpos
    np.testing.assert_allclose(posed[1:], state[1:], atol=1e-6)
    assert ours.step_seconds == pytest.approx(theirs.unwrapped.dt)
    assert not ours.has_goal
    theirs.close()
    ours.close()


# By task: the part of the observation that is the object's, and the part that is random
# per episode, each with a change to apply.
HANDS = {
    "pen": ((slice(24, 27), 0.1), (slice(36, 39), 1.0)),  # metres, a direction
    "door": ((slice(28, 29), 0.3), (slice(32, 35), 0.1)),  # radians, metres
    "hammer": ((slice(36, 39), 0.1), (slice(42, 45), 0.1)),
    "relocate": ((slice(36, 39), 0.1), (slice(33, 36), 0.1)),
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("task", HANDS)
def test_object_and_goal_of_adroit_are_visible(task):
    """Neither is outside the frame or hidden by the table."""
    view = make_view(envs.lookup(f"{task}-human-v1"), 3, SIZE)
    observation = view.env.host_reset()[0]
    view.start_episode(observation)
    frames = [view.render(observation).astype(int)]
    for i, (part, change) in enumerate(HANDS[task]):
        other = observation.copy()
        other[part] += change
        if i:
            view.start_episode(other)
        frames.append(view.render(other).astype(int))
    view.close()
    for frame in frames[1:]:
        changed = np.abs(frame - frames[0]).max(axis=-1) > 30
        assert changed.sum() > 15
    config = envpool.make_spec(f"AdroitHand{task.capitalize()}-v1").config
    step = config.frame_skip * view._model.model.opt.timestep
    assert view.step_seconds == pytest.approx(step)


@pytest.mark.slow  # 16 s
@pytest.mark.usefixtures("backend")
def test_hands_match_envpools_own_frames(tmp_path):
    """EnvPool renders its true state, but only through its own cameras.

    In a subprocess, because MuJoCo's EGL and EnvPool's conflict.
    """
    tasks = "pen", "door", "hammer", "relocate"
    names = [f"AdroitHand{task.capitalize()}-v1" for task in tasks]
    status, _, err = run("-c", BY_ENVPOOL, tmp_path, *names, MUJOCO_GL="")
    if status:  # EGL is missing
        assert "EnvPool cannot render" in err
        pytest.skip(err.splitlines()[-1])
    for task, name in zip(tasks, names, strict=True):
        with np.load(tmp_path / f"{name}.npz") as arrays:
            observed, expected = arrays["observed"], arrays["frames"].astype(int)
        model = AdroitModel(task)
        ours = Renderer(model.model, *SIZE)
        fixed = mujoco.mjtCamera.mjCAMERA_FIXED
        ours.camera.type, ours.camera.fixedcamid = fixed, 0
        model.pose(ours.data, observed[0], first=True)
        start = ours.render()
        model.pose(ours.data, observed[1])
        end = ours.render()
        ours.close()
        assert np.abs(expected[0] - start).mean() < 0.5, task  # of 255
        assert np.abs(expected[1] - end).mean() < 1.5, task
        assert np.abs(expected[1] - start).mean() > 4, task


BY_ENVPOOL = """
import sys
import numpy as np
from dt_jax import envs
from dt_jax.video import make_view
for name in sys.argv[2:]:
    spec, rng = envs.lookup(name), np.random.default_rng(0)
    theirs = make_view(spec, 7, (160, 120))
    first = theirs.env.host_reset()
    theirs.env.pool._render_camera_id = 0
    frames = [theirs.render(first[0])]
    for _ in range(40):
        action = rng.uniform(-0.5, 0.5, (1, spec.action_size))
        last = theirs.env.host_step(action).observations
    frames.append(theirs.render(last[0]))
    observed = np.concatenate([first, last])
    np.savez(f"{sys.argv[1]}/{name}.npz", observed=observed, frames=frames)
"""


class Grey(gymnasium.Env):
    """Its frames are grey, as bright as its state."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number = np.zeros(1, np.float32)
        return self.number, {}

    def step(self, action):
        self.number = self.number + action
        return self.number, 0.0, False, False, {}

    def render(self):
        assert self.render_mode == "rgb_array"
        return np.full((30, 50, 3), 100 * self.number[0], np.uint8)


@pytest.fixture
def grey():
    gymnasium.register("Grey-v0", Grey, max_episode_steps=5)
    yield Grey
    del gymnasium.registry["Grey-v0"]


def test_gymnasium_environment_renders_itself(grey):
    view = make_view(envs.lookup("Grey-v0"), 0, SIZE)
    assert view.step_seconds == 0.25
    observation = view.env.host_reset()[0]
    assert (view.render(observation) == 0).all()
    observation = view.env.host_step(np.ones((1, 1))).observations[0]
    assert (view.render(observation) == 100).all()
    view.close()


def test_environment_that_cannot_render_is_refused(grey, monkeypatch):
    spec = envs.lookup("Grey-v0")
    monkeypatch.setattr(Grey, "render", lambda self: 1 / 0)
    view = make_view(spec, 0, SIZE)
    observation = view.env.host_reset()[0]
    with pytest.raises(UserError, match="Grey-v0 cannot be rendered: ZeroDivision"):
        view.render(observation)
    monkeypatch.setattr(Grey, "metadata", {"render_modes": ["human"]})
    with pytest.raises(UserError, match=r"Grey-v0 cannot be rendered: .* rgb_array"):
        make_view(spec, 0, SIZE)


@pytest.mark.usefixtures("grey")
def test_replay_with_another_return_is_refused():
    """As from an environment that ignores its seed."""
    episode = Episode(1.0, 0, np.zeros((3, 1)), np.float32(0.5))
    view = make_view(envs.lookup("Grey-v0"), 0, SIZE)
    with pytest.raises(UserError, match=r"not deterministic: .* returned 0.5, then"):
        list(render_episode(episode, view, 1, SIZE))


@pytest.mark.usefixtures("backend")
def test_minari_environment_renders_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    record("Hopper-v5", "else-v0", (3,))
    first, last = render("minari:else-v0", 15)
    assert first.std() > 20
    assert np.abs(first.astype(int) - last).max() > 30


def test_envpool_environment_renders_itself():
    first, last = render("Pendulum-v1", 15)
    assert first.shape == (120, 160, 3)
    assert first.std() > 5
    assert np.abs(first.astype(int) - last).max() > 30


def test_backend_sets_mujoco_gl(backend):
    assert os.environ["MUJOCO_GL"] == backend


@pytest.mark.usefixtures("backend_not_cached")
@pytest.mark.parametrize("name", ["egl", "osmesa"])
def test_either_backend_renders(name, monkeypatch):
    """In a subprocess, because a process is bound to one backend."""
    monkeypatch.setenv("MUJOCO_GL", name)
    try:
        assert offscreen.backend() == name
    except UserError as error:
        pytest.skip(str(error))
    code = (
        "from dt_jax import envs\n"
        "from dt_jax.video import make_view\n"
        "view = make_view(envs.lookup('maze2d-umaze-v1'), 0, (64, 64))\n"
        "observation = view.env.host_reset()[0]\n"
        "view.start_episode(observation)\n"
        "print(view.render(observation).std())"
    )
    status, out, err = run("-c", code, MUJOCO_GL=name)
    assert status == 0, err
    assert float(out) > 20
    assert not err


@pytest.mark.usefixtures("backend_not_cached")
def test_missing_backends_name_the_packages(monkeypatch):
    monkeypatch.setenv("PYOPENGL_PLATFORM", "glx")  # disables both backends
    with pytest.raises(UserError, match=r"apt-get install libegl1 .*, or libosmesa6"):
        offscreen.backend()
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(UserError, match=r"MUJOCO_GL=osmesa .*apt-get install libosm"):
        offscreen.backend()
    monkeypatch.setenv("MUJOCO_GL", "crayons")
    with pytest.raises(UserError, match="MUJOCO_GL=crayons does not work here"):
        offscreen.backend()
