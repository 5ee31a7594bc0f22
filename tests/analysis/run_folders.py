"""Run folders as a training run leaves them, written by the code of a run."""

import importlib

import numpy as np

from dt_jax.data.registry import lookup, normalized_score
from dt_jax.runs import manifest
from dt_jax.runs.aggregate import aggregate_seeds
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.manifest import Manifest
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


def make_config(env_name, **changes):
    """Return CORL's settings for a dataset, with its learning-rate schedule."""
    family, _, rest = env_name.partition("-")
    dataset = rest if rest.endswith("demo") else rest.rpartition("-")[0]
    config = importlib.import_module(f"configs.{family}").get_config(dataset)
    config.update(lr_schedule="warmup_constant", holdout_fraction=0.0)
    with config.ignore_type():
        config.update(changes)
    return config.lock()


def start_run(folder, config, dataset=DATASET):
    """Write a run's record, as in its checkpoint without the arrays."""
    record = {"config": config.to_dict(), "dataset": dataset, "versions": VERSIONS}
    write_text(folder / "checkpoints" / "0" / "arrays", "not read by a report")
    manifest.write(folder / "checkpoints", 0, Manifest(None, record))


def make_run(
    folder,
    env_name="hopper-medium-v2",
    *,
    scores=(65.0,),
    until=None,
    dataset=DATASET,
    loss="train_loss",
    without_targets=False,
    **changes,
):
    """Write a run as it is after its last evaluation.

    Args:
      folder: the run's folder.
      env_name: the dataset.
      scores: of each seed at the first target and the last evaluation.
      until: completed updates, a multiple of eval_every; None: all.
      dataset: its identity.
      loss: the name of the training loss.
      without_targets: whether the agent has no target returns.
      changes: to the configuration.
    """
    config = make_config(env_name, num_seeds=len(scores), **changes)
    start_run(folder, config, dataset)
    until = config.update_steps if until is None else until
    rng = np.random.default_rng(config.train_seed)
    seeds = range(config.train_seed, config.train_seed + len(scores))
    with MetricsLog(folder / "metrics.jsonl", up_to_step=-1) as log:
        for step in range(0, until + 1, config.eval_every):
            progress = 1 - 0.9 * np.exp(-4 * step / config.update_steps)
            current = np.array(scores) * (1 if step == until else progress)
            targets = [np.nan] if without_targets else config.target_returns
            evaluation = make_evaluation(config, targets, current, rng)
            evaluation.save(folder / "eval" / f"{step}.npz")
            metrics = evaluation.metrics()
            times = {"eval/seconds": 30.0}
            if step:
                each = next(iter(metrics.values()))
                metrics[loss] = np.full_like(each, 0.1 * 0.8 ** (10 * progress))
                times["steps_per_second"] = 50.0
            log.write(step, aggregate_seeds(seeds, metrics) | times)
    return folder


def make_evaluation(config, targets, scores, rng):
    """Return an evaluation with these mean scores [S] at the first target."""
    spec, shape = lookup(config.env_name), (len(targets), config.eval_episodes)
    episodes = rng.standard_normal((len(scores), *shape)) * 0.1
    episodes -= episodes.mean(axis=-1, keepdims=True)
    episodes += scores[:, None, None] / np.arange(1, len(targets) + 1)[:, None]
    returns = spec.ref_min + episodes / 100 * (spec.ref_max - spec.ref_min)
    if len(scores) == 1:
        returns = returns[0]
    return Evaluation(
        target_returns=np.array(targets),
        seeds=np.arange(config.eval_episodes),
        returns=returns.astype(np.float32),
        lengths=np.full(returns.shape, 500),
        normalized_scores=normalized_score(spec, returns),
    )
