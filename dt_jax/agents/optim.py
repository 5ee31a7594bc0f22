"""The optimiser, and the learning rate that it really uses at each step."""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

# The cosine ends at this share of the peak learning rate.
FINAL_SHARE = 0.1


def make_schedule(
    kind: str, learning_rate: float, warmup_steps: int, update_steps: int
) -> optax.Schedule:
    """Return the learning rate as a function of the updates done before it.

    Both kinds rise linearly, like CORL's: the first update uses 1/warmup_steps of the
    peak, update number warmup_steps the peak itself. Then "warmup_constant" stays there
    (CORL's), and "warmup_cosine" falls to a tenth of it by update_steps. With
    warmup_steps >= update_steps there is the warm-up alone.
    """

    def schedule(count):
        warmup = jnp.minimum((count + 1) / max(warmup_steps, 1), 1.0)
        if kind == "warmup_constant" or warmup_steps >= update_steps:
            return learning_rate * warmup
        progress = (count - warmup_steps) / (update_steps - warmup_steps)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
        return learning_rate * warmup * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)

    return schedule


def make_optimizer(
    schedule: optax.Schedule,
    betas: tuple[float, float],
    weight_decay: float,
    clip_grad: float | None,
) -> optax.GradientTransformation:
    """Return AdamW behind a clip by global norm, with decay on every parameter.

    torch's AdamW, which CORL uses, decays biases, norms and embeddings too.
    """
    adamw = optax.adamw(schedule, *betas, eps=1e-8, weight_decay=weight_decay)
    if clip_grad is None:
        return adamw
    return optax.chain(optax.clip_by_global_norm(clip_grad), adamw)


def optimizer_of(
    config: ConfigDict,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Return the optimiser of a configuration, and the learning rate that it uses."""
    schedule = make_schedule(
        config.lr_schedule,
        config.learning_rate,
        config.warmup_steps,
        config.update_steps,
    )
    return make_optimizer(
        schedule, config.betas, config.weight_decay, config.clip_grad
    ), schedule
