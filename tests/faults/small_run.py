"""The smallest run of launch.py, on a file of hopper's sizes; it takes seconds."""

_SMALL = {
    "config": "configs/hopper.py:medium",
    "config.embedding_dim": 8,
    "config.num_layers": 1,
    "config.seq_len": 3,
    "config.batch_size": 4,
    "config.episode_len": 40,
    "config.eval_episodes": 1,
    "config.target_returns": 50,
    "config.update_steps": 2,
    "config.warmup_steps": 1,
    "config.num_workers": 0,
}


def launch_command(data, workdir, *flags):
    """Return the command of a small run.

    Args:
      data: the dataset's file.
      workdir: the run's folder.
      *flags: further flags; they take precedence.
    """
    small = [f"--{flag}={value}" for flag, value in _SMALL.items()]
    files = [f"--config.data_path={data}", f"--workdir={workdir}"]
    return ["launch.py", *small, *files, *flags]
