"""What a run's folder holds: checkpoints, metrics, evaluations, configuration."""
