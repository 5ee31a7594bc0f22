"""Videos of a run: playing, replaying, and the command."""

import re
from dataclasses import replace
from itertools import pairwise

import h5py
import jax
import numpy as np
import pytest
from PIL import Image, ImageSequence
from small_agent import large_params, normalizer, small_agent

from dt_jax import envs
from dt_jax.cli import video
from dt_jax.cli.evaluate import load_for_command
from dt_jax.config import default_config
from dt_jax.data.registry import lookup
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.evaluation.policy import load_agent
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError
from dt_jax.video import make_view, offscreen, play
from dt_jax.video.film import add_caption
from dt_jax.video.view import View

TARGETS = (50.0, 5.0)


@pytest.fixture
def _renders():
    try:
        offscreen.backend()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run on random data in maze2d, which renders fastest."""
    folder, rng, rows = tmp_path_factory.mktemp("video"), np.random.default_rng(0), 60
    with h5py.File(folder / "data.hdf5", "w") as file:
        file["observations"] = rng.standard_normal((rows, 4))
        file["actions"] = rng.uniform(-1, 1, (rows, 2))
        file["rewards"] = rng.uniform(0, 2, rows)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(rows) % 20 == 19
    config = default_config(
        env_name="maze2d-umaze-v1",
        data_path=str(folder / "data.hdf5"),
        batch_size=4,
        update_steps=2,
        eval_episodes=0,
        episode_len=40,
        target_returns=TARGETS,
        embedding_dim=8,
        num_layers=1,
        seq_len=3,
    )
    train(config.lock(), folder / "run")
    return folder / "run"


def run_video(capsys, *arguments):
    """Return the output of the command."""
    video.main([*map(str, arguments)])
    return capsys.readouterr().out


@pytest.mark.usefixtures("_renders")
@pytest.mark.filterwarnings("ignore:episodes of")
def test_video_shows_the_episodes_of_evaluation(run, tmp_path, monkeypatch, capsys):
    out, captions = tmp_path / "x.gif", []
    (tmp_path / ".x.01234567.tmp.gif").write_text("left by a killed process")
    monkeypatch.setattr(
        play,
        "add_caption",
        lambda f, texts, size: captions.append(texts) or add_caption(f, texts, size),
    )
    flags = "--episodes=2", "--target_return=50,5", "--seed=7", "--device=cpu"
    size = "--width=128", "--height=96"
    printed = run_video(capsys, run, f"--out={out}", *flags, *size)
    trained, spec = load_agent(run, "last"), lookup("maze2d-umaze-v1")
    evaluator = Evaluator(trained.agent, spec, TARGETS, episodes=2, seed=7)
    evaluation = evaluator(trained.params)
    line = r"target (\S+), seed (\d+): return (\S+) in (\d+) steps"
    assert re.findall(line, printed) == [
        (f"{target:g}", f"{seed}", f"{evaluation.returns[k, i]:.1f}", "40")
        for k, target in enumerate(TARGETS)
        for i, seed in enumerate(evaluation.seeds)
    ]
    # 100 steps and 10 frames per second: 5 frames per episode, the last one repeated.
    with Image.open(out) as image:
        images = [each.copy() for each in ImageSequence.Iterator(image)]
    frames = np.array([np.asarray(each.convert("RGB"), int) for each in images])
    assert frames.shape == (4 * 5, 96, 128, 3)
    assert sum(each.info["duration"] for each in images) == 4 * (500 + 1000)
    assert [texts[3] for texts in captions[::5]] == [
        f"episode {i} of 4" for i in range(1, 5)
    ]
    assert min(frame.std() for frame in frames) > 20
    for one, two in pairwise(frames):
        assert np.abs(one - two)[30:].max() > 50  # below the caption
    assert [*tmp_path.iterdir()] == [out]


@pytest.mark.usefixtures("_renders")
@pytest.mark.filterwarnings("ignore:episodes of")
def test_failure_while_rendering_keeps_the_previous_file(
    run, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "x.gif"
    out.write_text("the previous video")

    def fail_at_step_10(frame, texts, size):
        if texts[2] == "step 10":
            raise UserError("interrupted")
        return add_caption(frame, texts, size)

    monkeypatch.setattr(play, "add_caption", fail_at_step_10)
    with pytest.raises(UserError, match="interrupted"):
        run_video(capsys, run, f"--out={out}", "--device=cpu")
    assert [*tmp_path.iterdir()] == [out]
    assert out.read_text() == "the previous video"


@pytest.mark.usefixtures("_renders")
@pytest.mark.filterwarnings("ignore:episodes of")
def test_defaults_are_the_highest_target_and_the_first_training_seed(
    run, tmp_path, monkeypatch, capsys
):
    arguments = run, f"--out={tmp_path / 'x.gif'}", "--speed=4", "--device=cpu"
    printed = run_video(capsys, *arguments)
    assert printed.startswith("target 50, seed ")
    # 400 steps and 10 frames per second: the first, and the last, shown for a second.
    assert "x.gif: 2 frames, 10 per second" in printed
    with Image.open(tmp_path / "x.gif") as image:
        assert image.n_frames == 2

    def with_two_seeds(*arguments):
        loaded = load_for_command(*arguments)
        trained = loaded.trained
        trained.record["config"]["num_seeds"] = 2
        params = jax.tree.map(lambda p: np.stack([p, 9 * p]), trained.params)
        return replace(loaded, trained=replace(trained, params=params))

    monkeypatch.setattr(video, "load_for_command", with_two_seeds)
    assert run_video(capsys, *arguments) == printed


@pytest.mark.filterwarnings("ignore:episodes of")
def test_unwritable_path_is_refused_before_playing(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        run_video(capsys, run, f"--out={tmp_path}/file/x.gif", "--device=cpu")
    assert not capsys.readouterr().out


class CountingView(View):
    """A view of maze2d whose frames are the number of calls of `track`."""

    has_goal = True

    def __init__(self, seed):
        self.env, self.calls = envs.make(lookup("maze2d-umaze-v1"), [seed]), None

    def start_episode(self, observation):
        self.calls = 0

    def track(self, observation):
        self.calls += 1

    def render(self, observation):
        return self.calls


def test_captions_state_the_return_up_to_the_frame(monkeypatch):
    """Frames are of every third step, and of the last one."""
    monkeypatch.setattr(play, "add_caption", lambda *arguments: arguments)
    seed = 14  # starts one cell to the right of the goal
    actions, achieved = np.tile(np.float32([0, -1]), (32, 1)), [0]
    env = CountingView(seed).env
    env.host_reset()
    for action in actions:
        achieved.append(achieved[-1] + env.host_step(action[None]).rewards[0])
    episode = play.Episode(50.0, seed, actions, np.float32(achieved[-1]))
    view, size = CountingView(seed), (64, 64)
    frames = [*play.render_episode(episode, view, 3, size, "episode 2 of 3")]
    assert frames == [
        (
            step,
            [
                "target 50",
                f"return {achieved[step]:.1f}",
                f"step {step}",
                "episode 2 of 3",
                *(["goal reached"] if achieved[step] else []),
            ],
            size,
        )
        for step in [*range(0, 32, 3), 32]
    ]
    assert achieved[3] == 0 < achieved[-1]


@pytest.mark.parametrize(
    "name", ["maze2d-umaze-v1", "hopper-medium-v2", "pen-human-v1"]
)
@pytest.mark.filterwarnings("ignore:episodes of")
def test_played_episodes_match_evaluation_bitwise(name):
    """If as many episodes are played at once."""
    spec = lookup(name)
    sizes = spec.observation_size, spec.action_size
    agent = small_agent(normalizer(*sizes), episode_len=30)
    params = large_params(agent, factor=9)  # so that the body moves
    seeds = envs.episode_seeds(3, 2)
    evaluation = Evaluator(agent, spec, TARGETS, episodes=2, seed=3)(params)
    played = play.play(agent, params, spec, TARGETS, seeds)
    returns = [episode.achieved_return for episode in played]
    np.testing.assert_array_equal(returns, evaluation.returns.flatten())
    lengths = [len(episode.actions) for episode in played]
    np.testing.assert_array_equal(lengths, evaluation.lengths.flatten())
    assert [episode.target_return for episode in played] == [50.0, 50.0, 5.0, 5.0]
    assert [episode.seed for episode in played] == seeds * 2


class Constant:
    """An agent that is not conditioned on a target return."""

    conditioned, episode_len = False, 5

    def start(self, target_returns, keys):
        assert target_returns is None
        return ()

    def act(self, params, context, observations, rewards, done):
        return context, jax.numpy.full((len(observations), 2), params)


def test_agents_without_target_returns_are_played(monkeypatch):
    monkeypatch.setattr(play, "add_caption", lambda frame, texts, size: texts)
    spec = lookup("maze2d-umaze-v1")
    episodes = play.play(Constant(), np.float32(0.5), spec, None, [1, 2])
    assert [episode.target_return for episode in episodes] == [None, None]
    np.testing.assert_array_equal(episodes[0].actions, np.full((5, 2), 0.5))
    captions = [*play.render_episode(episodes[0], CountingView(1), 5, (64, 64))]
    assert captions == [["return 0.0", "step 0"], ["return 0.0", "step 5"]]


@pytest.mark.parametrize(
    ("step_seconds", "speed", "max_fps", "expected"),
    [
        (0.05, 1, 30, (1, 20)),  # halfcheetah in real time
        (0.05, 1, 10, (2, 10)),
        (0.008, 1, 30, (5, 25)),  # hopper: 125 steps per second
        (0.1, 4, 30, (2, 20)),  # antmaze, four times as fast
        (0.1, 0.5, 30, (1, 5)),
    ],
)
def test_steps_are_skipped_to_limit_the_frame_rate(
    step_seconds, speed, max_fps, expected
):
    assert play.frame_rate(step_seconds, speed, max_fps) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--out=x.avi"], "x.avi: expected a name that ends in .mp4 or .gif"),
        (["--out=x.gif", "--width=65"], "--width=65: expected an even number from 64"),
        (["--out=x.gif", "--height=8"], "--height=8: expected an even number from 64"),
        (["--out=x.gif", "--fps=0"], "--fps=0: expected a number from 0.01 to 1000"),
        (["--out=x.gif", "--speed=-1"], "--speed=-1: expected a number from 0.01 to"),
        (["--out=x.gif", "--speed=nan"], "--speed=nan: expected a number from 0.01 to"),
        (["--out=x.gif", "--episodes=0"], "nothing to play: give --episodes"),
        (["--out=x.gif", "--target_return=a"], "--target_return=a: expected"),
        ([], "required: --out; see --help"),
    ],
)
def test_invalid_arguments_are_refused(arguments, line, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(line)):
        video.main([str(run), *arguments])
    assert not [*tmp_path.iterdir()]


def test_gym_environments_are_not_rendered():
    spec = replace(envs.lookup("Pendulum-v1"), engine="gym")
    with pytest.raises(UserError, match=r"environments of gym cannot be .* --env_name"):
        make_view(spec, 0, (64, 64))
