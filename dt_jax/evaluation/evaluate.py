"""Evaluation of a finished run, in its own environment or in another one."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dt_jax import envs
from dt_jax.config.from_data import target_warning
from dt_jax.config.keys import keys_of
from dt_jax.config.load import from_dict
from dt_jax.data.minari import PREFIX
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.registry import EnvSpec
from dt_jax.datasets.describe import out_of_range
from dt_jax.envs.spaces import check_bounds
from dt_jax.evaluation.evaluator import make_evaluator
from dt_jax.evaluation.policy import TrainedAgent, load_agent
from dt_jax.runs.evaluations import Evaluation
from dt_jax.utils.errors import UserError


@dataclass(frozen=True)
class LoadedRun:
    """A checkpoint, and how it is to be evaluated."""

    config: ConfigDict  # the run's, with the changes that were asked for
    spec: EnvSpec
    trained: TrainedAgent

    def play(self) -> Evaluation:
        """Play its episodes."""
        evaluator = make_evaluator(self.config, self.trained.agent, self.spec)
        assert evaluator is not None  # `load_run` has checked eval_episodes
        with closing(evaluator):
            return evaluator(self.trained.params)


def evaluate(
    run: Any,
    target_returns: Sequence[float] | None = None,
    episodes: int | None = None,
    *,
    checkpoint: str | int = "last",
    env_name: str | None = None,
    seed: int | None = None,
) -> Evaluation:
    """Play episodes with a checkpoint of a run.

    Args:
      run: a run's folder, or what `dt_jax.train` returned.
      target_returns: in the environment's units; None: those of the run.
      episodes: for each target return; None: as many as the run's configuration says.
      checkpoint: "last", "best" or the number of a step.
      env_name: another environment than the run's.
      seed: from which each episode gets its own; None: the run's eval_seed.

    Returns:
      The arrays of the episodes, as a run's eval/*.npz has them.

    Raises:
      UserError: there is no such run or checkpoint, or the environment does not fit.
    """
    changes = {
        "target_returns": None if target_returns is None else tuple(target_returns),
        "eval_episodes": episodes,
        "eval_seed": seed,
    }
    workdir = getattr(run, "workdir", run)
    return load_run(workdir, checkpoint, env_name, changes).play()


def load_run(
    workdir: str | Path,
    checkpoint: str | int = "last",
    env_name: str | None = None,
    changes: Mapping[str, Any] | None = None,
    flags: Mapping[str, str] | None = None,
) -> LoadedRun:
    """Return a checkpoint with everything that is needed to play its episodes.

    Args:
      workdir: the run's folder.
      checkpoint: "last", "best" or the number of a step.
      env_name: another environment than the run's.
      changes: values of the run's configuration keys, or their texts on the command
        line; None for the run's own.
      flags: how the command line names keys, for error messages.

    Raises:
      UserError: there is no such run or checkpoint, or it cannot be played like that.
    """
    trained = load_agent(workdir, checkpoint)
    trained.agent.check_acts()
    config = from_dict(trained.record["config"]).unlock()
    flags, name = flags or {}, env_name or config.env_name
    if name != config.env_name:
        # They belong to the other environment.
        config.reference_scores = config.env_kwargs = None
    _change(config, changes or {}, flags)
    env_flag, conditioned = flags.get("env_name", "env_name"), trained.agent.conditioned
    if name is None:
        also = ""
        if conditioned and not config.target_returns:
            also = f", and give {flags.get('target_returns', 'target_returns')}"
        raise UserError(f"this run has no environment: name one with {env_flag}{also}")
    known = PREFIX, "gymnasium:"
    if env_name is None and ":" in name and not name.startswith(known):
        raise UserError(
            f"{workdir} was evaluated in {name}, which imports a package: if you trust "
            f"it, give {env_flag}={name}"
        )
    config.env_name = name
    needed = ("eval_episodes", *(("target_returns",) if conditioned else ()))
    if missing := [flags.get(key, key) for key in needed if not config[key]]:
        raise UserError(f"nothing to play: give {' and '.join(missing)}")
    spec = envs.spec_from_config(config)
    assert spec is not None  # it has a name
    returns = trained.record["dataset"].get("return_histogram")
    if conditioned and returns:
        least, *_, best = returns["edges"]
        if line := target_warning(config.target_returns, least, best):
            warnings.warn(line, stacklevel=1)
    _check_fits(trained, config.max_action, spec, f"choose another {env_flag}")
    return LoadedRun(config.lock(), spec, trained)


def _change(
    config: ConfigDict, changes: Mapping[str, Any], flags: Mapping[str, str]
) -> None:
    """Set keys of an unlocked configuration, from values or their texts."""
    keys = keys_of(config.agent)
    for key, value in changes.items():
        if value is None:
            continue
        if key not in keys:
            flag = flags.get(key, key)
            raise UserError(f"{flag}: the agent {config.agent} does not use it")
        if isinstance(value, str):
            value = keys[key].parse(value, flags.get(key))
        keys[key].validate(value, flags.get(key))
        with config.ignore_type():
            config[key] = value


def _check_fits(
    trained: TrainedAgent, max_action: float, spec: EnvSpec, remedy: str
) -> None:
    """Raise a UserError unless sizes and bounds are those that a run was trained on."""
    run, units = trained.workdir, trained.agent.normalizer
    sizes = units.observation_size, units.action_size
    if sizes != (spec.observation_size, spec.action_size):
        raise UserError(
            f"{run} was trained on observations of {sizes[0]} and actions of "
            f"{sizes[1]} numbers, but {spec.name} has {spec.observation_size} and "
            f"{spec.action_size}"
        )
    if units.discrete != spec.discrete:
        raise UserError(
            f"{run} was trained on {units.action_kind} actions, but those of "
            f"{spec.name} are not; {remedy}"
        )
    bounds = trained.record.get("action_bounds")
    if bounds is None and not units.discrete:
        _check_range(run, units, max_action, spec, remedy)
    check_bounds(run, bounds, spec, remedy)


def _check_range(
    run: str | Path, units: Normalizer, max_action: float, spec: EnvSpec, remedy: str
) -> None:
    """Raise a UserError if actions of a run without environment are out of bounds."""
    # A constant number has its value as center, and scale 1: it reaches nothing else.
    constant = (units.action_scale == 1) & (units.action_center != 0)
    reach = np.where(constant, 0, max_action * units.action_scale)
    low, high = units.action_center - reach, units.action_center + reach
    outside = out_of_range(np.stack([low, high]), *spec.action_bounds)
    if outside.rows:
        i, (least, most) = outside.column, spec.action_bounds
        raise UserError(
            f"{run} was trained on actions whose number {i} is "
            f"between {low[i]:g} and {high[i]:g}, in {spec.name} it is between "
            f"{least[i]:g} and {most[i]:g}; {remedy}"
        )
