"""The Decision ConvFormer: numbers of its reference, beanie00/Decision-ConvFormer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from golden import close, golden_batch, golden_case, padded_left, subtree
from small_agent import small_network

from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.agents.optim import (
    apply_gradients,
    initial_state,
    make_optimizer,
    make_schedule,
)
from dt_jax.data.normalizer import Normalizer
from dt_jax.networks.convolution import Convolution
from dt_jax.types import Batch

FILES = {
    "dc_small_f64.npz": 1e-9,
    "dc_no_action_f64.npz": 1e-9,
    "dc_small_f32.npz": 1e-5,
}
_MODULES = {
    "embed_return": "return_emb",
    "embed_state": "state_emb",
    "embed_action": "action_emb",
    "embed_ln": "transformer/emb_norm",
    "transformer.ln_f": "transformer/out_norm",
    "predict_action.0": "action_head",
}
_BLOCK = {"ln_1": "norm1", "ln_2": "norm2", "mlp.0": "mlp_in", "mlp.2": "mlp_out"}
_KINDS = ("rtg", "obs", "act")


def our_params(arrays, sizes):
    """Return our parameters of the reference's, or such a tree of gradients."""
    flat, kernels = {}, {}
    table = arrays["embed_timestep.weight"]
    padding = np.zeros((sizes["K"], table.shape[1]), table.dtype)
    flat["timestep_emb/embedding"] = np.concatenate([table, padding])
    for name, array in arrays.items():
        module, _, kind = name.rpartition(".")
        if ".conv." in module:
            _, _, block, _, of = module.split(".")
            path = f"transformer/blocks_{block}/convolution"
            position = _KINDS.index(of.removesuffix("_conv1d"))
            kernels.setdefault((path, kind), {})[position] = array
            continue
        if module.startswith("transformer.h."):
            _, _, block, module = module.split(".", 3)
            module = f"transformer/blocks_{block}/{_BLOCK[module]}"
        elif module in _MODULES:
            module = _MODULES[module]
        else:
            continue
        is_norm = "norm" in module
        if kind == "weight":
            kind = "scale" if is_norm else "kernel"
            array = array if is_norm else array.T
        flat[f"{module}/{kind}"] = array
    for (path, kind), of_kinds in kernels.items():
        stacked = np.stack([of_kinds[i] for i in range(len(of_kinds))])
        if kind == "weight":  # [kinds, D, 1, W]
            flat[f"{path}/kernel"] = np.moveaxis(stacked[:, :, 0], 2, 0)
        else:
            flat[f"{path}/bias"] = stacked
    if sizes["remove_act_embs"]:
        flat = {x: array for x, array in flat.items() if "action_emb" not in x}
    return unflatten_dict(flat, sep="/")


def make_agent(arrays, sizes):
    """Return an agent of the sizes in a golden file."""
    schedule = make_schedule(
        "warmup_constant", sizes["learning_rate"], sizes["warmup_steps"], sizes["steps"]
    )
    return DecisionTransformerAgent(
        model=small_network(
            action_size=sizes["act_dim"],
            seq_len=sizes["K"],
            episode_len=sizes["max_ep_len"],
            embedding_dim=sizes["hidden_size"],
            num_layers=sizes["n_layer"],
            mixer="conv",
            conv_width=sizes["window_size"],
            action_tokens=not sizes["remove_act_embs"],
        ),
        normalizer=Normalizer(
            arrays["dataset/state_mean"],
            arrays["dataset/state_std"],
            np.zeros(sizes["act_dim"], np.float32),
            np.ones(sizes["act_dim"], np.float32),
            reward_scale=1 / sizes["scale"],
        ),
        optimizer=make_optimizer(
            schedule, sizes["betas"], sizes["weight_decay"], sizes["grad_clip"]
        ),
        schedule=schedule,
    )


def reference_batch(arrays, sizes, step, dtype):
    """Return a batch with the reference's padding, which its convolution sees."""
    batch = golden_batch(arrays, sizes, step, dtype)
    mask = padded_left(batch.mask, batch.mask)
    no_state = -arrays["dataset/state_mean"].astype(float) / arrays["dataset/state_std"]
    paddings = {
        "states": no_state.astype(dtype),
        "actions": -10,
        "returns_to_go": 0,
        "timesteps": 0,
    }
    padded = {}
    for name, value in paddings.items():
        array = padded_left(getattr(batch, name), batch.mask)
        missing = (mask == 0).reshape(mask.shape + (1,) * (array.ndim - 2))
        padded[name] = np.where(missing, value, array).astype(array.dtype)
    return Batch(**padded, mask=mask)


@pytest.fixture(params=FILES)
def file(request):
    """Return arrays, sizes, the agreement to expect and JAX in that precision."""
    with golden_case(request.param) as (arrays, sizes, dtype):
        yield arrays, sizes, FILES[request.param], dtype


def test_golden_convolution(file):
    arrays, sizes, atol, _ = file
    params = our_params(subtree(arrays, "init/"), sizes)
    kinds = 2 if sizes["remove_act_embs"] else 3
    convolution = Convolution(sizes["window_size"], kinds)
    weights = {"params": params["transformer"]["blocks_0"]["convolution"]}
    ours = convolution.apply(weights, arrays["conv/in"])
    close(ours, arrays["conv/out"], atol)


def test_golden_convformer_first_batch(file):
    arrays, sizes, _, dtype = file
    ours = reference_batch(arrays, sizes, 0, dtype)
    atol = 1e-9 if dtype == np.float64 else 1e-5
    close(ours.states, arrays["batch/first/states"], atol)
    close(ours.actions, arrays["batch/first/actions"], atol)
    close(ours.returns_to_go, arrays["batch/first/returns_to_go"][:, :-1, 0], 1e-6)
    np.testing.assert_array_equal(ours.timesteps, arrays["batch/first/timesteps"])
    np.testing.assert_array_equal(ours.mask, arrays["batch/first/mask"])


def test_golden_convformer_forward(file):
    arrays, sizes, atol, dtype = file
    agent = make_agent(arrays, sizes)
    params = our_params(subtree(arrays, "init/"), sizes)
    batch = reference_batch(arrays, sizes, 0, dtype)
    ours = jax.jit(agent._forward)(params, batch, None)
    close(ours, arrays["forward/action_preds"], atol)


def test_golden_convformer_training(file):
    arrays, sizes, atol, dtype = file
    agent = make_agent(arrays, sizes)

    def loss(params, batch):
        errors = jnp.square(agent._forward(params, batch, None) - batch.actions)
        valid = batch.mask[..., None]
        return (errors * valid).sum() / (valid.sum() * errors.shape[-1])

    @jax.jit
    def update(state, batch):
        value, grads = jax.value_and_grad(loss)(state.params, batch)
        norm = optax.tree.norm(grads)
        return apply_gradients(agent.optimizer, state, grads), value, norm, grads

    params = our_params(subtree(arrays, "init/"), sizes)
    state = initial_state(agent.optimizer, params, jax.random.key(0))
    trace = 1e-5 if dtype == np.float64 else 1e-3
    for step in range(sizes["steps"]):
        batch = reference_batch(arrays, sizes, step, dtype)
        rate = agent.schedule(state.step)
        close(rate, arrays["train/learning_rate"][step], 1e-6, f"rate {step}")
        state, value, norm, grads = update(state, batch)
        if step == 0:
            compare(grads, arrays, "grad0/", sizes, atol)
        close(value, arrays["train/loss"][step], trace, f"loss {step}")
        close(norm, arrays["train/grad_norm"][step], 10 * trace, f"norm {step}")
    compare(state.params, arrays, "final/", sizes, trace)


def compare(ours, arrays, prefix, sizes, atol):
    """Compare a tree of ours with the reference's arrays below a prefix."""
    theirs = our_params(subtree(arrays, prefix), sizes)
    ours, theirs = (flatten_dict(tree, sep="/") for tree in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        close(ours[name], array, atol, f"{prefix}{name}")


def test_golden_convformer_rollout(file):
    """From the first full window on: before it, the reference pads with tokens."""
    arrays, sizes, atol, _ = file
    agent = make_agent(arrays, sizes)
    params = our_params(subtree(arrays, "final/"), sizes)
    played = subtree(arrays, "rollout/")
    context = agent.start(jnp.asarray(played["target_return"])[None])
    act, rewards = jax.jit(agent.act), [0.0, *played["rewards"]]
    no, compared = np.zeros(1, bool), 0
    for t, taken in enumerate(played["actions"]):
        observation = played["observations"][t][None]
        context, action = act(params, context, observation, np.array([rewards[t]]), no)
        if t >= sizes["K"] - 1:
            close(action[0], taken, atol, f"step {t}")
            compared += 1
        context = context._replace(actions=jnp.asarray(taken)[None])
    assert compared > 2
