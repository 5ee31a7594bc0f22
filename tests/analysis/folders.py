"""Folders as runs leave them, written by what writes them in a run."""

import importlib
import json

import numpy as np

from dt_jax.config.config import to_json
from dt_jax.data.registry import all_specs, lookup, normalized_score
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.metrics import MetricsLog
from dt_jax.utils.files import write_text

DATASET = {
    "source": "hopper_medium-v2.hdf5",
    "sha256": "5e" * 32,
    "num_transitions": 999906,
    "num_trajectories": 2186,
    "dropped_tail": 0,
    "return_mean": 1422.0,
    "return_best": 3222.4,
    "return_histogram": {
        "edges": np.linspace(300.0, 3222.4, 51).tolist(),
        "counts": [int(300 * np.exp(-(((i - 19) / 8) ** 2))) for i in range(50)],
    },
}
VERSIONS = {
    "python": "3.12.1",
    "platform": "Linux-6.1",
    "device": "cpu",
    "git_revision": "0123456789abcdef",
    "dt_jax": "0.1.0",
    "jax": "0.10.0",
}


def config_of(env_name, **changes):
    """Return CORL's settings for a dataset, with its schedule of the learning rate."""
    family, _, rest = env_name.partition("-")
    dataset = rest if rest.endswith("demo") else rest.rpartition("-")[0]
    config = importlib.import_module(f"configs.{family}").get_config(dataset)
    config.update(lr_schedule="warmup_constant", holdout_fraction=0.0)
    with config.ignore_type():
        config.update(changes)
    return config.lock()


def begin(folder, config, dataset=DATASET):
    """Write what a run writes before its first update."""
    write_text(folder / "config.json", to_json(config))
    write_text(folder / "versions.json", json.dumps({**VERSIONS, "dataset": dataset}))


def make_run(
    folder,
    env_name="hopper-medium-v2",
    *,
    scores=(65.0,),
    until=None,
    dataset=DATASET,
    **changes,
):
    """Write a run as it is after its last evaluation.

    Args:
      folder: where.
      env_name: the dataset.
      scores: of each seed, at the first target and the last evaluation; exactly.
      until: updates done, a multiple of eval_every; None: all.
      dataset: its identity.
      changes: to the configuration.
    """
    if env_name in all_specs():
        config = config_of(env_name, num_seeds=len(scores), **changes)
    begin(folder, config, dataset)
    until = config.update_steps if until is None else until
    rng = np.random.default_rng(config.train_seed)
    seeds = range(config.train_seed, config.train_seed + len(scores))
    with MetricsLog(folder / "metrics.jsonl", up_to_step=-1) as log:
        for step in range(0, until + 1, config.eval_every):
            learnt = 1 - 0.9 * np.exp(-4 * step / config.update_steps)
            evaluation = play(config, np.array(scores) * learnt, rng)
            if step == until:
                evaluation = play(config, np.array(scores), rng)
            evaluation.save(folder / "eval" / f"{step}.npz")
            row = {}
            if step:
                row = {"train_loss": 0.1 * 0.8 ** (10 * learnt) + 0 * rng.uniform()}
            row = with_seeds(seeds, row | evaluation.metrics())
            row["eval/seconds"] = 30.0
            log.write(step, row | ({"steps_per_second": 50.0} if step else {}))
    return folder


def play(config, scores, rng):
    """Return an evaluation whose first target has these mean scores, [S]."""
    spec, shape = lookup(config.env_name), (len(config.target_returns),)
    shape = (len(scores), *shape, config.eval_episodes)
    wanted = rng.standard_normal(shape) * 0.1
    wanted -= wanted.mean(axis=-1, keepdims=True)
    wanted += scores[:, None, None] / np.arange(1, shape[1] + 1)[:, None]
    returns = spec.ref_min + wanted / 100 * (spec.ref_max - spec.ref_min)
    if len(scores) == 1:
        returns = returns[0]
    return Evaluation(
        target_returns=np.array(config.target_returns),
        seeds=np.arange(config.eval_episodes),
        returns=returns.astype(np.float32),
        lengths=np.full(returns.shape, 500),
        normalized_scores=normalized_score(spec, returns),
    )


def with_seeds(seeds, metrics):
    """Return the metrics as a run with these seeds logs them."""
    row = {name: float(np.mean(values)) for name, values in metrics.items()}
    if len(seeds) > 1:
        for i, seed in enumerate(seeds):
            for name, values in metrics.items():
                value = np.broadcast_to(values, len(seeds))[i]
                row[f"seed_{seed}/{name}"] = float(value)
    return row
