"""What is drawn of each family; where nothing draws, these are skipped."""

import os
from dataclasses import replace

import envpool
import gymnasium
import mujoco
import numpy as np
import playing
import pytest
from command import run
from dt_jax.video.adroit_pose import Adroit
from dt_jax.video.rendering import view
from recording import record

from dt_jax import envs
from dt_jax.envs import mazes
from dt_jax.utils.errors import UserError
from dt_jax.video import offscreen
from dt_jax.video.offscreen import Picture

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
def draws():
    """Skip a test where nothing draws."""
    try:
        return offscreen.backend()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def nothing_known(monkeypatch):
    """Have it looked for anew what draws."""
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    offscreen.backend.cache_clear()
    yield
    offscreen.backend.cache_clear()


def play(name, steps, size=SIZE):
    """Return the view, closed, and the first and the last picture of random steps."""
    spec, rng = envs.lookup(name), np.random.default_rng(0)
    seen = view(spec, 3, size)
    observation = seen.env.host_reset()[0]
    played = envs.make(spec, [3]).host_reset()[0]
    np.testing.assert_array_equal(observation, played)
    seen.begin(observation)
    first = seen.frame(observation)
    np.testing.assert_array_equal(seen.frame(observation), first)
    for _ in range(steps):
        low, high = spec.action_low, spec.action_high
        action = rng.uniform(low, high, spec.action_size)
        observation = seen.env.host_step(action[None]).observations[0]
        last = seen.frame(observation)
    seen.close()
    return first, last


@pytest.mark.usefixtures("draws")
@pytest.mark.parametrize("name", D4RL)
def test_the_body_is_seen_and_moves(name):
    for picture in (pictures := play(name, 15)):
        assert picture.shape == (120, 160, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 20  # not blank
    moved = np.abs(np.diff(np.array(pictures, int), axis=0)).max(axis=(0, -1)) > 30
    assert 3 < moved.sum() < moved.size / 2  # and the camera keeps the rest in place


def path_pixels(picture):
    """Count what is of the path's pink, which nothing else is."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return ((red > 150) & (green < 110) & (blue > green + 30)).sum()


def goal_pixels(picture):
    """Return where it is of the goal's green, which nothing else is, [P, 2]."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return np.argwhere((green > red + 40) & (green > blue + 30))


def pixel(spec, maze, x, y):
    """Return the row and column of a place in a maze, from above, and a metre's pixels.

    maze2d has its first row on top, antmaze its last.
    """
    row, column, metres, down = x + 0.2, y + 0.2, 1, 1
    if spec.family == "antmaze":
        row, column, metres, down = y / 4 + maze.start[0], x / 4 + maze.start[1], 4, -1
    rows, columns = maze.free.shape
    cell = min(240 / rows, 320 / columns) / 1.06
    off = down * (row - (rows - 1) / 2), column - (columns - 1) / 2
    return np.array([119.5, 159.5]) + cell * np.array(off), cell / metres


def around(picture, place):
    """Return the 3 x 3 pixels at a row and column."""
    row, column = np.rint(place).astype(int)
    return picture[row - 1 : row + 2, column - 1 : column + 2].astype(int)


@pytest.mark.usefixtures("draws")
@pytest.mark.parametrize("name", [name for name in D4RL if "maze" in name])
def test_the_way_through_the_maze_is_drawn(name):
    """Where it has been, and the goal where it is; all of the maze can be seen."""
    spec = envs.lookup(name)
    maze = getattr(mazes, spec.family)(spec.maze)
    goal = maze.goal
    path = maze.path(next(c for c in maze.cells if c != goal), goal)
    seen = view(spec, 3, (320, 240))
    observation = seen.env.host_reset()[0]
    seen.begin(observation)
    found = goal_pixels(seen.frame(observation))
    at = seen.env.goals[0] if spec.family == "antmaze" else goal
    place, metre = pixel(spec, maze, *at)
    np.testing.assert_allclose(found.mean(axis=0), place, atol=4)
    # As far as it is rewarded, less what a wall hides.
    assert len(found) == pytest.approx(np.pi * (0.5 * metre) ** 2, rel=0.25)
    pixels, places = [], []
    for row, column in path:
        at = [row - 0.2, column - 0.2]
        if spec.family == "antmaze":
            at = [4 * (column - maze.start[1]), 4 * (row - maze.start[0])]
        observation[:2] = at
        seen.follow(observation)
        picture = seen.frame(observation)
        pixels.append(path_pixels(picture))
        places.append(pixel(spec, maze, *at)[0])
        body = around(picture, places[-1])
        assert (np.ptp(body, axis=-1) > 50).any()  # it has a colour, and is no path
        assert path_pixels(body) < 9
    assert (np.diff(pixels) > 0).all()
    for place in places[:-1]:
        assert path_pixels(around(picture, place))
    seen.begin(observation)  # a new episode
    assert path_pixels(seen.frame(observation)) < pixels[1]
    seen.close()
    edge = np.concatenate(
        [picture[[0, -1]].reshape(-1, 3), picture[:, [0, -1]].reshape(-1, 3)]
    )
    assert (edge.min(axis=-1) > 180).all()  # floor around the outermost walls


@pytest.mark.usefixtures("draws")
@pytest.mark.parametrize(
    ("name", "speed"), [("maze2d-umaze-v1", 2), ("antmaze-umaze-v2", 15)]
)
def test_a_step_in_a_maze_takes_as_long_as_its_speed_tells(name, speed):
    spec, rng = envs.lookup(name), np.random.default_rng(0)
    seen = view(spec, 3, (64, 64))
    actions = rng.uniform(-1, 1, (40, 1, spec.action_size))
    observations = playing.play(seen.env, actions)[0][:, 0]
    seen.close()
    speeds = observations[:, speed : speed + 2]
    mean = (speeds[1:] + speeds[:-1]) / 2
    way = np.diff(observations[:, :2], axis=0)
    seconds = (way * mean).sum() / (mean * mean).sum()
    assert seen.step_seconds == pytest.approx(seconds, rel=0.1)


@pytest.mark.usefixtures("draws")
@pytest.mark.parametrize("body", ["halfcheetah", "hopper", "walker2d"])
def test_the_floor_goes_by_and_never_ends(body):
    seen = view(envs.lookup(f"{body}-medium-v2"), 3, SIZE)
    observation = seen.env.host_reset()[0].astype(int)

    def at(x):
        seen.env.info["x_position"] = [x]
        return seen.frame(observation).astype(int)

    square = seen._period / 2
    assert np.abs(at(0) - at(1000 * square)).mean() < 1
    moved = np.abs(at(0) - at(1001 * square))
    assert moved[60:].mean() > 40  # all of the lower half, as it is seen from above
    assert moved[:20].max() < 5  # the sky
    seen.close()


@pytest.mark.usefixtures("draws")
@pytest.mark.parametrize("body", ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"])
def test_a_body_is_posed_as_gymnasium_observes_it(body):
    theirs = gymnasium.make(body)
    theirs.reset(seed=0)
    theirs.action_space.seed(0)
    for _ in range(5):
        observation, _, _, _, info = theirs.step(theirs.action_space.sample())
    ours = view(envs.lookup(f"{body[:-3].lower()}-medium-v2"), 3, SIZE)
    ours.env.info = {"x_position": [info["x_position"]]}
    ours.frame(observation)
    posed, state = ours._picture.data.qpos, theirs.unwrapped.data.qpos
    np.testing.assert_allclose(posed[1:], state[1:], atol=1e-6)
    assert ours.step_seconds == pytest.approx(theirs.unwrapped.dt)
    assert not ours.has_goal
    theirs.close()
    ours.close()


# What an observation says of the object, and of what is drawn anew for each episode;
# and what is added to it.
HANDS = {
    "pen": ((slice(24, 27), 0.1), (slice(36, 39), 1.0)),  # metres, a direction
    "door": ((slice(28, 29), 0.3), (slice(32, 35), 0.1)),  # radians, metres
    "hammer": ((slice(36, 39), 0.1), (slice(42, 45), 0.1)),
    "relocate": ((slice(36, 39), 0.1), (slice(33, 36), 0.1)),
}


@pytest.mark.usefixtures("draws")
@pytest.mark.parametrize("task", HANDS)
def test_the_object_and_what_it_is_to_do_are_seen(task):
    """Neither is out of the picture, or hidden by the table."""
    seen = view(envs.lookup(f"{task}-human-v1"), 3, SIZE)
    observation = seen.env.host_reset()[0]
    seen.begin(observation)
    pictures = [seen.frame(observation).astype(int)]
    for i, (what, change) in enumerate(HANDS[task]):
        other = observation.copy()
        other[what] += change
        if i:
            seen.begin(other)
        pictures.append(seen.frame(other).astype(int))
    seen.close()
    for picture in pictures[1:]:
        changed = np.abs(picture - pictures[0]).max(axis=-1) > 30
        assert changed.sum() > 15
    config = envpool.make_spec(f"AdroitHand{task.capitalize()}-v1").config
    step = config.frame_skip * seen._adroit.model.opt.timestep
    assert seen.step_seconds == pytest.approx(step)


@pytest.mark.slow  # 16 s
@pytest.mark.usefixtures("draws")
def test_hands_look_as_envpool_draws_them(tmp_path):
    """Which draws its own states, but from its own cameras alone.

    In a process of its own: MuJoCo's EGL and EnvPool's get into each other's way.
    """
    tasks = "pen", "door", "hammer", "relocate"
    names = [f"AdroitHand{task.capitalize()}-v1" for task in tasks]
    status, _, err = run("-c", BY_ENVPOOL, tmp_path, *names, MUJOCO_GL="")
    if status:  # where OSMesa alone is there
        assert "EnvPool can't draw" in err
        pytest.skip(err.splitlines()[-1])
    for task, name in zip(tasks, names, strict=True):
        with np.load(tmp_path / f"{name}.npz") as arrays:
            seen, drawn = arrays["seen"], arrays["drawn"].astype(int)
        adroit = Adroit(task)
        ours = Picture(adroit.model, *SIZE)
        fixed = mujoco.mjtCamera.mjCAMERA_FIXED
        ours.camera.type, ours.camera.fixedcamid = fixed, 0
        adroit.pose(ours.data, seen[0], first=True)
        start = ours.draw()
        adroit.pose(ours.data, seen[1])
        end = ours.draw()
        ours.close()
        assert np.abs(drawn[0] - start).mean() < 0.5, task  # of 255
        assert np.abs(drawn[1] - end).mean() < 1.5, task
        assert np.abs(drawn[1] - start).mean() > 4, task


BY_ENVPOOL = """
import sys
import numpy as np
from dt_jax import envs
from dt_jax.video.rendering import view
for name in sys.argv[2:]:
    spec, rng = envs.lookup(name), np.random.default_rng(0)
    theirs = view(spec, 7, (160, 120))
    first = theirs.env.host_reset()
    theirs.env.pool._render_camera_id = 0
    drawn = [theirs.frame(first[0])]
    for _ in range(40):
        action = rng.uniform(-0.5, 0.5, (1, spec.action_size))
        last = theirs.env.host_step(action).observations
    drawn.append(theirs.frame(last[0]))
    seen = np.concatenate([first, last])
    np.savez(f"{sys.argv[1]}/{name}.npz", seen=seen, drawn=drawn)
"""


class Painted(gymnasium.Env):
    """Paints its one number."""

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
def painted(monkeypatch):
    gymnasium.register("Painted-v0", Painted, max_episode_steps=5)
    yield Painted
    del gymnasium.registry["Painted-v0"]


def test_an_environment_of_gymnasiums_draws_itself(painted):
    seen = view(envs.lookup("Painted-v0"), 0, SIZE)
    assert seen.step_seconds == 0.25
    observation = seen.env.host_reset()[0]
    assert (seen.frame(observation) == 0).all()
    observation = seen.env.host_step(np.ones((1, 1))).observations[0]
    assert (seen.frame(observation) == 100).all()
    seen.close()


def test_one_that_cannot_is_told(painted, monkeypatch):
    spec = envs.lookup("Painted-v0")
    monkeypatch.setattr(Painted, "render", lambda self: 1 / 0)
    seen = view(spec, 0, SIZE)
    observation = seen.env.host_reset()[0]
    with pytest.raises(UserError, match="Painted-v0 can't draw itself: ZeroDivision"):
        seen.frame(observation)
    monkeypatch.setattr(Painted, "metadata", {"render_modes": ["human"]})
    with pytest.raises(UserError, match="Painted-v0 can't draw itself: rgb_array is"):
        view(spec, 0, SIZE)


@pytest.mark.usefixtures("draws")
def test_one_that_a_minari_dataset_names_draws_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    record("Hopper-v5", "else-v0", (3,))
    first, last = play("minari:else-v0", 15)
    assert first.std() > 20
    assert np.abs(first.astype(int) - last).max() > 30


def test_one_of_envpools_draws_itself():
    first, last = play("Pendulum-v1", 15)
    assert first.shape == (120, 160, 3)
    assert first.std() > 5
    assert np.abs(first.astype(int) - last).max() > 30


def test_the_users_gym_is_not_drawn():
    spec = envs.lookup("Pendulum-v1")
    with pytest.raises(UserError, match="gym can't be drawn; --env_name with one"):
        view(replace(spec, family="gym"), 0, SIZE)


def test_what_draws_is_told_to_others_that_draw(draws):
    assert os.environ["MUJOCO_GL"] == draws


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize("name", ["egl", "osmesa"])
def test_either_library_draws(name, monkeypatch):
    """In a process of its own: each settles on one."""
    monkeypatch.setenv("MUJOCO_GL", name)
    try:
        assert offscreen.backend() == name
    except UserError as error:
        pytest.skip(str(error))
    code = (
        "from dt_jax import envs\n"
        "from dt_jax.video.rendering import view\n"
        "seen = view(envs.lookup('maze2d-umaze-v1'), 0, (64, 64))\n"
        "observation = seen.env.host_reset()[0]\n"
        "seen.begin(observation)\n"
        "print(seen.frame(observation).std())"
    )
    status, out, err = run("-c", code, MUJOCO_GL=name)
    assert status == 0, err
    assert float(out) > 20
    assert not err


@pytest.mark.usefixtures("nothing_known")
def test_where_nothing_draws_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PYOPENGL_PLATFORM", "glx")  # neither of the two can be had
    with pytest.raises(UserError, match=r"apt-get install libegl1 .*, or libosmesa6"):
        offscreen.backend()
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(UserError, match=r"MUJOCO_GL=osmesa .*apt-get install libosm"):
        offscreen.backend()
    monkeypatch.setenv("MUJOCO_GL", "crayons")
    with pytest.raises(UserError, match="MUJOCO_GL=crayons draws nothing here"):
        offscreen.backend()
