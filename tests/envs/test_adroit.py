import envpool
import numpy as np
import pytest
from playing import play

from dt_jax.envs import adroit
from dt_jax.envs.adroit import AdroitEnv
from dt_jax.utils.errors import UserError


def play_random(task, seeds=(1, 2, 3, 4), steps=40, scale=1.0):
    env = AdroitEnv(task, seeds, 200)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-scale, scale, (steps, len(seeds), env.action_size))
    return play(env, actions), actions


def raw_rewards(task, seeds, actions):
    """Return observations [T, N, S] and rewards [T, N] of EnvPool itself."""
    pool = envpool.make_gymnasium(
        f"AdroitHand{task.capitalize()}-v1",
        num_envs=len(seeds),
        seed=list(seeds),
        max_episode_steps=200,
    )
    pool.reset()
    steps = [pool.step(a)[:2] for a in actions]
    return tuple(map(np.stack, zip(*steps, strict=True)))


def norm(vectors):
    return np.sqrt((vectors**2).sum(axis=-1))


def test_relocate_has_d4rls_reward():
    (observations, rewards, _), _ = play_random("relocate")
    o = observations[1:]
    # The ball lies on the table, below 0.04 m: this is the only term.
    np.testing.assert_allclose(rewards[:5], -0.1 * norm(o[:5, :, 30:33]), atol=1e-6)


def test_door_has_d4rls_reward():
    (observations, rewards, _), _ = play_random("door", scale=0.1)
    o = observations[1:]
    expected = -0.1 * norm(o[..., 35:38]) - 0.1 * (o[..., 28] - 1.57) ** 2
    # The remaining term is -1e-5 |qvel|^2, which is not observed.
    assert (rewards - expected < 1e-6).all()
    assert (rewards - expected > -0.03).all()


@pytest.mark.parametrize("task", ["door", "hammer", "relocate"])
def test_sign_of_the_palm_distance_is_corrected(task, monkeypatch):
    seeds = (1, 2, 3, 4)
    (_, rewards, _), actions = play_random(task, seeds)
    o, raw = raw_rewards(task, seeds, actions)
    palm_to_object = {
        "door": o[..., 29:32] - o[..., 32:35],
        "hammer": o[..., 33:36] - o[..., 36:39],
        "relocate": o[..., 30:33],
    }[task]
    np.testing.assert_allclose(rewards, raw - 0.2 * norm(palm_to_object), atol=1e-5)
    # With D4RL's sign in EnvPool, nothing is corrected.
    monkeypatch.setattr(adroit, "_excess", lambda: 0.0)
    np.testing.assert_array_equal(play_random(task, seeds)[0][1], raw)


def test_unknown_reward_weight_is_refused(monkeypatch):
    monkeypatch.setattr(adroit, "PALM_WEIGHT", 0.08)
    with pytest.raises(UserError, match=r"envpool 1\..*, got -?0\.1 x; install"):
        adroit._excess.__wrapped__()


def test_observation_layout():
    door, hammer, relocate = (
        play_random(task)[0][0] for task in ("door", "hammer", "relocate")
    )
    # Door: palm, handle, palm minus handle; the last entry is whether it is open.
    np.testing.assert_allclose(
        door[..., 29:32] - door[..., 32:35], door[..., 35:38], atol=1e-6
    )
    assert (door[..., 38] == -1).all()
    # All hands start in one pose: door's palm position holds for the other two.
    palm = door[0, :, 29:32]
    np.testing.assert_allclose(hammer[0, :, 33:36], palm, atol=1e-3)
    np.testing.assert_allclose(hammer[0, :, 36:39], [[0, -0.2, 0.035]] * 4, atol=1e-6)
    # Relocate: palm minus ball, palm minus target, ball minus target.
    np.testing.assert_allclose(
        relocate[..., 33:36] - relocate[..., 30:33], relocate[..., 36:39], atol=1e-6
    )
    ball = palm - relocate[0, :, 30:33]
    np.testing.assert_allclose(ball[:, 2], 0.035, atol=1e-3)
    target = palm - relocate[0, :, 33:36]
    assert (np.abs(target[:, :2]) < 0.21).all()  # uniform in ±0.2 m
    assert ((target[:, 2] > 0.14) & (target[:, 2] < 0.36)).all()  # 0.15 to 0.35 m


def test_pen_episode_ends_when_the_pen_drops():
    (observations, rewards, done), _ = play_random("pen", range(12), steps=99)
    fell = done.any(axis=0)
    assert fell.sum() > 3
    for i in fell.nonzero()[0]:
        end = done[:, i].argmax()
        o = observations[: end + 2, i]
        assert (o[:-1, 26] >= 0.075).all()
        assert o[-1, 26] < 0.075
        # Reward: cosine - distance - 5 for the drop. A falling pen is too far from its
        # target for the bonuses.
        cosine = o[-1, 33:36] @ o[-1, 36:39]
        expected = cosine - norm(o[-1, 39:42]) - 5
        np.testing.assert_allclose(rewards[end, i], expected, atol=1e-5)
    stays = ~fell
    assert (observations[:, stays, 26] >= 0.075).all()
