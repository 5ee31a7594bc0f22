"""ESPER's networks, losses and labels, compared with numbers of the reference.

The reference pads episodes at their start, a batch of ours at their end.
"""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from golden import golden, subtree

from dt_jax.agents.base import TrainState
from dt_jax.agents.cluster_return import ClusterReturn, Draws
from dt_jax.config import default_config
from dt_jax.data.labels import round_labels
from dt_jax.data.normalizer import Normalizer
from dt_jax.types import Batch

FILES = "esper_small_f64.npz", "esper_box_f64.npz", "esper_small_f32.npz"
# Where our parameters are, by the reference's network.
PLACES = {
    "dynamics/dynamics_model": ("dynamics",),
    "cluster/obs_action_model": ("cluster", "steps"),
    "cluster/logit_model": ("cluster", "logits"),
    "cluster/ret_obs_action_model": ("returns", "steps"),
    "cluster/return_model": ("returns", "return"),
    "cluster/action_model": ("action",),
}
LSTM = {
    "weight_ih_l0": "input_kernel",
    "weight_hh_l0": "recurrent_kernel",
    "bias_ih_l0": "input_bias",
    "bias_hh_l0": "recurrent_bias",
}
NORM = {
    "weight": "scale",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "var",
}


def from_torch(arrays, before=None):
    """Return our parameters and statistics for the reference's arrays by name.

    The reference's layers before a BatchNorm have a bias, which only moves the running
    mean: by the biases of `before` an update, if `arrays` are those after it.
    """
    params = {}
    for name, array in arrays.items():
        network, _, rest = name.partition(".")
        if network == "cluster/lstm_model":
            params["cluster", "lstm", LSTM[rest]] = array.T
            continue
        _, layer, what = rest.split(".")
        layer, place = int(layer), PLACES[network]
        normed = *place, f"NormedLinear_{layer // 3}"
        if layer % 3 == 1 and what in NORM:
            if what == "running_mean":
                array = array - (before or arrays)[f"{network}.layers.{layer - 1}.bias"]
            statistics = ("statistics",) * what.startswith("running")
            params[*statistics, *normed, NORM[what]] = array
        elif layer % 3 == 0 and f"{network}.layers.{layer + 1}.weight" not in arrays:
            params[*place, "Linear_0", {"weight": "kernel"}.get(what, what)] = array.T
        elif layer % 3 == 0 and what == "weight":
            params[*normed, "kernel"] = array.T
    return unflatten_dict(params)


class Case:
    """One file of the reference's numbers, and our counterpart in its precision."""

    def __init__(self, name):
        self.arrays, self.config = golden(name)
        exact = self.config["dtype"] == "float64"
        self.dtype = np.float64 if exact else np.float32
        self.atol = 1e-9 if exact else 2e-5
        self.trace_atol = 1e-5 if exact else 1e-3
        nets, train = self.config["cluster_model_args"], self.config["train_args"]
        assert {
            (net["hidden_size"], net["batchnorm"], net["activation"], net["dropout"])
            for net in (self.config["dynamics_model_args"], *list(nets.values())[2:])
        } == {(nets["return_model"]["hidden_size"], True, "relu", 0)}
        config = default_config(
            "cluster_return",
            return_dim=nets["return_model"]["hidden_size"],
            return_layers=nets["return_model"]["num_layers"],
            return_lr=train["cluster_model_lr"],
            dynamics_lr=train["dynamics_model_lr"],
            return_weight_decay=self.config["adamw"]["weight_decay"],
            cluster_groups=nets["groups"],
            cluster_classes=nets["rep_size"] // nets["groups"],
            cluster_updates=self.config["return_stage_from_step"],
            action_loss_weight=train["act_loss_weight"],
            dynamics_loss_weight=train["adv_loss_weight"],
            episode_len=self.config["horizon"] - 1,
        )
        states, actions = self.config["obs_size"], self.config["action_size"]
        normalizer = Normalizer(
            *np.repeat([[0.0], [1.0]], states, axis=1),
            *np.repeat([[0.0], [1.0]], actions, axis=1),
            reward_scale=1 / train["scale"],
            discrete=self.config["discrete"],
        )
        self.agent = ClusterReturn.from_config(config, normalizer)
        self.classes = nets["groups"], nets["rep_size"] // nets["groups"]

    def params(self, prefix, before=None):
        before = before and subtree(self.arrays, before)
        return self.cast(from_torch(subtree(self.arrays, prefix), before))

    def cast(self, tree):
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype), tree)

    def batch(self, trajectories):
        """Return our batch of these trajectories."""
        steps, columns = self.config["horizon"], self.config["action_size"]
        rows = []
        for i in trajectories:
            data = subtree(self.arrays, f"data/{i}/")
            actions = data["actions"]
            if self.config["discrete"]:
                actions = np.eye(columns)[actions]
            returns = data["returns"] / self.config["train_args"]["scale"]
            ones = np.ones(len(returns))
            rows.append(
                [
                    np.pad(x, [(0, steps - len(x))] + [(0, 0)] * (x.ndim - 1))
                    for x in (data["observations"], actions, returns, ones)
                ]
            )
        states, actions, returns, mask = map(np.stack, zip(*rows, strict=True))
        return self.cast(
            Batch(states=states, actions=actions, returns_to_go=returns, mask=mask)
        )

    def draws(self, step):
        gumbel = self.arrays["train/gumbel"][step]
        batch, steps = self.config["batch_size"], self.config["horizon"]
        past = self.arrays["train/past_index"][step][:3]
        return Draws(
            jnp.asarray(gumbel.reshape(batch, steps, *self.classes), self.dtype),
            jnp.asarray(past, jnp.int32),
        )

    def step(self, step):
        return self.batch(self.arrays["batch/traj_idx"][step]), self.draws(step)


@pytest.fixture(params=FILES)
def case(request):
    with jax.enable_x64(True) if "f64" in request.param else nullcontext():
        yield Case(request.param)


def front_padded(x, mask):
    """Move the padding of a batch's array from the end to the start."""
    rolled = [np.roll(row, -int(m.sum()), 0) for row, m in zip(x, mask, strict=True)]
    return np.stack(rolled)


def assert_trees_close(ours, theirs, atol):
    ours, theirs = flatten_dict(ours, sep="/"), flatten_dict(theirs, sep="/")
    assert theirs
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, 0, atol, err_msg=name)


SOFT = jnp.array(False)


def test_golden_esper_batches(case):
    for step, name in (0, "first"), (case.agent.cluster_updates, "return_stage"):
        batch, _ = case.step(step)
        theirs = subtree(case.arrays, f"batch/{name}/")
        np.testing.assert_array_equal(batch.mask.sum(axis=1), theirs["seq_len"])
        for x, y in ("states", "observations"), ("actions", "actions"):
            aligned = front_padded(getattr(batch, x), batch.mask)
            np.testing.assert_allclose(aligned, theirs[y], 1e-6)


def test_golden_esper_predictions(case):
    batch, draws = case.step(0)
    aligned = case.cast(
        Batch(*(x if x is None else front_padded(x, batch.mask) for x in batch))
    )
    forward = jax.jit(case.agent.forward)
    ours, _ = forward(case.params("init/"), aligned, draws, SOFT)
    theirs = subtree(case.arrays, "forward/first/")
    for field, name in {
        "logits": "logits",
        "clusters": "clusters",
        "returns": "return_pred",
        "actions": "action_pred",
        "adversary": "next_obs_pred_cluster_step",
        "next_states": "next_obs_pred_dynamics_step",
        "baseline": "next_obs_pred_baseline",
    }.items():
        array = np.asarray(getattr(ours, field))
        np.testing.assert_allclose(
            array, theirs[name].reshape(array.shape), 0, case.atol, err_msg=name
        )


def test_golden_esper_gradients(case):
    batch, draws = case.step(0)
    loss = jax.jit(jax.grad(case.agent.loss, has_aux=True))
    grads, _ = loss(case.params("init/"), batch, draws, SOFT)
    assert_trees_close(grads, case.params("grad0/"), case.atol)


def test_golden_esper_cluster_updates(case):
    agent, params = case.agent, case.params("init/")
    state = TrainState(
        jnp.int32(0), params, agent.optimizer.init(params), jax.random.key(0)
    )
    update = jax.jit(agent.update_with)
    names = "action_loss", "dynamics_loss", "baseline_dynamics_loss"
    names = {"train_loss": "loss"} | {name: name for name in names}
    for step in range(agent.cluster_updates):
        state, metrics = update(state, *case.step(step))
        for ours, theirs in names.items():
            expected = case.arrays[f"train/{theirs}"][step]
            np.testing.assert_allclose(
                metrics[ours], expected, 0, case.trace_atol, err_msg=f"{ours} {step}"
            )
        if step == 0:
            theirs = case.params("step1/", before="init/")
            assert_trees_close(state.params, theirs, case.atol)
    assert_trees_close(state.params["returns"], params["returns"], 0)


def test_golden_esper_labels(case):
    count = len({name.split("/")[1] for name in case.arrays if name[:6] == "labels"})
    batch = case.batch(range(count))
    gumbel = [case.arrays[f"labels/{i}/gumbel"] for i in range(count)]
    found = jax.jit(case.agent.predict_with)(
        case.params("final/"), batch, case.cast(np.stack(gumbel))
    )
    scale = case.config["train_args"]["scale"]
    for i in range(count):
        raw = found[i][batch.mask[i] > 0]
        np.testing.assert_allclose(raw, case.arrays[f"labels/{i}/raw"], 0, case.atol)
        if case.dtype is np.float64:  # float32 may be on the other side of an edge
            rounded = round_labels(np.asarray(raw), 0.1) * scale
            expected = case.arrays[f"labels/{i}/label"]
            np.testing.assert_allclose(rounded, expected, 0, case.atol)
