"""Parity with numbers from running CORL's dt.py, in float64 and float32.

DT_JAX_PARITY_DIR names another folder with files of the same form. The fast tests
compare each file in the precision that it was made in. The slow tests compile with
XLA's optimisations, as users do, and compare all files in float32 too.
"""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import LinearEnv

from dt_jax.agents.base import TrainState
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.agents.optim import make_optimizer, make_schedule
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.interop.corl import params_from_state_dict, state_dict_from_params
from dt_jax.networks.decision_transformer import DecisionTransformer
from dt_jax.rollout.rollout import Rollout

HERE = Path(__file__).parents[1] / "data" / "corl_parity"
FILES = sorted(Path(os.environ.get("DT_JAX_PARITY_DIR", HERE)).glob("*.npz"))
MODEL_KEYS = (
    "seq_len",
    "episode_len",
    "embedding_dim",
    "num_layers",
    "num_heads",
    "attention_dropout",
    "residual_dropout",
    "embedding_dropout",
    "max_action",
)


class Case:
    """One file of CORL's numbers, and our counterpart in one precision."""

    def __init__(self, path: Path, dtype: type):
        self.numbers = dict(np.load(path))
        self.config = json.loads(str(self.numbers["config"]))
        self.dtype = dtype
        exact = dtype is np.float64
        self.forward_atol = 1e-9 if exact else 1e-5
        self.trace_atol = 1e-5 if exact else 1e-3
        self.trajectories = Trajectories.from_raw(
            RawData(**self.under("data/")), source=path.name
        )
        actions = self.config["action_dim"]
        # CORL's own returns and statistics, because windows are compared bit by bit:
        # its float32 sums differ from ours in the last bits.
        count = self.trajectories.num_trajectories
        returns = [self.numbers[f"dataset/returns/{k}"] for k in range(count)]
        trajectories = dataclasses.replace(
            self.trajectories, returns_to_go=np.concatenate(returns)
        )
        normalizer = Normalizer(
            state_mean=self.numbers["dataset/state_mean"][0],
            state_std=self.numbers["dataset/state_std"][0],
            action_center=np.zeros(actions, np.float32),
            action_scale=np.ones(actions, np.float32),
            reward_scale=self.config["reward_scale"],
        )
        schedule = make_schedule(
            "warmup_constant",
            self.config["learning_rate"],
            self.config["warmup_steps"],
            self.config["steps"],
        )
        self.agent = DecisionTransformerAgent(
            model=DecisionTransformer(
                action_size=actions, **{key: self.config[key] for key in MODEL_KEYS}
            ),
            normalizer=normalizer,
            optimizer=make_optimizer(
                schedule,
                self.config["betas"],
                self.config["weight_decay"],
                self.config["clip_grad"],
            ),
            schedule=schedule,
        )
        self.sampler = Sampler(
            trajectories,
            normalizer,
            batch_size=self.config["batch_size"],
            context_len=self.config["seq_len"],
            seed=0,
            fields=self.agent.batch_fields,
        )

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        return {
            name.removeprefix(prefix): array
            for name, array in self.numbers.items()
            if name.startswith(prefix)
        }

    def cast(self, tree):
        """Cast floating-point arrays to this case's precision."""
        return jax.tree.map(
            lambda x: x.astype(self.dtype) if x.dtype.kind == "f" else x, tree
        )

    def params(self, prefix: str):
        return self.cast(params_from_state_dict(self.under(prefix)))

    def batch(self, step: int):
        starts = self.trajectories.starts[self.numbers["batch/traj_idx"][step]]
        return self.sampler.gather(starts + self.numbers["batch/start_idx"][step])

    def assert_close(self, ours, theirs, atol: float):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)

    def assert_params_close(self, ours, prefix: str, atol: float):
        theirs = self.under(prefix)
        ours = state_dict_from_params(ours)
        assert ours.keys() == theirs.keys()
        for name in theirs:
            self.assert_close(ours[name], theirs[name], atol)


def cases():
    for path in FILES:
        made_in = np.dtype(json.loads(str(np.load(path)["config"]))["dtype"]).type
        yield pytest.param((path, made_in), id=path.stem)
        for dtype in {np.float32, made_in}:
            name = f"{path.stem}-{dtype.__name__}-optimised"
            yield pytest.param((path, dtype), id=name, marks=pytest.mark.slow)


@pytest.fixture(params=cases())
def case(request):
    path, dtype = request.param
    with jax.enable_x64(dtype is np.float64):
        yield Case(path, dtype)


def test_reference_files_exist():
    assert FILES


def test_dataset_equals_corls(case):
    ours = case.trajectories
    np.testing.assert_array_equal(ours.lengths, case.numbers["dataset/traj_lens"])
    np.testing.assert_array_equal(
        ours.lengths / ours.lengths.sum(), case.numbers["dataset/sample_prob"]
    )
    # CORL sums in float32, we in float64: they differ in the last bits of float32.
    largest = np.abs(ours.episode_returns).max()
    for k, (start, length) in enumerate(zip(ours.starts, ours.lengths, strict=True)):
        case.assert_close(
            ours.returns_to_go[start : start + length],
            case.numbers[f"dataset/returns/{k}"],
            1e-6 * largest,
        )
    for name in ("state_mean", "state_std"):
        theirs = case.numbers[f"dataset/{name}"][0]
        np.testing.assert_allclose(getattr(ours, name), theirs, rtol=1e-5, atol=1e-6)


def test_first_batch_equals_corls(case):
    ours = case.batch(0)
    for name, theirs in case.under("batch/first/").items():
        np.testing.assert_array_equal(getattr(ours, name), theirs, err_msg=name)


def test_predictions_equal_corls(case):
    batch = case.cast(case.batch(0))
    params = {"params": case.params("init/")}
    inputs = (batch.states, batch.actions, batch.returns_to_go, batch.timesteps)
    apply = jax.jit(case.agent.model.apply)
    ours = apply(params, *inputs)
    valid = np.asarray(batch.mask, bool)
    for theirs in case.under("forward/actions_").values():
        case.assert_close(ours[valid], theirs[valid], case.forward_atol)
    case.assert_close(
        ours, case.numbers["forward/actions_unmasked"], case.forward_atol
    )  # the padding is equal too

    theirs = case.numbers["forward/short"]
    short = (x[:, : theirs.shape[1]] for x in inputs)
    case.assert_close(apply(params, *short), theirs, case.forward_atol)


def test_first_gradients_equal_corls(case):
    grads = jax.jit(jax.grad(case.agent.loss))(
        case.params("init/"), case.cast(case.batch(0)), jax.random.key(0)
    )
    case.assert_params_close(grads, "grad0/", case.forward_atol)


def test_training_trace_equals_corls(case):
    params = case.params("init/")
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=case.agent.optimizer.init(params),
        key=jax.random.key(0),
    )
    update = jax.jit(case.agent.update)
    trace = []
    for step in range(case.config["steps"]):
        state, metrics = update(state, case.cast(case.batch(step)))
        trace.append(metrics)
    for ours, theirs in [("train_loss", "loss"), ("grad_norm", "grad_norm")]:
        case.assert_close(
            [metrics[ours] for metrics in trace],
            case.numbers[f"train/{theirs}"],
            case.trace_atol,
        )
    rates = [metrics["learning_rate"] for metrics in trace]
    np.testing.assert_allclose(rates, case.numbers["train/learning_rate"], rtol=1e-6)
    case.assert_params_close(state.params, "final/", case.trace_atol)


def test_rollout_equals_corls(case):
    """Each action, and the return of the compiled rollout."""
    params, theirs = case.params("final/"), case.under("rollout/")
    m, b, w, s0, horizon = (
        case.cast(case.numbers[f"env/{name}"])
        for name in ("M", "B", "w", "s0", "horizon")
    )
    env = LinearEnv(m, b, w, s0, horizons=[int(horizon)] * 2)
    targets = jnp.full(2, theirs["target_return"], case.dtype)
    context, (state, observations) = case.agent.start(targets), env.reset()
    rewards, running = jnp.zeros_like(targets), jnp.zeros(2, bool)
    act = jax.jit(case.agent.act)
    for action, reward in zip(theirs["actions"], theirs["rewards"], strict=True):
        context, actions = act(params, context, observations, rewards, running)
        case.assert_close(actions, np.stack([action, action]), case.forward_atol)
        state, (observations, rewards, _) = env.step(state, actions)
        case.assert_close(rewards, np.stack([reward, reward]), case.forward_atol)

    rollout = Rollout(case.agent, env, case.config["episode_len"])
    keys = jax.random.split(jax.random.key(0), 2)
    episodes = rollout(params, *env.reset(), targets, keys)
    case.assert_close(
        episodes.returns, [theirs["episode_return"]] * 2, case.forward_atol
    )
    assert episodes.lengths.tolist() == [theirs["episode_len"]] * 2


def test_state_dict_survives_a_round_trip(case):
    theirs = case.under("init/")
    buffers = {"blocks.0.causal_mask": np.zeros((3, 3), bool)}
    ours = state_dict_from_params(params_from_state_dict(theirs | buffers))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_state_dict_of_another_architecture_is_refused(case):
    theirs = case.under("init/")
    theirs["value_head.weight"] = theirs.pop("emb_norm.bias")
    with pytest.raises(KeyError, match=r"missing.*emb_norm.bias.*unknown.*value_head"):
        params_from_state_dict(theirs)
