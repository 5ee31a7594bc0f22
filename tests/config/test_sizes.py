import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from dt_jax.agents.dt import (
    DecisionTransformerAgent,
    init_train_state,
    make_update,
)
from dt_jax.agents.optim import make_optimizer, make_schedule
from dt_jax.config import sizes
from dt_jax.config.sizes import check_sizes
from dt_jax.types import Batch
from dt_jax.utils.errors import UserError

S, A = 11, 3


def config_of(**changes):
    config = default.get_config()
    config.update({"target_returns": (3600.0, 1800.0)} | changes)
    return config.lock()


def refusal(monkeypatch, there, trains=True, **changes):
    monkeypatch.setattr(sizes, "memory", lambda: there)
    with pytest.raises(UserError) as caught:
        check_sizes(config_of(**changes), trains=trains)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embedding_dim": 2**31 - 1}, "a network of embedding_dim=2147483647, "),
        (
            {"episode_len": 2**31 - 1},
            "episode_len=2147483647, num_seeds=1 takes at least",
        ),
        ({"seq_len": 10**9}, "seq_len=1000000000"),
        ({"batch_size": 2**31 - 1}, "a batch of batch_size=2147483647, "),
        ({"eval_episodes": 10**9}, "an evaluation of eval_episodes=1000000000"),
    ],
)
def test_a_slip_by_some_zeros_is_refused(monkeypatch, changes, words):
    line = refusal(monkeypatch, 10**12, **changes)
    assert words in line
    assert line.endswith("and there are 1e+03: give smaller numbers")


def test_what_is_only_played_needs_no_room_for_training(monkeypatch):
    monkeypatch.setattr(sizes, "memory", lambda: 10**9)
    check_sizes(config_of(batch_size=10**6), trains=False)
    assert "a batch" in refusal(monkeypatch, 10**9, batch_size=10**6)


def test_what_the_data_decides_is_left_out(monkeypatch):
    monkeypatch.setattr(sizes, "memory", lambda: 10**9)
    check_sizes(config_of(episode_len=None, target_returns=None), trains=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": 8, "embedding_dim": 32, "num_layers": 6, "seq_len": 5},
        {"batch_size": 8, "embedding_dim": 16, "num_heads": 4, "seq_len": 60},
    ],
)
def test_nothing_is_refused_that_would_fit(changes):
    """What XLA itself says that an update and an action take is more."""
    config = config_of(**changes, eval_episodes=100)
    scaling = np.zeros(S, "f4"), np.ones(S, "f4"), np.zeros(A, "f4"), np.ones(A, "f4")
    agent = DecisionTransformerAgent.from_config(config, *scaling)
    schedule = make_schedule("warmup_constant", 1e-3, 1, 2)
    optimizer = make_optimizer(schedule, config.betas, config.weight_decay, 0.25)
    state = jax.eval_shape(lambda: init_train_state(agent, optimizer, 0))

    def array(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    b, t, n = config.batch_size, config.seq_len, 200
    batch = Batch(
        states=array(b, t, S),
        actions=array(b, t, A),
        returns_to_go=array(b, t),
        timesteps=array(b, t, dtype=jnp.int32),
        mask=array(b, t),
    )
    update = jax.jit(make_update(agent, optimizer, schedule)).lower(state, batch)
    context = jax.eval_shape(agent.start, array(n))
    inputs = context, array(n, S), array(n), array(n, dtype=bool)
    act = jax.jit(agent.act).lower(state.params, *inputs)
    updating, acting = (
        lowered.compile().memory_analysis() for lowered in (update, act)
    )
    size = {
        what: 4 * numbers for what, _, numbers in sizes._needed(config, trains=True)
    }
    assert size["a batch"] < updating.temp_size_in_bytes < 8 * size["a batch"]
    assert size["an evaluation"] < acting.temp_size_in_bytes
    assert size["a network"] < updating.argument_size_in_bytes * 4 / 3
