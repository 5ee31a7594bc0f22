"""Q-value regularised Transformers of the sizes in a golden file."""

import numpy as np
from small_agent import small_network

from dt_jax.agents.optim import adam_with_l2, make_schedule
from dt_jax.agents.qt import QRegularizedTransformerAgent
from dt_jax.data.normalizer import Normalizer
from dt_jax.networks.critics import TwinQ, mish


def golden_agent(arrays, sizes, **changes):
    """Return an agent of the sizes in a golden file."""
    model = small_network(
        action_size=sizes["act_dim"],
        seq_len=sizes["K"],
        episode_len=sizes["max_ep_len"],
        embedding_dim=sizes["hidden_size"],
        num_layers=sizes["n_layer"],
        num_heads=sizes["n_head"],
        activation="relu",
        state_size=sizes["state_dim"],
    )

    def schedule(rate):
        """Return the cosine of the reference, constant within an iteration."""
        iteration = sizes["steps_per_iter"]
        cosine = make_schedule("cosine", rate, 0, sizes["T_max"])
        return lambda count: cosine(count // iteration)

    own, clip = schedule(sizes["learning_rate"]), sizes["grad_norm"]
    betas, decay = (0.9, 0.999), sizes["weight_decay_l2"]
    options = {
        "model": model,
        "normalizer": Normalizer(
            arrays["dataset/state_mean"],
            arrays["dataset/state_std"],
            np.zeros(sizes["act_dim"], np.float32),
            np.ones(sizes["act_dim"], np.float32),
            reward_scale=1 / sizes["scale"],
        ),
        "optimizer": adam_with_l2(own, betas, decay, clip),
        "schedule": own,
        "critic": TwinQ(sizes["hidden_size"], 3, mish),
        "critic_optimizer": adam_with_l2(
            schedule(sizes["critic_learning_rate"]), betas, 0.0, clip
        ),
        "mode": "qt",
        "eta": sizes["eta"],
        "discount": sizes["discount"],
        "tau": sizes["tau"],
        "k_rewards": True,
        "ema_decay": sizes["ema_decay"],
        "ema_every": sizes["update_ema_every"],
        "ema_start": sizes["step_start_ema"],
        "num_candidates": sizes["candidates"],
        "candidate_std": 0.1,
        "choice_temperature": 1.0,
        "critic_scale": 1.0,  # the batches have raw rewards
        "q_scale": 1.0,
        "q_min": 0.0,
        "best_return": 1.0,
        "return_range": 1.0,
    }
    return QRegularizedTransformerAgent(**options | changes)
