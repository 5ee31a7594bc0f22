"""A look before the run: python launch.py --config=... --dry_run."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from dt_jax import envs
from dt_jax.config import from_data as data_defaults
from dt_jax.data.registry import DatasetSpec
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets import Dataset, is_cached
from dt_jax.evaluation.policy import Policy
from dt_jax.training.extras import check_packages
from dt_jax.training.resume import as_before, last_checkpoint
from dt_jax.training.train import load_data, new_trainer, read_source
from dt_jax.utils.sharding import place

_BATCH = 64  # windows at the most


def dry_run(config: ConfigDict, workdir: Path) -> None:
    """Step the environment once and make one update; no run is begun.

    The update is made on the data where that is at hand, else on made-up data of the
    environment's sizes. Only a Minari dataset is downloaded, for it alone knows its
    environment.

    Args:
      config: validated, as configs/default.py describes it.
      workdir: the run's folder; it is looked at alone.

    Raises:
      UserError: there is no such environment, it refuses the action, or the run would
        be refused before its first update.
    """
    last = last_checkpoint(workdir, config)
    if last:
        config = as_before(config, last[1]["config"])
    check_packages(config)
    small = ConfigDict(config.to_dict())
    if last:
        small.init_from = None  # what the run began with is not read again
    small.batch_size = min(config.batch_size, _BATCH)
    small.eval_episodes = 0  # the environment is stepped below
    small.num_seeds = 1
    place(config)  # can it be?
    small.num_devices = 1
    spec = envs.of_config(config)
    if config.holdout_fraction is None and spec is not None and config.eval_episodes:
        small.holdout_fraction = 0.0
    small, source = read_source(small)
    if spec is None or is_cached(spec, config.data_path):
        dataset = load_data(small, spec)
    else:
        dataset = _made_up(spec, min(small.seq_len, small.episode_len or _BATCH))
        # Here, for what made-up data suggests is not to be told.
        small, _ = data_defaults.fill_in(small, dataset.trajectories, spec)
    trainer = new_trainer(small, Path(), dataset, spec, source)
    trainer.begin(None)
    played = "no environment played"
    if spec is not None and config.eval_episodes:
        targets = trainer.config.target_returns
        env = envs.make(spec, envs.episode_seeds(config.eval_seed, len(targets)))
        policy = Policy(trainer.agent, trainer.params)
        policy.reset(targets)
        env.host_step(policy.act(env.host_reset()))
        played = f"{spec.name} reset and stepped"
    loss = trainer.update_once()
    print(
        f"dry run: {played}; one update on {dataset.source}, {small.batch_size} "
        f"windows of {small.seq_len} steps, loss {loss:.3g}"
    )


def _made_up(spec: DatasetSpec, length: int) -> Dataset:
    """Return random trajectories of an environment's sizes and bounds."""
    rng, rows = np.random.default_rng(0), 4 * length
    low, high = spec.action_low, spec.action_high
    raw = RawData(
        observations=rng.standard_normal((rows, spec.observation_size), np.float32),
        actions=rng.uniform(low, high, (rows, spec.action_size)).astype(np.float32),
        rewards=rng.uniform(0, 1, rows).astype(np.float32),
        terminals=np.zeros(rows, bool),
        timeouts=np.arange(1, rows + 1) % length == 0,
    )
    trajectories = Trajectories.from_raw(raw, source="made-up data")
    return Dataset(trajectories, source="made-up data", sha256="")
