import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.config import default_config
from dt_jax.data.registry import lookup
from dt_jax.evaluation.policy import Policy, restore
from dt_jax.interop.corl import params_from_state_dict
from dt_jax.runs import manifest
from dt_jax.runs.checkpoint import CheckpointWriter
from dt_jax.training import warm_start
from dt_jax.training.train import train
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
PARITY = Path(__file__).parent / "data/corl_parity/small_f32.npz"


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
    train(config.lock(), folder)
    return folder


@pytest.fixture
def scored(run, tmp_path):
    """A copy of `run`, as if evaluations had found its first checkpoint the best."""
    folder = tmp_path / "scored"
    shutil.copytree(run, folder)
    for step, score in ((1, 9.0), (2, 4.0)):
        manifest.write(folder / "checkpoints", step, score)
    return folder


def new_config(**changes):
    """The configuration of a run that `run` fits, but for `changes`."""
    config = default_config()
    config.update(NETWORK | NO_DROPOUT)
    for key, value in changes.items():  # update would take None for "as it is"
        config[key] = value
    return config.lock()


def same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def own_scaling(state_size=S, center=0.0, scale=1.0):
    """What another dataset and an environment would give."""
    return {
        "state_mean": np.full(state_size, 7, np.float32),
        "state_std": np.full(state_size, 5, np.float32),
        "action_center": np.full(A, center, np.float32),
        "action_scale": np.full(A, scale, np.float32),
    }


def test_the_first_loss_is_that_of_the_source(run):
    """On other data, normalised by the source's statistics; to the last bit."""
    before, params, _ = restore(run, "last")
    config = new_config()
    start = warm_start.load(str(run), config)
    scaling = start.scaling_for("new.hdf5", own_scaling())
    agent = DecisionTransformerAgent.from_config(config, **scaling)
    rng = np.random.default_rng(1)
    observations = rng.normal(3, 2, (4, T, S)).astype(np.float32)
    batch = Batch(
        states=(observations - scaling["state_mean"]) / scaling["state_std"],
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


def test_it_acts_as_the_source_does(run):
    start = warm_start.load(str(run), new_config())
    agent = DecisionTransformerAgent.from_config(new_config(), **start.scaling)
    actions = []
    for policy in (Policy.load(run), Policy(agent, start.params)):
        policy.reset(300.0)
        actions.append(policy.act(np.linspace(-1, 1, S)))
    same(*actions)


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
def test_the_source_may_be_one_checkpoint(run, scored, notation, step):
    loaded = warm_start.load(f"{scored}/{notation}", new_config()).params
    same(loaded, restore(run, step)[1])
    other = jax.tree.map(lambda a, b: (a != b).any(), loaded, restore(run, 3 - step)[1])
    assert any(jax.tree.leaves(other))


@pytest.mark.parametrize("name", ["checkpoints/hopper", "checkpoints"])
def test_the_source_may_be_a_run_among_checkpoints(run, scored, tmp_path, name):
    """As with --config.checkpoints_path=checkpoints."""
    shutil.copytree(scored, tmp_path / name)
    loaded = warm_start.load(str(tmp_path / name), new_config()).params
    same(loaded, restore(run, 2)[1])


def test_the_parameters_outlive_a_donating_update(run):
    params = warm_start.load(str(run), new_config()).params
    copy = jax.tree.map(np.copy, params)
    on_device = jax.tree.map(jnp.array, params)
    jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)(on_device)
    same(params, copy)


def test_open_keys_are_the_sources(run, capsys):
    config = new_config(episode_len=None, max_action=None, reward_scale=None)
    warm_start.load(str(run), config)
    assert {key: config[key] for key in NETWORK} == NETWORK
    printed = capsys.readouterr().out
    assert f"max_action 1.0: that of {run}" in printed
    assert f"episode_len 50: that of {run}" in printed
    assert f"reward_scale 0.01: that of {run}" in printed
    assert f"those of {run} after 2 updates" in printed


def test_another_reward_scale_is_said(run, capsys):
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
def test_another_network_is_refused(run, key):
    message = (
        rf"{run} was trained with {key}={NETWORK[key]} \(here {OTHER[key]}\): "
        rf"set --config.{key}={NETWORK[key]}, or leave"
    )
    with pytest.raises(UserError, match=message):
        warm_start.load(str(run), new_config(**{key: OTHER[key]}))


def test_a_run_from_before_there_was_the_key_is_held_by_it_too(tmp_path):
    older = {"config": dict(new_config().to_dict(), activation=None)}
    del older["config"]["activation"]
    with CheckpointWriter(tmp_path / "checkpoints", 2) as writer:
        writer.save(1, {"kernel": jnp.zeros(2)}, {"step": jnp.int32(1)}, older, None)
    with pytest.raises(UserError, match=r"trained with activation=gelu \(here relu\)"):
        warm_start.load(str(tmp_path), new_config(activation="relu"))


def test_all_that_is_other_is_named_at_once(run):
    """The sum of seq_len and episode_len, and so the table's size, is the same here."""
    with pytest.raises(UserError, match=r"seq_len=3 --config\.episode_len=50, or"):
        warm_start.load(str(run), new_config(seq_len=5, episode_len=48))


def test_dropout_may_be_other(run):
    same(
        warm_start.load(str(run), new_config(attention_dropout=0.5)).params,
        warm_start.load(str(run), new_config()).params,
    )


def test_the_sources_statistics_are_taken(run):
    start = warm_start.load(str(run), new_config())
    scaling = start.scaling_for("new.hdf5", own_scaling())
    record = choose_checkpoint(run / "checkpoints", "last").record
    assert scaling.keys() == own_scaling().keys()
    for name, array in scaling.items():
        np.testing.assert_array_equal(array, np.float32(record[name]), strict=True)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        (own_scaling(state_size=17), "of 11 and actions of 3 numbers; new.hdf5 has 17"),
        (own_scaling(center=0.5), "of action 0, the network's 0 and 1 were 0 and 1,"),
        (own_scaling(scale=0.4), "0 and 1 were 0 and 1, here 0 and 0.4; leave"),
        (own_scaling(scale=0.4), f"or set --config.env_name={SPEC.name}$"),
    ],
)
def test_other_data_is_refused(run, scaling, message):
    start = warm_start.load(str(run), new_config())
    with pytest.raises(UserError, match=message):
        start.scaling_for("new.hdf5", scaling)


def save_with(folder, run, config):
    """Save the last checkpoint of `run` as if `config` were that of its record."""
    record = choose_checkpoint(run / "checkpoints", "last").record | {"config": config}
    with CheckpointWriter(folder / "checkpoints", 2) as writer:
        params = restore(run, "last")[1]
        writer.save(7, params, {"step": jnp.int32(7)}, record, None)


def test_a_source_without_an_environment_is_said_to_have_none(run, tmp_path):
    save_with(tmp_path, run, NETWORK | {"env_name": None})
    start = warm_start.load(str(tmp_path), new_config())
    with pytest.raises(UserError, match=r"or set --config\.env_name=None$"):
        start.scaling_for("new.hdf5", own_scaling(scale=0.4))


def test_a_run_of_an_older_version_needs_no_other_keys(run, tmp_path):
    save_with(tmp_path, run, NETWORK)
    loaded = warm_start.load(str(tmp_path), new_config()).params
    same(loaded, restore(run, "last")[1])


def test_a_source_that_is_not_there(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    nowhere = ("nowhere", "nowhere/checkpoints/best", "checkpoints/dt_checkpoint.pt")
    for path in nowhere:
        with pytest.raises(
            UserError, match=f"{path}: expected .*, or a file that CORL"
        ):
            warm_start.load(f"{tmp_path}/{path}", new_config())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no checkpoint in .*: is it the folder of a"):
        warm_start.load(f"{tmp_path}/empty", new_config())


def test_a_checkpoint_that_is_not_there(run):
    with pytest.raises(UserError, match=r"'99' in .*there are: last, best, 1, 2$"):
        warm_start.load(f"{run}/checkpoints/99", new_config())


@pytest.mark.parametrize("notation", ["", "checkpoints", "checkpoints/best"])
def test_a_run_without_a_whole_checkpoint_is_no_source_yet(tmp_path, notation):
    (tmp_path / "checkpoints").mkdir()
    message = f"^{tmp_path} is a run, but none of its checkpoints is whole yet"
    with pytest.raises(UserError, match=message):
        warm_start.load(f"{tmp_path}/{notation}", new_config())


@pytest.fixture(scope="module")
def corl():
    """Numbers from running CORL: its parameters among them, and an episode."""
    return dict(np.load(PARITY))


@pytest.fixture
def corl_config(corl):
    """The configuration that CORL's numbers were made with."""
    values = json.loads(str(corl["config"]))
    return new_config(**{key: values[key] for key in NETWORK if key in values})


@pytest.fixture
def corl_file(corl, tmp_path):
    return save_as_corl(tmp_path, corl)


def save_as_corl(folder, corl, seq_len=8, **changes):
    """Write what CORL's dt.py saves at the end."""
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
    """The state_dict at the end of CORL's training."""
    return {
        name.removeprefix("final/"): array
        for name, array in corl.items()
        if name.startswith("final/")
    }


def test_corls_network_acts_as_in_corl(corl, corl_config, corl_file, capsys):
    """Through the episode that CORL's own rollout played."""
    start = warm_start.load(str(corl_file), corl_config)
    same(start.params, params_from_state_dict(final(corl)))
    assert "and reward_scale; 4, 1 and 0.01 here have to" in capsys.readouterr().out
    agent = DecisionTransformerAgent.from_config(corl_config, **start.scaling)
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


def test_what_corls_file_says_fills_open_keys(corl_config, corl_file):
    corl_config.episode_len = None
    warm_start.load(str(corl_file), corl_config)
    assert corl_config.episode_len == 40


def test_corls_actions_are_of_d4rls_size(corl_config, corl_file, capsys):
    """Where the configuration leaves it open: the file does not tell."""
    corl_config.max_action = None
    warm_start.load(str(corl_file), corl_config)
    assert corl_config.max_action == 1.0
    assert "and reward_scale; 4, 1 and 0.01 here have to" in capsys.readouterr().out


def test_corls_file_does_not_say_its_reward_scale(corl_config, corl_file):
    corl_config.reward_scale = None
    with pytest.raises(UserError, match="does not say its reward_scale: give the one"):
        warm_start.load(str(corl_file), corl_config)


@pytest.mark.parametrize(
    ("key", "theirs", "other"),
    [
        ("embedding_dim", 32, 64),
        ("num_layers", 2, 3),
        ("seq_len", 8, 20),
        ("episode_len", 40, 1000),
    ],
)
def test_another_network_than_corls_is_refused(
    corl_config, corl_file, key, theirs, other
):
    corl_config[key] = other
    message = rf"with {key}={theirs} \(here {other}\): set --config.{key}={theirs},"
    with pytest.raises(UserError, match=message):
        warm_start.load(str(corl_file), corl_config)


def test_a_variant_of_corls_network_is_refused(corl, corl_config, tmp_path):
    """A narrower MLP: no key of the configuration says so."""
    narrow = {
        "blocks.0.mlp.0.weight": np.zeros((64, 32), np.float32),
        "blocks.0.mlp.0.bias": np.zeros(64, np.float32),
        "blocks.0.mlp.2.weight": np.zeros((32, 64), np.float32),
    }
    path = save_as_corl(tmp_path, corl, **narrow)
    with pytest.raises(UserError, match=r"blocks_0/mlp_in/\w+ has shape .*64"):
        warm_start.load(str(path), corl_config)


def test_corls_actions_are_raw(corl_config, corl_file):
    start = warm_start.load(str(corl_file), corl_config)
    own = {
        "state_mean": np.zeros(5, np.float32),
        "state_std": np.ones(5, np.float32),
        "action_center": np.zeros(2, np.float32),
        "action_scale": np.full(2, 2, np.float32),
    }
    message = "were 0 and 1, here 0 and 2; .* --config.env_name=None$"
    with pytest.raises(UserError, match=message):
        start.scaling_for("new.hdf5", own)
    raw = start.scaling_for("new.hdf5", own | {"action_scale": np.ones(2, np.float32)})
    np.testing.assert_array_equal(raw["state_mean"], start.scaling["state_mean"])
