"""Films of a run, from its folder to the file."""

import re
import sys
from itertools import pairwise

import gymnasium
import h5py
import jax
import numpy as np
import pytest
from dt_jax.video.rendering import view
from PIL import Image

from configs import default
from dt_jax import envs
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.cli import video
from dt_jax.cli.evaluate import chosen
from dt_jax.data.registry import lookup
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.evaluation.policy import restore
from dt_jax.training.train import train_and_evaluate
from dt_jax.utils.errors import UserError
from dt_jax.video import offscreen
from dt_jax.video.film import captioned
from dt_jax.video.view import View

TARGETS = (50.0, 5.0)


@pytest.fixture
def _draws():
    try:
        offscreen.backend()
    except UserError as error:
        pytest.skip(str(error))


SMALL = {"embedding_dim": 8, "num_layers": 1, "seq_len": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run on noise: of the ball, which is the quickest to draw."""
    folder, rng, rows = tmp_path_factory.mktemp("video"), np.random.default_rng(0), 60
    with h5py.File(folder / "data.hdf5", "w") as file:
        file["observations"] = rng.standard_normal((rows, 4))
        file["actions"] = rng.uniform(-1, 1, (rows, 2))
        file["rewards"] = rng.standard_normal(rows)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(rows) % 20 == 19
    config = default.for_dataset(
        "maze2d-umaze-v1",
        data_path=str(folder / "data.hdf5"),
        batch_size=4,
        update_steps=2,
        eval_episodes=0,
        episode_len=40,
        target_returns=TARGETS,
        **SMALL,
    )
    train_and_evaluate(config.lock(), folder / "run")
    return folder / "run"


def make_agent(spec):
    """Return an agent and parameters that do more than rest."""
    s, a = spec.observation_size, spec.action_size
    agent = DecisionTransformerAgent.from_config(
        default.for_dataset(spec.name, episode_len=30, **SMALL),
        state_mean=np.zeros(s, np.float32),
        state_std=np.ones(s, np.float32),
        action_center=np.zeros(a, np.float32),
        action_scale=np.ones(a, np.float32),
    )
    params = jax.jit(agent.init_params)(jax.random.key(0))
    return agent, jax.tree.map(lambda p: 9 * p if p.ndim > 1 else p, params)


def film(monkeypatch, capsys, *arguments):
    """Return what the command prints."""
    monkeypatch.setattr(sys, "argv", ["video", *map(str, arguments)])
    video.main()
    return capsys.readouterr().out


@pytest.mark.usefixtures("_draws")
@pytest.mark.filterwarnings("ignore:episodes of")
def test_a_film_shows_what_evaluation_would_play(run, tmp_path, monkeypatch, capsys):
    out, texts = tmp_path / "x.gif", []
    (tmp_path / ".x.01234567.tmp.gif").write_text("of one that was killed")
    monkeypatch.setattr(
        video, "captioned", lambda p, t, size: texts.append(t) or captioned(p, t, size)
    )
    what = "--episodes=2", "--target_return=50,5", "--seed=7", "--device=cpu"
    size = "--width=128", "--height=96"
    said = film(monkeypatch, capsys, run, f"--out={out}", *what, *size)
    agent, params, _ = restore(run, "last")
    spec = lookup("maze2d-umaze-v1")
    evaluation = Evaluator(agent, spec, TARGETS, episodes=2, seed=7)(params)
    found = re.findall(r"target (\S+), seed (\d+): return (\S+) in (\d+) steps", said)
    expected = [
        (f"{target:g}", f"{seed}", f"{evaluation.returns[k, i]:.1f}", "40")
        for k, target in enumerate(TARGETS)
        for i, seed in enumerate(evaluation.seeds)
    ]
    assert found == expected
    with Image.open(out) as image:
        assert image.size == (128, 96)
        pictures, duration = [], 0
        for i in range(image.n_frames):
            image.seek(i)
            pictures.append(np.asarray(image.convert("RGB"), int))
            duration += image.info["duration"]
    # 100 steps a second and 10 pictures: 5 for an episode, of which the last is held.
    assert len(pictures) == 4 * 5
    assert duration == 4 * (500 + 1000)
    assert [text[3] for text in texts[::5]] == [
        f"episode {i} of 4" for i in range(1, 5)
    ]
    assert min(picture.std() for picture in pictures) > 20
    for one, two in pairwise(pictures):
        assert np.abs(one - two)[30:].max() > 50  # below the caption
    assert [*tmp_path.iterdir()] == [out]

    def fail_on_the_way(picture, texts, size):
        if texts[2] == "step 10":
            raise UserError("it is broken off")
        return captioned(picture, texts, size)

    before = out.read_bytes()
    monkeypatch.setattr(video, "captioned", fail_on_the_way)
    with pytest.raises(UserError, match="broken off"):
        film(monkeypatch, capsys, run, f"--out={out}", *what, *size)
    assert [*tmp_path.iterdir()] == [out]
    assert out.read_bytes() == before


@pytest.mark.usefixtures("_draws")
@pytest.mark.filterwarnings("ignore:episodes of")
def test_the_first_of_several_seeds_plays_at_the_highest_target(
    run, tmp_path, monkeypatch, capsys
):
    what = run, f"--out={tmp_path / 'x.gif'}", "--speed=4", "--device=cpu"
    alone = film(monkeypatch, capsys, *what)
    assert alone.startswith("target 50, seed ")
    # 400 steps a second and 10 pictures: the first, and the last, held for a second.
    assert f"x.gif: {2 + 10} pictures, 10 a second" in alone

    def as_of_two(*arguments):
        found = chosen(*arguments)
        with found.config.unlocked():
            found.config.num_seeds = 2
        params = jax.tree.map(lambda p: np.stack([p, 9 * p]), found.params)
        return found._replace(params=params)

    monkeypatch.setattr(video, "chosen", as_of_two)
    assert film(monkeypatch, capsys, *what) == alone


@pytest.mark.filterwarnings("ignore:episodes of")
def test_a_bad_place_is_told_before_anything_is_played(
    run, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        film(monkeypatch, capsys, run, f"--out={tmp_path}/file/x.gif", "--device=cpu")
    assert not capsys.readouterr().out


class Unseen(View):
    """A ball whose pictures tell how often it was followed, and no more."""

    has_goal = True

    def __init__(self, seed):
        self.env, self.followed = envs.make(lookup("maze2d-umaze-v1"), [seed]), None

    def begin(self, observation):
        self.followed = 0

    def follow(self, observation):
        self.followed += 1

    def frame(self, observation):
        return self.followed

    def close(self):
        """Nothing is to be given back."""


def test_a_picture_tells_what_has_been_reached_when_it_is_taken(monkeypatch):
    """Of every third step, and of the last one."""
    monkeypatch.setattr(video, "captioned", lambda *what: what)
    seed = 14  # which begins a cell to the right of the goal
    actions, achieved = np.tile(np.float32([0, -1]), (32, 1)), [0]
    env = Unseen(seed).env
    env.host_reset()
    for action in actions:
        achieved.append(achieved[-1] + env.host_step(action[None]).rewards[0])
    episode = video.Episode(50.0, seed, actions, np.float32(achieved[-1]))
    shown = [*video.frames(episode, Unseen(seed), 3, (64, 64), "episode 2 of 3")]
    assert shown == [
        (
            step,
            [
                "target 50",
                f"return {achieved[step]:.1f}",
                f"step {step}",
                "episode 2 of 3",
                *(["goal reached"] if achieved[step] else []),
            ],
            (64, 64),
        )
        for step in [*range(0, 32, 3), 32]
    ]
    assert achieved[3] == 0 < achieved[-1]


@pytest.mark.parametrize(
    "name", ["maze2d-umaze-v1", "hopper-medium-v2", "pen-human-v1"]
)
@pytest.mark.filterwarnings("ignore:episodes of")
def test_returns_are_those_of_evaluation(name):
    """To the last bit, where as many episodes are played at once."""
    spec = lookup(name)
    agent, params = make_agent(spec)
    seeds = envs.episode_seeds(3, 2)
    evaluation = Evaluator(agent, spec, TARGETS, episodes=2, seed=3)(params)
    played = video.play(agent, params, spec, TARGETS, seeds)
    returns = [episode.achieved for episode in played]
    np.testing.assert_array_equal(returns, evaluation.returns.flatten())
    lengths = [len(episode.actions) for episode in played]
    np.testing.assert_array_equal(lengths, evaluation.lengths.flatten())
    assert [episode.target_return for episode in played] == [50.0, 50.0, 5.0, 5.0]
    assert [episode.seed for episode in played] == seeds * 2


class Moody(gymnasium.Env):
    """Rewards what it likes, whatever the seed."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    render_mode = "rgb_array"

    def __init__(self, render_mode=None):
        self.mood = np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), self.mood.random(), False, False, {}

    def render(self):
        return np.zeros((64, 64, 3), np.uint8)


def test_an_environment_that_does_not_repeat_itself_is_not_filmed(monkeypatch):
    gymnasium.register("Moody-v0", Moody, max_episode_steps=3)
    spec = envs.lookup("Moody-v0")
    episode = video.Episode(1.0, 0, np.zeros((3, 1)), np.float32(0.5))
    seen = view(spec, 0, (64, 64))
    pictures = video.frames(episode, seen, 1, (64, 64))
    with pytest.raises(
        UserError, match=r"does not repeat itself: .* earned 0.5 and then"
    ):
        list(pictures)
    del gymnasium.registry["Moody-v0"]


@pytest.mark.parametrize(
    ("step_seconds", "speed", "most", "expected"),
    [
        (0.05, 1, 30, (1, 20)),  # halfcheetah as in the world
        (0.05, 1, 10, (2, 10)),
        (0.008, 1, 30, (5, 25)),  # hopper: 125 steps a second
        (0.1, 4, 30, (2, 20)),  # antmaze, four times as fast
        (0.1, 0.5, 30, (1, 5)),
    ],
)
def test_steps_are_left_out_to_keep_pace_with_the_world(
    step_seconds, speed, most, expected
):
    assert video.pace(step_seconds, speed, most) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--out=x.avi"], "x.avi: expected a name that ends in .mp4 or .gif"),
        (["--out=x.gif", "--width=65"], "--width=65: expected an even number, 64 to"),
        (["--out=x.gif", "--height=8"], "--height=8: expected an even number, 64 to"),
        (["--out=x.gif", "--fps=0"], "--fps=0: expected a number from 0 to 1000"),
        (["--out=x.gif", "--speed=-1"], "--speed=-1: expected a number from 0 to 1000"),
        (["--out=x.gif", "--speed=nan"], "--speed=nan: expected a number from 0"),
        (["--out=x.gif", "--episodes=0"], "nothing to play: give --episodes"),
        (["--out=x.gif", "--target_return=a"], "--target_return=a: expected"),
        ([], "required: --out; see --help"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, line, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["video", str(run), *arguments])
    with pytest.raises(UserError, match=re.escape(line)):
        video.main()
    assert not [*tmp_path.iterdir()]
