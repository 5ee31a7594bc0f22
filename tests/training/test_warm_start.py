"""A run that starts with the parameters of another one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import dt_jax
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.config import default_config
from dt_jax.data.registry import lookup
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.evaluation.policy import Policy, load_agent
from dt_jax.interop.corl import params_from_state_dict
from dt_jax.runs import manifest
from dt_jax.runs.checkpoint import choose_checkpoint
from dt_jax.training import warm_start
from dt_jax.types import Batch
from dt_jax.utils.errors import UserError

SPEC = lookup("hopper-demo")
S, A, T = SPEC.observation_size, SPEC.action_size, 3
NETWORK = {
    "embedding_dim": 8,
    "num_layers": 1,
    "num_heads": 2,
    "activation": "gelu",
    "seq_len": T,
    "episode_len": 50,
    "max_action": 1.0,
    "reward_scale": 0.01,
}
NO_DROPOUT = dict.fromkeys(  # compiles faster
    ("attention_dropout", "residual_dropout", "embedding_dropout"), 0.0
)
PARITY = Path(__file__).parents[1] / "data/corl_parity/small_f32.npz"


@pytest.fixture(scope="module")
def run(hopper_file, tmp_path_factory):
    """The folder of a run with checkpoints at steps 1 and 2."""
    config = default_config(
        env_name=SPEC.name,
        data_path=str(hopper_file),
        **NETWORK,
        **NO_DROPOUT,
        batch_size=4,
        update_steps=2,
        checkpoint_every=1,
        eval_episodes=0,
        holdout_fraction=0.0,
    )
    folder = tmp_path_factory.mktemp("runs") / "source"
    dt_jax.train(config.lock(), folder)
    return folder


@pytest.fixture
def scored(run, tmp_path):
    """A copy of `run` in which the first checkpoint has the best score."""
    folder = tmp_path / "scored"
    shutil.copytree(run, folder)
    for step, score in ((1, 9.0), (2, 4.0)):
        content = manifest.read(folder / "checkpoints", step)
        manifest.write(folder / "checkpoints", step, content._replace(score=score))
    return folder


def new_config(**changes):
    """Return the configuration of a run that `run` fits, apart from `changes`."""
    return default_config(**NETWORK | NO_DROPOUT | changes).lock()


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def new_data(state_size=S, largest=1.0, action_size=A, offset=0.5):
    """Return other data whose actions are within ± `largest`."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-largest, largest, (9, action_size)).astype(np.float32)
    actions[0] = largest
    raw = RawData(
        rng.normal(offset, 0.5, (9, state_size)).astype(np.float32),
        actions,
        np.ones(9, np.float32),
        np.zeros(9, bool),
        np.arange(9) % 3 == 2,
    )
    return Trajectories.from_raw(raw, source="new.hdf5")


def params_of(run, step):
    return load_agent(run, step).params


def test_first_loss_equals_the_source_bit_for_bit(run):
    """On other data, normalised with the source's statistics."""
    trained = load_agent(run, "last")
    before, params = trained.agent, trained.params
    config = new_config()
    start = warm_start.load(str(run), config)
    normalizer = start.normalizer_for(config, new_data(), SPEC)
    agent = DecisionTransformerAgent.from_config(config, normalizer)
    rng = np.random.default_rng(1)
    observations = rng.normal(3, 2, (4, T, S)).astype(np.float32)
    batch = Batch(
        states=(observations - normalizer.state_mean) / normalizer.state_std,
        actions=rng.uniform(-1, 1, (4, T, A)).astype(np.float32),
        returns_to_go=rng.uniform(0, 1, (4, T)).astype(np.float32),
        timesteps=np.arange(T, dtype=np.int32) + np.arange(4, dtype=np.int32)[:, None],
        mask=np.ones((4, T), np.float32),
    )
    key = jax.random.key(0)
    loss = jax.jit(agent.loss)
    ours = loss(start.params, batch, key)
    assert ours == jax.jit(before.loss)(params, batch, key)
    assert ours != loss(jax.tree.map(np.zeros_like, start.params), batch, key)


def test_first_actions_equal_the_source(run):
    start = warm_start.load(str(run), new_config())
    agent = DecisionTransformerAgent.from_config(new_config(), start.normalizer)
    actions = []
    for policy in (Policy.load(run), Policy(agent, start.params)):
        policy.reset(300.0)
        actions.append(policy.act(np.linspace(-1, 1, S)))
    assert_equal(*actions)


@pytest.mark.parametrize(
    ("notation", "step"),
    [
        ("", 2),
        ("checkpoints", 2),
        ("checkpoints/", 2),
        ("checkpoints/last", 2),
        ("checkpoints/2", 2),
        ("checkpoints/1", 1),
        ("checkpoints/best", 1),
    ],
)
def test_source_may_be_one_checkpoint(run, scored, notation, step):
    loaded = warm_start.load(f"{scored}/{notation}", new_config()).params
    assert_equal(loaded, params_of(run, step))
    other = params_of(run, 3 - step)
    other = jax.tree.map(lambda a, b: (a != b).any(), loaded, other)
    assert any(jax.tree.leaves(other))


@pytest.mark.parametrize("name", ["checkpoints/hopper", "checkpoints"])
def test_source_may_be_a_run_in_a_folder_named_checkpoints(run, scored, tmp_path, name):
    """For example by --config.checkpoints_path=checkpoints."""
    shutil.copytree(scored, tmp_path / name)
    loaded = warm_start.load(str(tmp_path / name), new_config()).params
    assert_equal(loaded, params_of(run, 2))


def test_keys_that_are_none_are_taken_from_the_source(run, capsys):
    config = new_config(episode_len=None, max_action=None, reward_scale=None)
    warm_start.load(str(run), config)
    assert {key: config[key] for key in NETWORK} == NETWORK
    printed = capsys.readouterr().out
    assert f"max_action 1.0: that of {run}" in printed
    assert f"episode_len 50: that of {run}" in printed
    assert f"reward_scale 0.01: that of {run}" in printed
    assert f"those of {run} after 2 updates" in printed


def test_another_reward_scale_is_reported(run, capsys):
    config = new_config(reward_scale=0.5)
    warm_start.load(str(run), config)
    assert config.reward_scale == 0.5
    printed = capsys.readouterr().out
    assert f"reward_scale 0.5, but {run} was trained with 0.01" in printed


OTHER = {
    "embedding_dim": 16,
    "num_layers": 2,
    "num_heads": 4,
    "activation": "relu",
    "seq_len": 4,
    "episode_len": 49,
    "max_action": 2.0,
}


@pytest.mark.parametrize("key", OTHER)
def test_another_architecture_is_refused(run, key):
    message = (
        rf"{run} was trained with {key}={NETWORK[key]} \(here {OTHER[key]}\): "
        rf"set --config.{key}={NETWORK[key]}, or leave"
    )
    with pytest.raises(UserError, match=message):
        warm_start.load(str(run), new_config(**{key: OTHER[key]}))


def test_all_differing_keys_are_named_at_once(run):
    """Here the timestep table has the same size, seq_len + episode_len."""
    with pytest.raises(UserError, match=r"seq_len=3 --config\.episode_len=50, or"):
        warm_start.load(str(run), new_config(seq_len=5, episode_len=48))


def test_dropout_may_differ(run):
    assert_equal(
        warm_start.load(str(run), new_config(attention_dropout=0.5)).params,
        warm_start.load(str(run), new_config()).params,
    )


def test_statistics_of_the_source_are_used(run):
    """But the reward_scale is that of the new run."""
    start = warm_start.load(str(run), new_config())
    config = new_config(reward_scale=0.5)
    used = start.normalizer_for(config, new_data(), SPEC).to_record()
    theirs = choose_checkpoint(run / "checkpoints", "last").record["normalizer"]
    assert used == theirs | {"reward_scale": 0.5}


@pytest.mark.parametrize(
    ("data", "spec", "message"),
    [
        ({"state_size": 17}, SPEC, "of 11 and actions of 3 n.*new.hdf5 has 17"),
        ({"largest": 1.5}, SPEC, "actions .* number 0 was -1 to 1 there, here it is"),
        ({"largest": 1.5}, None, "out of the range of .*: clip the actions, or leave"),
        ({}, replace(SPEC, action_high=2.0), "other bounds on actions: number 0 was"),
    ],
)
def test_data_of_other_sizes_or_out_of_the_sources_range_is_refused(
    run, data, spec, message
):
    config = new_config()
    start = warm_start.load(str(run), config)
    with pytest.raises(UserError, match=message):
        start.normalizer_for(config, new_data(**data), spec)


def test_data_in_a_part_of_the_sources_range_keeps_its_mapping(run):
    """Also where a new run would map it otherwise: without an environment."""
    config = new_config()
    start = warm_start.load(str(run), config)
    used = start.normalizer_for(config, new_data(largest=0.01), None)
    np.testing.assert_array_equal(used.action_scale, np.ones(A))
    start.normalizer_for(config, new_data(largest=np.nextafter(1, 2)), SPEC)


@pytest.mark.parametrize(("number", "value"), [("mean", "1"), ("deviation", "2")])
def test_observations_in_other_units_than_the_sources_are_a_warning(run, number, value):
    config, data = new_config(), new_data()
    start = warm_start.load(str(run), config)
    start.normalizer_for(config, data, SPEC)
    mean, std = start.normalizer.state_mean.copy(), data.state_std.copy()
    if number == "mean":
        mean[3] += 11 * start.normalizer.state_std[3]
    else:
        mean, std[3] = data.state_mean, 12 * start.normalizer.state_std[3]
    other = replace(data, state_mean=mean, state_std=std)
    message = f"new.hdf5: observation number 3 has a .*{number} of 1{value} .*convert"
    with pytest.warns(UserWarning, match=message):
        start.normalizer_for(config, other, SPEC)


def test_constant_numbers_of_a_source_that_divides_by_1e_6_are_not_scaled(run):
    """As in CORL's files: another value would be thousands to the network."""
    config = new_config()
    start = warm_start.load(str(run), config)
    std = start.normalizer.state_std.copy()
    std[2] = np.float32(0) + np.float32(1e-6)
    start = start._replace(normalizer=replace(start.normalizer, state_std=std))
    used = start.normalizer_for(config, new_data(), SPEC).state_std
    assert used[2] == 1
    np.testing.assert_array_equal(np.delete(used, 2), np.delete(std, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_seeds": 2}, "is a run of 2 seeds: a run can start with only one"),
        ({"agent": "other"}, "is a run of the agent other, not dt: leave init_from"),
    ],
)
def test_run_of_several_seeds_or_another_agent_is_refused(
    run, tmp_path, changes, message
):
    folder = shutil.copytree(run, tmp_path / "changed") / "checkpoints"
    content = manifest.read(folder, 2)
    content.record["config"] |= changes
    manifest.write(folder, 2, content)
    with pytest.raises(UserError, match=message):
        warm_start.load(f"{tmp_path}/changed", new_config())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere: expected .*, or a file saved by CORL"),
        ("nowhere/checkpoints/best", "best: expected .*, or a file saved by CORL"),
        ("checkpoints/dt_checkpoint.pt", "pt: expected .*, or a file saved by CORL"),
        ("empty", "no checkpoint in .*: is it the folder of a"),
        ("", "has no checkpoint yet"),
        ("checkpoints", "has no checkpoint yet"),
        ("checkpoints/best", "has no checkpoint yet"),
    ],
)
def test_missing_source_is_reported(tmp_path, source, message):
    for folder in ("checkpoints", "empty"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match=message):
        warm_start.load(f"{tmp_path}/{source}", new_config())


def test_missing_checkpoint_is_reported(run):
    with pytest.raises(UserError, match=r"'99' in .*there are: last, best, 1, 2$"):
        warm_start.load(f"{run}/checkpoints/99", new_config())


@pytest.fixture(scope="module")
def corl():
    """Values recorded from CORL, among them its parameters and an episode."""
    return dict(np.load(PARITY))


@pytest.fixture
def corl_config(corl):
    """The configuration of the values recorded from CORL."""
    values = json.loads(str(corl["config"]))
    return new_config(**{key: values[key] for key in NETWORK if key in values})


@pytest.fixture
def corl_file(corl, tmp_path):
    return save_as_corl(tmp_path, corl)


def save_as_corl(folder, corl, seq_len=8, **changes):
    """Write the file that CORL's dt.py saves at the end."""
    torch = pytest.importorskip("torch")
    model_state = {
        f"blocks.{i}.causal_mask": ~torch.ones(3 * seq_len, 3 * seq_len).tril().bool()
        for i in range(2)
    }
    for name, array in (final(corl) | changes).items():
        model_state[name] = torch.tensor(array)
    statistics = {key: corl[f"dataset/{key}"] for key in ("state_mean", "state_std")}
    path = folder / "dt_checkpoint.pt"
    torch.save({"model_state": model_state} | statistics, path)
    return path


def final(corl):
    """Return the state_dict at the end of CORL's training."""
    return {
        name.removeprefix("final/"): array
        for name, array in corl.items()
        if name.startswith("final/")
    }


def test_network_of_corl_acts_as_in_corl(corl, corl_config, corl_file, capsys):
    """In the episode that CORL's own rollout recorded."""
    start = warm_start.load(str(corl_file), corl_config)
    assert_equal(start.params, params_from_state_dict(final(corl)))
    assert "and reward_scale; 4, 1 and 0.01 here have to" in capsys.readouterr().out
    agent = DecisionTransformerAgent.from_config(corl_config, start.normalizer)
    policy = Policy(agent, start.params)
    policy.reset(corl["rollout/target_return"].item())
    normalised = corl["rollout/observations"]  # one more than actions
    raw = normalised * corl["dataset/state_std"] + corl["dataset/state_mean"]
    rewards = [None, *corl["rollout/rewards"]]
    for observation, reward, action in zip(
        raw[:-1], rewards[:-1], corl["rollout/actions"], strict=True
    ):
        ours = policy.act(observation, reward)
        np.testing.assert_allclose(ours, action, rtol=0, atol=1e-5)


def test_keys_that_are_none_are_taken_from_corls_file(corl_config, corl_file, capsys):
    """Without a max_action it is 1, as in all of D4RL."""
    corl_config.episode_len = corl_config.max_action = None
    warm_start.load(str(corl_file), corl_config)
    assert (corl_config.episode_len, corl_config.max_action) == (40, 1.0)
    assert "and reward_scale; 4, 1 and 0.01 here have to" in capsys.readouterr().out


def test_corls_file_does_not_have_its_reward_scale(corl_config, corl_file):
    corl_config.reward_scale = None
    with pytest.raises(UserError, match="does not hold its reward_scale: give the one"):
        warm_start.load(str(corl_file), corl_config)


@pytest.mark.parametrize(
    "key", ["embedding_dim", "num_layers", "seq_len", "episode_len"]
)
def test_another_architecture_than_corls_is_refused(corl_config, corl_file, key):
    theirs = corl_config[key]
    other = corl_config[key] = 2 * theirs
    message = rf"with {key}={theirs} \(here {other}\): set --config.{key}={theirs},"
    with pytest.raises(UserError, match=message):
        warm_start.load(str(corl_file), corl_config)


def test_variant_of_corls_network_is_refused(corl, corl_config, tmp_path):
    """With a narrower MLP, for which there is no key."""
    narrow = {
        "blocks.0.mlp.0.weight": np.zeros((64, 32), np.float32),
        "blocks.0.mlp.0.bias": np.zeros(64, np.float32),
        "blocks.0.mlp.2.weight": np.zeros((32, 64), np.float32),
    }
    path = save_as_corl(tmp_path, corl, **narrow)
    with pytest.raises(UserError, match=r"blocks_0/mlp_in/\w+ has shape .*64"):
        warm_start.load(str(path), corl_config)


def test_actions_of_corl_are_not_scaled(corl_config, corl_file):
    start = warm_start.load(str(corl_file), corl_config)
    with pytest.raises(UserError, match="number 0 was -1 to 1 there, here it is 2:"):
        start.normalizer_for(corl_config, new_data(5, 2, action_size=2), None)
    data = new_data(5, action_size=2)
    used = start.normalizer_for(corl_config, data, None)
    np.testing.assert_array_equal(used.action_scale, [1, 1])
    np.testing.assert_array_equal(used.state_mean, start.normalizer.state_mean)
