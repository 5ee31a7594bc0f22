"""The configuration keys that all agents share; an agent's own are in its file.

Everything that needs the list of keys derives it from here: flags, --help, the
documentation, validation, and what a resumed run may change.
"""

from collections import Counter

from dt_jax.agents import agent_class
from dt_jax.utils.errors import UserError
from dt_jax.utils.keys import (
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_INTEGER,
    Key,
    arguments,
    boolean,
    integer,
    number,
    numbers,
    one_of,
    or_none,
    some_of,
    text,
)


def _is_name(env_name: str) -> bool:
    """Accept any name but "Minari:..." in upper case, which would name no dataset."""
    prefixed = env_name.lower().startswith("minari:")
    return env_name != "" and prefixed == env_name.startswith("minari:")


_MOST_PARTS = 1000  # beyond it compilation takes hours, or no thread can be started

# fmt: off
_RUN = (
    Key("agent", "dt", text("the name of a registered agent"),
        "The algorithm. A config file fixes it; the command line cannot change it."),
    Key("project", "dt_jax", text("a label"),
        "Project of the run in Weights & Biases.", resumable=True, corl=True),
    Key("group", "DT-D4RL", text("a label"),
        "Group of the run in Weights & Biases.", resumable=True, corl=True),
    Key("name", "DT",
        text("the name of a folder, without a path",
             lambda name: name not in ("", ".", "..") and not set(name) & set("/\\")),
        "Name of the run, and of its folder unless --workdir is given.",
        resumable=True, corl=True),
    Key("checkpoints_path", None, or_none(text("the path of a folder")),
        "The run's folder is <checkpoints_path>/<name>; None: runs/<name>. --workdir "
        "takes precedence.", resumable=True, corl=True),
)
_DATA = (
    Key("env_name", "halfcheetah-medium-v2",
        or_none(text("the name of a dataset; Minari's begin with 'minari:'", _is_name)),
        'A D4RL dataset ("hopper-medium-v2"), a demo dataset ("hopper-demo") or a '
        'Minari dataset ("minari:D4RL/pen/human-v2"): it names the data, the '
        'environment to evaluate in and the reference returns of its score. With a '
        'data_path also any environment of EnvPool or Gymnasium ("Pendulum-v1"). '
        'None: train on data_path without evaluating in an environment.', corl=True),
    # The file may move; its content is compared by its SHA-256.
    Key("data_path", None, or_none(text("the path of a file")),
        "An HDF5 or .npz file in D4RL's schema, read instead of env_name's own data.",
        resumable=True),
    Key("split", "corl", one_of("corl", "timeouts"),
        'Where trajectories end. "corl": at each row with terminals or timeouts set; '
        '"timeouts": only at rows with timeouts set, for data that continues after '
        'reaching a goal.'),
    Key("episode_len", 1000, or_none(integer(1, 10_000_000)),
        "Longest episode in environment steps; rollouts are cut off there. None: the "
        "longer of the longest trajectory and the environment's time limit.",
        from_data=True, architecture=True, corl=True),
    Key("max_action", 1.0, or_none(POSITIVE),
        "The network's actions lie within ±max_action; the environment's bounds, or "
        "without an environment the range of the data, are mapped to it. None: 1.",
        from_data=True, architecture=True, corl=True),
    Key("holdout_fraction", None,
        or_none(number("a number from 0 to below 1", lambda x: 0 <= x < 1)),
        "Share of trajectories held out of training to compute "
        "eval/holdout_action_mse. None: 0.1 where no environment is evaluated, else "
        "0.", from_data=True),
    Key("memory_limit_gb", None, or_none(NOT_NEGATIVE),
        "Data of more gigabytes stays on disk and is memory-mapped; None: half of "
        "the machine's memory.", resumable=True),
    Key("device_memory_share", 0.5,
        number("a number from 0 to 1", lambda x: 0 <= x <= 1),
        "Share of the device's memory that the data may take. Larger data stays on "
        "the host, where batches are gathered.", resumable=True),
    Key("init_from", None,
        or_none(text("the folder of a run, or a checkpoint saved by CORL")),
        "A run's folder, one of its checkpoints, or a .pt file saved by CORL, whose "
        "parameters and normalisation statistics a new run starts with."),
    Key("env_backend", "auto", one_of("auto", "gym"),
        '"gym" makes env_name with the installed gym, and with d4rl if it is there.'),
    Key("env_kwargs", None,
        or_none(arguments("keyword arguments such as {'gravity': 9.8}")),
        "Arguments for gymnasium.make, as the text of a dictionary; Gymnasium's "
        "environment is taken where EnvPool has the name too."),
    Key("reference_scores", None,
        or_none(numbers(
            "two finite numbers, the first below the second, such as -1200,-150",
            lambda scores: len(scores) == 2 and scores[0] < scores[1])),
        "The returns that score 0 and 100; None: those of env_name, if it has any."),
)
_TRAINING = (
    Key("batch_size", 64, POSITIVE_INTEGER,
        "Samples in one update; for sequence models, windows of seq_len steps.",
        corl=True),
    Key("update_steps", 100_000, POSITIVE_INTEGER,
        "Updates in the run.", resumable=True, corl=True),
    Key("num_workers", 4, integer(0, _MOST_PARTS),
        "Background threads that prepare batches; 0: the main thread does. The "
        "batches are the same whatever the number.", resumable=True, corl=True),
    # One call cannot be interrupted.
    Key("steps_per_dispatch", 10, integer(1, 10_000),
        "Most updates in one call of the compiled program; results are the same "
        "whatever the number.", resumable=True),
    Key("log_every", 100, POSITIVE_INTEGER,
        "Updates between two rows of metrics.jsonl.", resumable=True),
    Key("loggers", (), some_of("tensorboard", "wandb"),
        "Where the rows of metrics.jsonl go besides.", resumable=True),
    Key("checkpoint_every", 1000, POSITIVE_INTEGER,
        "Updates between two checkpoints; there is also one at each evaluation.",
        resumable=True),
    Key("keep_checkpoints", 3, integer(2),
        "How many of the latest checkpoints are kept, besides the best.",
        resumable=True),
)
_EVALUATION = (
    Key("eval_episodes", 100, integer(0, 1_000_000),
        "Episodes for each target return; 0: no environment is evaluated.",
        resumable=True, corl=True),
    Key("eval_every", 10_000, POSITIVE_INTEGER,
        "Updates between two evaluations; there is also one at step 0 and at the end.",
        resumable=True, corl=True),
    Key("eval_seed", 42, integer(0),
        "Seed from which episode i gets its own, the same for every target return.",
        resumable=True, corl=True),
    Key("max_envs", None, or_none(POSITIVE_INTEGER),
        "Most environments that exist at once in a process; 1: one episode is played "
        "after the other. None: as many as there are episodes.", resumable=True),
)
DEVICE = Key("device", "auto", one_of("auto", "cpu", "gpu", "cuda", "tpu"),
    '"auto": the best that JAX finds.', resumable=True, corl=True)

_DEVICES = (
    Key("train_seed", 10, integer(0),
        "Seed of initialisation, batches and dropout.", corl=True),
    Key("num_seeds", 1, integer(1, _MOST_PARTS),
        "Runs trained side by side in one program, with seeds train_seed, train_seed "
        "+ 1, ...; metrics are logged per seed and aggregated."),
    Key("deterministic", False, boolean(),
        "Use XLA's deterministic GPU kernels: slower, the same bits in every run. On "
        "CPUs results are always deterministic.", resumable=True),
    Key("num_devices", None, or_none(POSITIVE_INTEGER),
        "Devices over which the run is sharded: seeds first, then each batch. None: "
        "one; with several processes (--distributed) all.", resumable=True),
    DEVICE,
)
# fmt: on

# Headings for --help and the documentation.
SHARED_KEYS = {
    "The run": _RUN,
    "Data and environment": _DATA,
    "Training": _TRAINING,
    "Evaluation": _EVALUATION,
    "Reproducibility and devices": _DEVICES,
}


def keys_of(agent: str) -> dict[str, Key]:
    """Return the keys of an agent's configuration, shared and its own, by name.

    Raises:
      UserError: no such agent is registered.
    """
    sections = sections_of(agent).values()
    return {key.name: key for section in sections for key in section}


def sections_of(agent: str) -> dict[str, tuple[Key, ...]]:
    """Return the keys of an agent's configuration by the headings of --help.

    Raises:
      UserError: no such agent is registered, or it declares a key that exists already.
    """
    run, *others = SHARED_KEYS.items()
    own = (f"The agent, {agent}", tuple(agent_class(agent).KEYS))
    sections = dict([run, own, *others])
    counts = Counter(key.name for section in sections.values() for key in section)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise UserError(
            f"agent {agent}: the key {name} exists already: give it another name"
        )
    return sections
