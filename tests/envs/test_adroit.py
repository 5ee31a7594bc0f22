import envpool
import numpy as np
import pytest
from playing import play

from dt_jax.data.registry import lookup
from dt_jax.envs import adroit, episode_seeds
from dt_jax.envs.adroit import AdroitEnv
from dt_jax.utils.errors import UserError

TASKS = ("pen", "door", "hammer", "relocate")


def play_random(task, seeds=(1, 2, 3, 4), steps=40, scale=1.0, **options):
    env = AdroitEnv(task, seeds, 200, **options)
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


# Mean return ± standard error of a uniformly random policy, 64 episodes of another
# implementation. D4RL's ref_min: pen 96.3, door -56.5, hammer -274.9, relocate -6.4.
@pytest.mark.parametrize(
    ("task", "mean", "error"),
    [
        ("pen", 66.8, 28),
        ("door", -56.52, 0.08),
        ("hammer", -274.6, 0.7),
        ("relocate", -7.6, 0.5),
    ],
)
def test_random_policy_has_the_reference_return(task, mean, error):
    n = 24
    limit = lookup(f"{task}-human-v1").max_episode_steps
    env = AdroitEnv(task, episode_seeds(0, n), limit)
    rng = np.random.default_rng(1)
    env.host_reset()
    running, returns = np.ones(n, bool), np.zeros(n)
    while running.any():
        _, rewards, done = env.host_step(rng.uniform(-1, 1, (n, env.action_size)))
        returns += running * rewards
        running &= ~done
    own_error = returns.std() / np.sqrt(n)
    assert abs(returns.mean() - mean) < 4 * np.hypot(error, own_error)


@pytest.mark.parametrize("task", TASKS)
def test_sizes_and_time_limit_match_the_registry(task):
    spec = lookup(f"{task}-expert-v1")
    assert spec.max_episode_steps == (100 if task == "pen" else 200)
    env = AdroitEnv(task, [3], spec.max_episode_steps)
    assert env.observation_size == spec.observation_size
    assert env.action_size == spec.action_size
    still = np.zeros((spec.max_episode_steps, 1, env.action_size))
    observations, _, done = play(env, still)
    assert observations.shape[2] == spec.observation_size
    assert not done[:-1].any()
    assert done[-1].all()


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


def test_unknown_reward_weights_are_refused():
    assert adroit._excess_of(reward=0.05, distance=0.5) == 0.2
    assert adroit._excess_of(reward=-0.05, distance=0.5) == 0
    with pytest.raises(UserError, match=r"envpool 1\..* 0\.0400 at 0\.5000 m"):
        adroit._excess_of(reward=0.04, distance=0.5)


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


@pytest.mark.parametrize("task", TASKS)
def test_results_do_not_depend_on_threads_or_other_episodes(task):
    one, actions = play_random(task, num_threads=1)
    three, _ = play_random(task, num_threads=3)
    for got, want in zip(three, one, strict=True):
        np.testing.assert_array_equal(got, want)
    single = play(AdroitEnv(task, [3], 200), actions[:, 2:3])
    np.testing.assert_array_equal(single[0][:, 0], one[0][:, 2])


@pytest.mark.parametrize("task", TASKS)
def test_reset_repeats_the_episodes(task):
    env = AdroitEnv(task, [1, 2, 1], 200)
    actions = np.ones((3, 3, env.action_size))
    first = play(env, actions)
    for got, want in zip(play(env, actions), first, strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(first[0][:, 0], first[0][:, 2])
    assert (first[0][0, 0] != first[0][0, 1]).any()


def test_actions_are_clipped():
    (wild, *_), actions = play_random("door", scale=3.0, steps=10)
    env = AdroitEnv("door", (1, 2, 3, 4), 200)
    np.testing.assert_array_equal(wild, play(env, np.clip(actions, -1, 1))[0])


def test_nan_action_is_refused():
    env = AdroitEnv("hammer", [1, 2], 200)
    env.host_reset()
    actions = np.zeros((2, env.action_size))
    actions[1, 3] = np.nan
    with pytest.raises(UserError, match=r"AdroitHandHammer-v1 .*NaN.* episode 1 of 2"):
        env.host_step(actions)
