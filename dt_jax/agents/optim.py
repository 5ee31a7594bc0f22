"""AdamW with warm-up, and its configuration keys."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dt_jax.agents.base import TrainState
from dt_jax.types import Params
from dt_jax.utils.keys import (
    NOT_NEGATIVE,
    POSITIVE,
    Key,
    integer,
    numbers,
    one_of,
    or_none,
)

_FINAL_SHARE = 0.1  # of the peak learning rate, at the cosine's end

# fmt: off
OPTIMIZER_KEYS = (
    Key("learning_rate", 1e-4, POSITIVE,
        "AdamW's learning rate at the end of the warm-up.", corl=True),
    Key("betas", (0.9, 0.999),
        numbers("two numbers from 0 to below 1, such as 0.9,0.999",
                lambda betas: len(betas) == 2 and all(0 <= b < 1 for b in betas)),
        "AdamW's decay rates of its two moments.", corl=True),
    Key("weight_decay", 1e-4, NOT_NEGATIVE,
        "AdamW's weight decay, applied to every parameter.", corl=True),
    Key("clip_grad", 0.25, or_none(POSITIVE),
        "Largest global norm of the gradient; None: no clipping.", corl=True),
    Key("lr_schedule", "warmup_cosine", one_of("warmup_cosine", "warmup_constant"),
        '"warmup_cosine" decays to a tenth of learning_rate by update_steps; '
        '"warmup_constant" is CORL\'s schedule: use it to compare scores.'),
    Key("warmup_steps", 10_000, integer(0),
        "Updates over which the learning rate rises linearly.", corl=True),
)
# fmt: on


def initial_state(
    optimizer: optax.GradientTransformation,
    params: Params,
    key: jax.Array,
    **extra: Any,
) -> TrainState:
    """Return the training state before the first update, with its `extra` by name."""
    step, opt_state = jnp.zeros((), jnp.int32), optimizer.init(params)
    return TrainState(step, params, opt_state, key, extra)


def apply_gradients(
    optimizer: optax.GradientTransformation, state: TrainState, grads: Params
) -> TrainState:
    """Return the state after one step of the optimiser on its parameters."""
    params, opt_state = optimizer_step(optimizer, state.params, state.opt_state, grads)
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state)


def optimizer_step(
    optimizer: optax.GradientTransformation,
    params: Params,
    opt_state: optax.OptState,
    grads: Params,
) -> tuple[Params, optax.OptState]:
    """Return the parameters and the optimiser's state after one of its steps."""
    # optax mixes integers and floats, which fails under strict dtype promotion.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def make_schedule(
    kind: str, learning_rate: float, warmup_steps: int, update_steps: int
) -> optax.Schedule:
    """Return the learning rate as a function of the completed updates.

    Those with a warm-up rise linearly like CORL's: the first update uses 1/warmup_steps
    of the peak, update number warmup_steps the peak itself. Then "warmup_constant"
    stays there, as in CORL, and "warmup_cosine" falls to a tenth of it by update_steps.
    With warmup_steps >= update_steps there is only the warm-up. "cosine" has no warm-up
    and falls to 0.
    """
    if kind == "cosine":
        return lambda count: learning_rate * _cosine(count / update_steps)

    def schedule(count):
        warmup = jnp.minimum((count + 1) / max(warmup_steps, 1), 1.0)
        if kind == "warmup_constant" or warmup_steps >= update_steps:
            return learning_rate * warmup
        progress = (count - warmup_steps) / (update_steps - warmup_steps)
        cosine = _cosine(progress)
        return learning_rate * warmup * (_FINAL_SHARE + (1 - _FINAL_SHARE) * cosine)

    return schedule


def _cosine(progress):
    """Return half a wave that falls from 1 to 0 while `progress` rises from 0 to 1."""
    return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))


def make_optimizer(
    schedule: optax.Schedule,
    betas: tuple[float, float],
    weight_decay: float,
    clip_grad: float | None,
) -> optax.GradientTransformation:
    """Return AdamW after clipping by global norm, with decay on every parameter.

    torch's AdamW, which CORL uses, decays biases, norms and embeddings too.
    """
    adamw = optax.adamw(schedule, *betas, eps=1e-8, weight_decay=weight_decay)
    if clip_grad is None:
        return adamw
    return optax.chain(optax.clip_by_global_norm(clip_grad), adamw)


def adam_with_l2(
    schedule: optax.Schedule,
    betas: tuple[float, float],
    weight_decay: float,
    clip_grad: float | None,
) -> optax.GradientTransformation:
    """Return torch's Adam with `weight_decay`, after clipping by global norm.

    It is part of the gradient, and so not decoupled as in AdamW.
    """
    clip = [] if clip_grad is None else [optax.clip_by_global_norm(clip_grad)]
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return optax.chain(*clip, *decay, optax.adam(schedule, *betas))


def optimizer_from_config(
    config: ConfigDict,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Return the optimiser that OPTIMIZER_KEYS describe, and its learning rate."""
    schedule = make_schedule(
        config.lr_schedule,
        config.learning_rate,
        config.warmup_steps,
        config.update_steps,
    )
    optimizer = make_optimizer(
        schedule, config.betas, config.weight_decay, config.clip_grad
    )
    return optimizer, schedule
