"""A quick check before a long run: python launch.py --config=... --dry_run."""

from contextlib import closing
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from dt_jax import envs
from dt_jax.config import from_data, validate
from dt_jax.data.registry import EnvSpec
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets import Dataset, is_cached
from dt_jax.evaluation.policy import Policy
from dt_jax.training.batches import check_batch_memory
from dt_jax.training.loggers import check_installed
from dt_jax.training.resume import last_checkpoint, resumed_config
from dt_jax.training.stages import check_labels_from, stage_configs
from dt_jax.training.train import load_new_data, new_trainer, read_source
from dt_jax.training.trainer import main_loss
from dt_jax.utils.errors import UserError
from dt_jax.utils.sharding import make_sharding

_MAX_BATCH = 64  # windows


def dry_run(config: ConfigDict, workdir: Path) -> None:
    """Step the environment once and make one update, without starting a run.

    The update is made on the data if it is available without a download, else on random
    data of the environment's sizes. Only a Minari dataset is downloaded, because it
    describes its environment.

    Args:
      config: validated.
      workdir: the run's folder, which is only read.

    Raises:
      UserError: there is no such environment, it refuses the action, or the run would
        be refused before its first update.
    """
    for name, stage in stage_configs(config).items():
        try:
            validate(stage, trains=False)
            dry_run(stage, workdir / name)
        except UserError as error:
            raise UserError(f"stage {name}: {error}") from error
    last = last_checkpoint(workdir, config)
    if last:
        config = resumed_config(config, last.record["config"])
    check_installed(config.loggers)
    small = ConfigDict(config.to_dict())
    if last:
        small.init_from = None  # a resumed run does not read it again
    small.batch_size = min(config.batch_size, _MAX_BATCH)
    small.eval_episodes = 0  # the environment is stepped below
    small.num_seeds = 1
    make_sharding(config.num_devices, config.num_seeds, config.batch_size)  # possible?
    small.num_devices = 1
    spec = envs.spec_from_config(config)
    if config.holdout_fraction is None and spec is not None and config.eval_episodes:
        small.holdout_fraction = 0.0
    small, source = read_source(small)
    stages = None
    if spec is None or is_cached(spec, config.data_path):
        dataset = load_new_data(small, spec)
        stages = check_labels_from(dataset, config)
    else:
        context = min(small.get("seq_len", 1), small.episode_len or _MAX_BATCH)
        dataset = _random_dataset(spec, context)
        # Filled in here, because suggestions from random data are not printed.
        small, _ = from_data.fill_in(small, dataset.trajectories, spec)
    trainer = new_trainer(small, Path(), dataset, spec, source)
    check_batch_memory(config, trainer.agent)
    trainer.start(None, stages)
    played = "no environment"
    if spec is not None and config.eval_episodes:
        agent = trainer.agent
        targets = trainer.config.target_returns if agent.conditioned else None
        targets = targets and targets[: config.max_envs]
        num_episodes = 1 if targets is None else len(targets)
        seeds = envs.episode_seeds(config.eval_seed, num_episodes)
        with closing(envs.make(spec, seeds)) as env:
            policy = Policy(agent, trainer.params)
            policy.reset(targets, num_episodes=num_episodes)
            env.host_step(policy.act(env.host_reset()))
        played = f"{spec.name} reset and stepped"
    metrics = trainer.update_once()
    loss = main_loss(metrics)
    print(
        f"dry run: {played}; one update on {dataset.source} with a batch of "
        f"{small.batch_size}, {loss} {metrics[loss]:.3g}"
    )


def _random_dataset(spec: EnvSpec, length: int) -> Dataset:
    """Return random trajectories of an environment's sizes and bounds."""
    rng, rows = np.random.default_rng(0), 4 * length
    low, high = spec.action_low, spec.action_high
    actions = rng.uniform(low, high, (rows, spec.action_size)).astype(np.float32)
    raw = RawData(
        observations=rng.standard_normal((rows, spec.observation_size), np.float32),
        actions=actions.argmax(axis=1) if spec.discrete else actions,
        rewards=rng.uniform(0, 100, rows).astype(np.float32),
        terminals=np.zeros(rows, bool),
        timeouts=np.arange(1, rows + 1) % length == 0,
    )
    trajectories = Trajectories.from_raw(
        raw, source="random data", num_choices=spec.action_size
    )
    return Dataset(trajectories, source="random data", sha256="")
