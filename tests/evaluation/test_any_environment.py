"""From a recorded file to actions, in environments outside D4RL."""

import gymnasium
import h5py
import numpy as np
import pytest

from dt_jax.cli import evaluate
from dt_jax.config import default_config
from dt_jax.evaluation.policy import Policy
from dt_jax.runs.evaluations import last_evaluation
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

LOW, HIGH = np.array([-3, 0], np.float32), np.array([1, 0.5], np.float32)


class Lopsided(gymnasium.Env):
    """Rewards the distance of the action from LOW; an episode has 6 steps."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(LOW, HIGH)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self._observe(), float(np.abs(action - LOW).sum()), False, False, {}

    def _observe(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


@pytest.fixture(autouse=True)
def _registered():
    for env_id in ("Lopsided-v0", "Other-v0"):
        gymnasium.register(env_id, Lopsided, max_episode_steps=6)
    yield
    for env_id in ("Lopsided-v0", "Other-v0"):
        del gymnasium.registry[env_id]


def record(env_id, path, act, episodes=2):
    """Record episodes of the policy act(observation, rng), as a user would."""
    env, rng = gymnasium.make(env_id), np.random.default_rng(0)
    rows = []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            action = np.asarray(act(observation, rng), np.float32)
            following, reward, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
            rows.append((observation, action, reward, terminated, truncated))
            observation = following
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    with h5py.File(path, "w") as file:
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            file[name] = np.array(values)
    return str(path)


def config_for(env_name, data_path, **changes):
    sizes = {"embedding_dim": 8, "num_layers": 1, "seq_len": 3, "batch_size": 32}
    config = default_config(
        env_name=env_name,
        data_path=data_path,
        **sizes,
        update_steps=60,
        warmup_steps=5,
        learning_rate=3e-2,
        residual_dropout=0.0,
        attention_dropout=0.0,
        embedding_dropout=0.0,
        episode_len=200,
        reward_scale=0.01,
        eval_episodes=2,
        target_returns=(-300.0,),
        num_workers=0,
    )
    config.update(changes)
    return config.lock()


@pytest.mark.slow
def test_pendulum_without_reference_scores(tmp_path, capsys, monkeypatch):
    """The policy uses the bounds of ±2, as the data does."""
    path = record(
        "Pendulum-v1", tmp_path / "pendulum.hdf5", lambda o, rng: [2 * np.sign(o[1])]
    )
    run = tmp_path / "run"
    train(config_for("Pendulum-v1", path), run)
    assert "score" not in capsys.readouterr().out.replace("scored as", "")
    rows = read_metrics(run / "metrics.jsonl")
    assert "eval/-300.0_return_mean" in rows[-1]
    assert not any("score" in name for row in rows for name in row)
    step, evaluation = last_evaluation(run)
    assert step == 60
    assert (evaluation.lengths == 200).all()
    assert (evaluation.returns < 0).all()

    policy = Policy.load(run, "best")
    observations = np.array([[0, 1, 0], [0, -1, 0]], np.float32)
    policy.reset([-300.0, -300.0])
    actions = policy.act(observations)
    assert 1 < actions[0, 0] <= 2
    assert -2 <= actions[1, 0] < -1

    command = [str(run), "--episodes=1", "--reference_scores=-1200,-150"]
    evaluate.main([*command, "--device=auto"])
    assert "normalised score" in capsys.readouterr().out


@pytest.mark.slow
def test_action_bounds_differ_per_dimension(tmp_path, capsys, monkeypatch):
    """Also: the user's reference scores hold for the run's environment only."""
    path = record(
        "Lopsided-v0",
        tmp_path / "lopsided.hdf5",
        lambda o, rng: np.where(o > 0, HIGH - 0.1, LOW + 0.1),
        episodes=20,
    )
    changes = {"max_action": 2.0, "target_returns": (10.0,)}
    config = config_for("Lopsided-v0", path, **changes, reference_scores=(0.0, 27.0))
    train(config, tmp_path / "run")
    _, evaluation = last_evaluation(tmp_path / "run")
    assert (evaluation.lengths == 6).all()
    np.testing.assert_allclose(
        evaluation.normalized_scores, 100 * evaluation.returns / 27, rtol=1e-5
    )
    with pytest.raises(UserError, match=r"reference_scores \(0.0, 27.0\) -> None"):
        train(config_for("Lopsided-v0", path, **changes), tmp_path / "run")
    policy = Policy.load(tmp_path / "run")
    policy.reset([10.0, 10.0])
    actions = policy.act(np.array([[0.8, 0.8], [-0.8, -0.8]], np.float32))
    np.testing.assert_allclose(actions[0], HIGH - 0.1, atol=0.4)
    np.testing.assert_allclose(actions[1], LOW + 0.1, atol=0.4)
    assert (actions <= HIGH).all()
    assert (actions >= LOW).all()

    assert "normalised score" in capsys.readouterr().out
    command = [str(tmp_path / "run"), "--episodes=1", "--env_name=Other-v0"]
    evaluate.main(command)
    shown = capsys.readouterr().out
    assert "scored as Other-v0" in " ".join(shown.split())
    assert "normalised score" not in shown


def test_mismatched_environment_is_refused_before_anything_is_written(tmp_path):
    path = record(
        "Lopsided-v0", tmp_path / "a.hdf5", lambda o, rng: rng.uniform(LOW, HIGH)
    )
    for env_name, message in [
        ("Pendulum-v1", "observation size 2 and action size 2 do not match"),
        ("CartPole-v1", "row 0 is not one-hot"),
        ("Lopsded-v0", "nearest: Lopsided-v0"),
    ]:
        with pytest.raises(UserError, match=message):
            train(config_for(env_name, path), tmp_path / "run")
    assert not (tmp_path / "run").exists()
