"""Q-value regularised Transformer: numbers of its reference, and what its parts do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from golden import (
    close,
    golden,
    golden_batch,
    golden_case,
    golden_trajectories,
    padded_left,
    subtree,
)
from qt_agent import golden_agent

from dt_jax.agents.base import TrainState
from dt_jax.data.sampler import Sampler
from dt_jax.networks.critics import apply

# The names and layouts of interop/huggingface.py, and the head of the next state.
_ACTOR = {
    "embed_timestep.weight": "timestep_emb/embedding",
    "embed_return": "return_emb",
    "embed_state": "state_emb",
    "embed_action": "action_emb",
    "embed_ln": "transformer/emb_norm",
    "transformer.ln_f": "transformer/out_norm",
    "predict_action.0": "action_head",
    "predict_state": "state_head",
}
_BLOCK = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.c_attn": "attention/in_proj",
    "attn.c_proj": "attention/out_proj",
    "mlp.c_fc": "mlp_in",
    "mlp.c_proj": "mlp_out",
}


def actor_params(arrays, seq_len):
    """Return our parameters of the reference's actor, or such a tree of gradients."""
    flat = {}
    for name, array in arrays.items():
        module, _, kind = name.rpartition(".")
        if name == "embed_timestep.weight":
            padding = np.zeros((seq_len, array.shape[1]), array.dtype)
            flat[_ACTOR[name]] = np.concatenate([array, padding])
            continue
        is_conv = module.startswith("transformer.h.")
        if is_conv:
            _, _, block, module = module.split(".", 3)
            module = f"transformer/blocks_{block}/{_BLOCK[module]}"
        elif module in _ACTOR:
            module = _ACTOR[module]
        else:
            continue  # of heads and tokens that it does not use
        norm = "norm" in module
        if kind == "weight":
            kind = "scale" if norm else "kernel"
            array = array if norm or is_conv else array.T
        flat[f"{module}/{kind}"] = array
    return unflatten_dict(flat, sep="/")


def critic_params(arrays):
    """Return our parameters of the reference's critic, the two stacked."""
    flat = {}
    for i in range(len(arrays) // 4):
        for ours, theirs in ("kernel", "weight"), ("bias", "bias"):
            both = [arrays[f"q{q}_model.{2 * i}.{theirs}"].T for q in (1, 2)]
            flat[f"q/Linear_{i}/{ours}"] = np.stack(both)
    return unflatten_dict(flat, sep="/")


def networks(arrays, seq_len):
    """Return the parameters of "actor", "critic", "ema_actor" and "target_critic"."""
    names = {name.split("/")[0] for name in arrays}
    return {
        name: critic_params(subtree(arrays, f"{name}/"))
        if "critic" in name
        else actor_params(subtree(arrays, f"{name}/"), seq_len)
        for name in names
    }


def close_trees(ours, theirs, atol, what, seq_len=0):
    ours, theirs = (flatten_dict(tree, sep="/") for tree in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        found = np.asarray(ours[name])
        if name == "timestep_emb/embedding":  # ours has further rows, for padding
            found, array = found[:-seq_len], array[:-seq_len]
        close(found, array, atol, f"{what} {name}")


FLOAT64 = {"qt_timeouts_f64.npz": 1e-9, "qt_small_f64.npz": 1e-9}
FILES = FLOAT64 | {"qt_small_f32.npz": 3e-5}


@pytest.fixture(params=FILES)
def file(request):
    """Return arrays, sizes, the agreement to expect and JAX in that precision."""
    with golden_case(request.param) as (arrays, sizes, dtype):
        yield arrays, sizes, FILES[request.param], dtype


def test_golden_qt_forward(file):
    arrays, sizes, atol, dtype = file
    agent, k = golden_agent(arrays, sizes), sizes["K"]
    params = networks(subtree(arrays, "init/"), k)
    batch = golden_batch(arrays, sizes, 0, dtype)
    mask = arrays["batch/first/mask"].astype(bool)
    pairs = mask[:, :-1]  # whose next state is in the window
    forward = jax.jit(agent._predict)
    for name in "actor", "ema_actor":
        actions, states = forward(params[name], batch)
        actions = padded_left(actions, batch.mask)
        theirs = arrays[f"forward/{name}/action_preds"]
        close(actions[mask], theirs[mask], atol, name)
        states = np.concatenate([states, np.zeros_like(states[:, :1])], axis=1)
        states = padded_left(states, batch.mask)
        theirs = arrays[f"forward/{name}/state_preds"]
        close(states[:, :-1][pairs], theirs[:, :-1][pairs], 10 * atol, name)
    for name in "critic", "target_critic":
        q = apply(agent.critic, params[name], batch.states, batch.actions)
        q = padded_left(jnp.moveaxis(q, 0, -1), batch.mask)
        close(q[mask], arrays[f"forward/{name}/q"][mask], atol, name)


def test_golden_qt_first_batch(file):
    arrays, sizes, _, dtype = file
    agent, data = golden_agent(arrays, sizes), golden_trajectories(arrays)
    batch = golden_batch(arrays, sizes, 0, dtype)
    first = arrays["batch/traj_idx"][0], arrays["batch/start_idx"][0]
    sampler = Sampler(
        data,
        agent.normalizer,
        batch_size=sizes["batch_size"],
        context_len=sizes["K"],
        seed=0,
        fields=agent.batch_fields,
    )
    rows = data.starts[first[0]] + first[1]
    ours = sampler.gather(rows)
    ours = ours._replace(rewards=ours.rewards * sizes["scale"])
    mask = arrays["batch/first/mask"].astype(bool)
    theirs = {
        "states": arrays["batch/first/states"],
        "actions": arrays["batch/first/actions"],
        "rewards": arrays["batch/first/rewards"][..., 0],
        "returns_to_go": arrays["batch/first/returns_to_go"][:, :-1, 0],
        "timesteps": arrays["batch/first/timesteps"],
        "terminals": arrays["batch/first/dones"][..., 0],
        "mask": mask,
    }
    for name, expected in theirs.items():
        for source, atol in (
            (batch, 1e-6 if dtype == np.float32 else 1e-9),
            (ours, 1e-6),
        ):
            found = padded_left(getattr(source, name), batch.mask)
            close(found[mask], expected[mask], atol, name)


def test_golden_qt_targets(file):
    arrays, sizes, atol, dtype = file
    agent = golden_agent(arrays, sizes)
    params = networks(subtree(arrays, "init/"), sizes["K"])
    batch = golden_batch(arrays, sizes, 0, dtype)
    acting = {"actor": params["ema_actor"], "critic": params["target_critic"]}
    y, _ = jax.jit(agent.targets)(acting, batch)
    # Theirs are of all valid positions but the last, row by row. Ours differ in windows
    # that end by termination: their last reward counts.
    counted = padded_left(batch.mask, batch.mask)[:, :-1].astype(bool)
    ended = batch.terminals.any(axis=1)
    kept = counted & ~ended[:, None]
    q = apply(agent.critic, params["critic"], batch.states, batch.actions)
    q = padded_left(jnp.moveaxis(q, 0, -1), batch.mask)[:, :-1]
    close(q[counted], arrays["train/first_current_q"], atol)
    theirs = arrays["train/first_targets"]
    close(padded_left(y, batch.mask)[:, :-1][kept], theirs[kept[counted]], atol)
    assert kept.any()


def test_golden_qt_coin_and_learning_rates(file):
    arrays, sizes, _, _ = file
    agent = golden_agent(arrays, sizes)
    rates = [float(agent.schedule(step)) for step in range(sizes["steps"])]
    close(rates, arrays["train/learning_rates"][:, 0], 1e-6)
    assert ((arrays["train/coin"] > 0) & (arrays["train/coin"] < 1)).all()


def trace(arrays, sizes, agent, start):
    """Train as the reference did; return the states and metrics of each step."""
    params = {name: start[name] for name in ("actor", "critic")}
    optimizers = {"actor": agent.optimizer, "critic": agent.critic_optimizer}
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={name: optimizers[name].init(params[name]) for name in params},
        key=jax.random.key(0),
        extra={"actor": start["ema_actor"], "critic": start["target_critic"]},
    )

    @jax.jit
    def step_of(state, batch, coin):
        y, valid = agent.targets(state.extra, batch)
        grads = jax.grad(agent.critic_loss)(state.params["critic"], batch, y, valid)
        # Theirs is the mean over all positions. In the padding, on the left, it has the
        # whole window's rewards and the last value without a discount.
        last = batch.mask.sum(axis=1).astype(int) - 1
        value = y[jnp.arange(len(y)), last]
        padding = y[:, 0] + (1 - agent.discount**last) * value
        mean = jnp.where(batch.mask > 0, y, padding[:, None]).mean()
        after, metrics = agent.update_qt(state, batch, coin, state.key)
        metrics |= {"target_q_mean": mean, "critic_grad_norm": optax.tree.norm(grads)}
        return after, metrics

    states, rows = [], []
    for step in range(sizes["steps"]):
        batch = golden_batch(arrays, sizes, step, np.float64)
        coin = arrays["train/coin"][step] > 0.5
        state, metrics = step_of(state, batch, coin)
        states.append(state)
        rows.append(metrics)
    return states, rows


def test_golden_qt_gradients_and_training():
    """On the file without a true terminal, at which the reference loses a reward."""
    arrays, sizes = golden("qt_timeouts_f64.npz")
    assert not arrays["data/terminals"].any()
    k = sizes["K"]

    def of(key):
        return networks(subtree(arrays, f"{key}/"), k)

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        agent, start, theirs = golden_agent(arrays, sizes), of("init"), of("grad0")
        batch = golden_batch(arrays, sizes, 0, np.float64)

        @jax.jit
        def gradients(critic_after):
            """Return those of the first step, before clipping."""
            acting = {"actor": start["ema_actor"], "critic": start["target_critic"]}
            y, valid = agent.targets(acting, batch)
            of_critic = jax.grad(agent.critic_loss)(start["critic"], batch, y, valid)
            of_actor, _ = jax.grad(agent.actor_loss, has_aux=True)(
                start["actor"],
                critic_after,
                batch,
                arrays["train/coin"][0] > 0.5,
                jax.random.key(0),
            )
            return of_critic, of_actor

        of_critic, of_actor = gradients(of("step1")["critic"])
        close_trees(of_critic, theirs["critic"], 1e-9, "gradient")
        close_trees(of_actor, theirs["actor"], 1e-9, "gradient", k)

        states, rows = trace(arrays, sizes, agent, start)
        for key, state in ("step1", states[0]), ("final", states[-1]):
            ours = state.params | {
                "ema_actor": state.extra["actor"],
                "target_critic": state.extra["critic"],
            }
            for name, params in of(key).items():
                close_trees(ours[name], params, 1e-5, f"{key} {name}", k)
    names = {
        "bc_loss": lambda m: m["action_loss"] + m["state_loss"],
        "ql_loss": lambda m: m["value_loss"],
        "critic_loss": lambda m: m["critic_loss"],
        "actor_loss": lambda m: m["train_loss"],
        "actor_grad_norm": lambda m: m["grad_norm"],
        "critic_grad_norm": lambda m: m["critic_grad_norm"],
        "target_q_mean": lambda m: m["target_q_mean"],
    }
    for name, ours in names.items():
        found = [float(ours(metrics)) for metrics in rows]
        close(found, arrays[f"train/{name}"], 1e-5, name)
        close(found[0], arrays[f"train/{name}"][0], 1e-6, name)


@pytest.mark.parametrize("case", ["two_targets", "three_targets"])
def test_golden_qt_actions_of_the_chosen_candidates(case):
    """Which candidate is chosen depends on the reference's units; its action does not.

    Not compared are the reference's last candidate, whose return is a value of Q, and
    those with a history of noise, which fill up the 50.
    """
    arrays, sizes = golden("qt_timeouts_f64.npz")
    played = subtree(arrays, f"act/{case}/")
    prompts, n = played["targets"], len(played["targets"])
    copies = sizes["candidates"] // n
    with jax.enable_x64(True):
        agent = golden_agent(arrays, sizes)
        actor = networks(subtree(arrays, "final/"), sizes["K"])["actor"]
        keys = jax.random.split(jax.random.key(0), n)
        context = agent.start(jnp.asarray(prompts), keys)
        no, rewards, compared = np.zeros(n, bool), np.zeros(n), 0
        observe, step = jax.jit(agent._observe), jax.jit(agent._step)
        for t, choice in enumerate(played["choice"]):
            states = np.repeat(played["observations"][t][None], n, axis=0)
            context, states = observe(context, states, rewards, no)
            jitter = 0.1 * played["jitter"][t, choice - n] if choice >= n else 0.0
            prompt = context.next_return[:, None]
            returns = jnp.concatenate([prompt, prompt + jitter], axis=1)
            cache, actions = step(actor, context, states, returns)
            actions = actions[:, 1]
            if choice < min(n * copies, sizes["candidates"] - 1):
                close(
                    actions[choice // copies], played["actions"][t], 1e-9, f"step {t}"
                )
                compared += 1
            taken = np.repeat(played["actions"][t][None], n, axis=0)
            context = context._replace(cache=cache, actions=jnp.asarray(taken))
            rewards = np.repeat(played["rewards"][t], n)
        assert compared
