"""Runs of the Q-value regularised Transformer in both modes, on the corridor."""

import jax
import numpy as np
import pytest
from helpers import TINY_TRANSFORMER, assert_same_run, changed, restored, train_until

from dt_jax.config import default_config
from dt_jax.config.load import validate
from dt_jax.datasets.demo import collect_demo
from dt_jax.evaluation.policy import Policy, load_agent
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.dry_run import dry_run
from dt_jax.training.stages import stage_configs
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

METRICS = {
    "qt": {"train_loss", "action_loss", "state_loss", "value_loss", "critic_loss"},
    "qcs": {"train_loss", "action_loss", "value_loss", "q_mean"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("qt")
    collect_demo("corridor-demo", path / "corridor.hdf5", steps=100)
    return path


@pytest.fixture(params=["qt", pytest.param("qcs", marks=pytest.mark.slow)])
def mode(request):
    return request.param


@pytest.fixture
def config(mode, folder):
    """Return a run of 8 updates for two seeds."""
    config = default_config(
        "qt",
        mode=mode,
        env_name="corridor-demo",
        data_path=str(folder / "corridor.hdf5"),
        **TINY_TRANSFORMER,
        seq_len=2,
        batch_size=4,
        update_steps=8,
        eval_every=8,
        eval_episodes=2,
        target_returns=(10.0,),
        reward_scale=0.1,
        log_every=1,
        checkpoint_every=4,
        num_workers=0,
        num_seeds=2,
        critic_dim=8,
        critic_update_steps=6,
        critic_batch_size=4,
        ema_start=1,
        ema_every=2,
        num_candidates=5,
    )
    validate(config)
    return config.lock()


@pytest.fixture
def finished(config, mode, folder):
    """Return the folder of the complete run; tests must not change it."""
    if not (folder / mode).exists():
        train(config, folder / mode)
    return folder / mode


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(finished, config, tmp_path):
    train_until(7, config, tmp_path / "run")  # after the critic, in qcs
    train(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", finished)


@pytest.fixture
def single(config, mode, folder):
    """Return the folder of a complete run of the second seed only."""
    if not (folder / f"{mode}-11").exists():
        train(changed(config, num_seeds=1, train_seed=11), folder / f"{mode}-11")
    return folder / f"{mode}-11"


def assert_close(ours, theirs, atol):
    """Compare the acting parameters of seed 11 of two runs."""
    trees = (load_agent(run, "last").seed_params(11) for run in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), *trees)


@pytest.mark.slow
def test_its_seeds_equal_single_runs(finished, single):
    assert_close(finished, single, atol=2e-5)


def test_its_metrics_are_logged_per_seed(finished, mode):
    last = read_metrics(finished / "metrics.jsonl")[-1]
    for name in METRICS[mode]:
        assert last[f"seed_10/{name}"] != last[f"seed_11/{name}"]


@pytest.mark.parametrize("mode", ["qt"])
def test_its_averages_are_saved_once_as_the_acting_parameters(finished):
    params, train_state = (restored(finished, name) for name in ("params", "train"))
    assert {name.split("'")[1] for name in params} == {"actor", "critic"}
    assert not any("['extra']" in name for name in train_state)


@pytest.mark.parametrize("mode", ["qcs"])
def test_the_critic_of_qcs_learns_rewards_in_the_scale_asked_for(config):
    for critic_scale, scale, expected in [(2.0, 0.1, 2.0), (None, 0.1, 0.1)]:
        changes = {"critic_reward_scale": critic_scale, "reward_scale": scale}
        (stage,) = stage_configs(changed(config, **changes)).values()
        assert stage.reward_scale == expected
    left_to_data = changed(config, critic_reward_scale=None, reward_scale=None)
    assert stage_configs(left_to_data)["critic"].reward_scale is None


def test_a_saved_policy_acts_by_the_key_of_its_episode(finished):
    policy = Policy.load(finished, seed=11)
    state = np.eye(3)[[0, 0]]
    policy.reset([10.0, 10.0], seed=1)
    first = policy.act(state)
    assert first.shape == (2,)
    policy.reset([10.0, 10.0], seed=1)
    np.testing.assert_array_equal(policy.act(state), first)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["qcs"])
def test_the_critic_of_each_seed_is_frozen_and_in_the_checkpoint(finished):
    saved, critic = restored(finished, "train"), restored(finished / "critic", "params")
    frozen = {k: v for k, v in saved.items() if k.startswith("['extra']['critic']")}
    assert frozen
    for name, array in frozen.items():
        assert critic[name.removeprefix("['extra']")] == array


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["qcs"])
def test_a_critic_from_another_run(finished, config, tmp_path, folder):
    taken = changed(config, labels_from=str(finished / "critic"))
    train(taken, tmp_path / "run")
    assert not (tmp_path / "run" / "critic").exists()
    assert restored(tmp_path / "run", "params") == restored(finished, "params")
    message = "config.labels_from=.*/critic: the critic there has other keys than this "
    for changes, keys in [
        ({"critic_dim": 16}, "critic_dim 8 -> 16"),
        ({"critic_reward_scale": 2.0}, "critic_reward_scale 1 -> 2"),
        ({"critic_layers": 1}, "critic_layers 2 -> 1"),
    ]:
        for use in train, dry_run:
            with pytest.raises(UserError, match=rf"{message}run \({keys}\): set"):
                use(changed(taken, **changes), tmp_path / "other")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["qcs"])
def test_a_dry_run_tries_the_critic_too(config, tmp_path, capsys):
    dry_run(config, tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "dry run" in line]) == 2


@pytest.mark.slow
def test_a_warm_start_begins_with_all_networks_of_its_source(single, config, tmp_path):
    warm = changed(config, init_from=str(single), num_seeds=1, train_seed=11)
    warm = changed(warm, update_steps=1, tau=1e-9, learning_rate=1e-9, qf_lr=1e-9)
    train(changed(warm, labels_from=critic_of(single)), tmp_path / "run")
    assert_close(tmp_path / "run", single, atol=1e-6)


def critic_of(run):
    """Return the folder of the frozen critic, if the run has one."""
    return str(run / "critic") if (run / "critic").exists() else None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward_scale": 0.0}, "reward_scale=0: expected a number above 0"),
        ({"labels_from": "runs/x"}, "labels_from=runs/x: expected None with mode=qt"),
        ({"seq_len": 1}, "seq_len=1: expected at least 2, or k_rewards=False"),
    ],
)
@pytest.mark.parametrize("mode", ["qt"])
def test_keys_that_contradict_each_other(config, changes, message):
    with pytest.raises(UserError, match=message):
        validate(changed(config, **changes))
