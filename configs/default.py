"""Every key of a run's configuration; the other files here change some of them.

Names and values are those of CORL's dt.py unless the comment says "ours". A file of
your own starts with `from configs import default`, takes `default.get_config()`, sets
what it changes and returns it; `python launch.py --config=path/to/file.py` runs it.
launch.py locks what it gets, and refuses a key that is not here.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any

import ml_collections

# CORL's values for every family but antmaze.
LARGE_BATCH = {"batch_size": 4096, "learning_rate": 8e-4, "eval_every": 5_000}

# Ours, for the demo datasets: a run that a laptop finishes.
LAPTOP = {
    "batch_size": 64,
    "learning_rate": 8e-4,
    "update_steps": 20_000,
    "warmup_steps": 1_000,
    "eval_every": 5_000,
    "eval_episodes": 10,
}


def get_config() -> ml_collections.ConfigDict:
    """Return every key at its default."""
    config = ml_collections.ConfigDict()

    # The run. The three are also what Weights & Biases calls it, see loggers.
    config.project = "dt_jax"  # the project that it is shown in
    config.group = "DT-D4RL"  # the group of runs that it belongs to
    config.name = "DT"  # names the run's folder too, see checkpoints_path

    # The model.
    config.embedding_dim = 128  # width of every token; a multiple of num_heads
    config.num_layers = 3  # transformer blocks
    config.num_heads = 1  # attention heads in each block
    # Ours: between the two layers of each block's perceptron; "gelu" is CORL's, "relu"
    # and "gelu_new" (tanh instead of erf) are those of Hugging Face's models.
    config.activation = "gelu"
    config.seq_len = 20  # steps the model sees: seq_len x (return, state, action)
    # Longest episode, for the table of timestep embeddings; None: the longest of the
    # data's and the environment's limit.
    config.episode_len = 1000
    config.attention_dropout = 0.1  # on the attention weights
    config.residual_dropout = 0.1  # on what each block adds to its input
    config.embedding_dropout = 0.1  # on the embedded tokens
    # The tanh head's output is multiplied by it; the environment's bounds on actions
    # are mapped to ±max_action. None: 1, or without an environment the data's largest
    # action where that is more.
    config.max_action = 1.0

    # The data and the environment.
    # A D4RL dataset ("hopper-medium-v2"), a demo one ("hopper-demo") or one of Minari's
    # ("minari:D4RL/pen/human-v2"): it names the data, the environment to evaluate in
    # and the score's constants. With a data_path also any environment of EnvPool's or
    # Gymnasium's ("Pendulum-v1"). None: train on data_path alone and play nothing.
    config.env_name = "halfcheetah-medium-v2"
    # Ours: an HDF5 or .npz file in D4RL's schema, read instead of env_name's own data.
    config.data_path = None
    # Ours: where trajectories end. "corl": at every row with terminals or timeouts set;
    # "timeouts": at those with timeouts alone, for data that goes on past the goal.
    config.split = "corl"
    # Ours: the share of trajectories that is kept from training, to measure
    # eval/holdout_action_mse on; None: 0.1 where no episodes are played, else 0.
    config.holdout_fraction = None
    # Ours: data of more gigabytes than this stays on the disk and is mapped; None: half
    # of the machine's memory.
    config.memory_limit_gb = None
    # Ours: a run's folder, one of its checkpoints, or a file that CORL saved (.pt),
    # whose parameters and normalisation a new run begins with.
    config.init_from = None
    # Ours: "gym" makes env_name by the gym that you have installed, with d4rl's
    # environments if d4rl is there too.
    config.env_backend = "auto"
    # Ours: the returns that score 0 and 100, where env_name has none or others are
    # wanted.
    config.reference_scores = None

    # The optimiser.
    config.learning_rate = 1e-4  # AdamW's, at the end of the warm-up
    config.betas = (0.9, 0.999)  # AdamW's decay of its two moments
    config.weight_decay = 1e-4  # AdamW's, on every parameter
    config.clip_grad = 0.25  # largest global norm of the gradient; None: no clipping
    # Ours: "warmup_cosine" decays to a tenth of learning_rate by update_steps;
    # "warmup_constant" is CORL's: use it for parity and to compare scores.
    config.lr_schedule = "warmup_cosine"
    config.batch_size = 64  # windows of seq_len steps in an update
    config.update_steps = 100_000  # updates in the run
    config.warmup_steps = 10_000  # first updates, over which the learning rate rises
    # Returns are multiplied by it before the model sees them; None: the power of ten
    # that brings the data's largest to between 1 and 10. 0 zeroes every return token:
    # the control that learns without its target.
    config.reward_scale = 0.001
    # Background threads that gather batches ahead of the updates; 0: the main thread
    # does. The batches are the same whatever the number.
    config.num_workers = 4
    # Ours: "bfloat16" computes the updates' matrix products in it; parameters,
    # normalisation, softmax and loss stay in float32, and so does all acting.
    config.compute_dtype = "float32"
    # Ours: updates in one call of the compiled program, which then ends early where
    # something is due. The same bits whatever the number.
    config.steps_per_dispatch = 10
    # Ours: the share of the device's memory that the data may take. Beyond it batches
    # are gathered on the host, as they are from data that stays on the disk.
    config.device_memory_share = 0.5

    # Evaluation.
    # Returns to ask for, not scaled; None: the data's best and mean return.
    config.target_returns = (12000.0, 6000.0)
    config.eval_episodes = 100  # episodes a target; 0: none is played
    config.eval_every = 10_000  # updates between two; one more at step 0, and the end

    # The log and the checkpoints.
    config.log_every = 100  # ours: updates between two rows of metrics.jsonl
    # Ours: where the rows go besides: "tensorboard", "wandb", both or neither.
    config.loggers = ()
    # Ours: updates between checkpoints; one is also made at each evaluation.
    config.checkpoint_every = 1000
    config.keep_checkpoints = 3  # ours: so many of the last (2 or more), and the best
    # The run's folder is <checkpoints_path>/<name>; None: runs/<name>. --workdir names
    # the folder itself and wins.
    config.checkpoints_path = None

    # Reproducibility and the machine.
    # XLA's deterministic GPU kernels: slower, the same bits at every run. The CPU's are
    # always so.
    config.deterministic = False
    config.train_seed = 10  # initialisation, batches and dropout
    # Ours: so many runs side by side in one program, with the seeds train_seed,
    # train_seed + 1, ...; metrics are each one's and what they come to together.
    config.num_seeds = 1
    config.eval_seed = 42  # episode i has its own seed from it, the same at each target
    # Ours: devices that the run is shared out over: seeds first, then each batch in
    # equal parts. None: one; of several processes (--distributed) all.
    config.num_devices = None
    # "auto" takes the best that JAX finds; or "cpu", "gpu" (also "cuda"), "tpu".
    config.device = "auto"

    return config


def for_dataset(env_name: str, **changes: Any) -> ml_collections.ConfigDict:
    """Return the default with a dataset's `changes`, its run named after it."""
    config = get_config()
    # The name is a folder's; that of a Minari dataset is a path.
    name = re.sub(r"[:/]", "-", f"dt-{env_name}")
    config.update(env_name=env_name, name=name, **changes)
    return config


def for_locomotion(
    body: str, dataset: str, targets: Sequence[float], demo_targets: Sequence[float]
) -> ml_collections.ConfigDict:
    """Return CORL's hyper-parameters for a body's D4RL dataset, ours for its `demo`."""
    check_dataset(dataset, ("medium", "medium-replay", "medium-expert", "demo"))
    if dataset == "demo":
        return for_dataset(f"{body}-demo", **LAPTOP, target_returns=tuple(demo_targets))
    return for_dataset(
        f"{body}-{dataset}-v2", **LARGE_BATCH, target_returns=tuple(targets)
    )


def check_dataset(dataset: str, known: Sequence[str]) -> None:
    """Raise ValueError, naming the nearest, if `dataset` is none of `known`."""
    if dataset not in known:
        near = difflib.get_close_matches(dataset, known) or known
        raise ValueError(f"unknown dataset {dataset!r}; nearest: {', '.join(near)}")
