"""A run on a Minari dataset, with a tiny network."""

import json
import shutil

import numpy as np
import pytest
from helpers import changed
from recording import record

from dt_jax.config import default_config
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError


@pytest.mark.slow
def test_a_run_on_a_minari_dataset(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    dataset_id = "mujoco/hopper/test-v0"
    record("Hopper-v5", dataset_id, (20, 20, 20))
    config = default_config(
        env_name=f"minari:{dataset_id}",
        embedding_dim=8,
        num_layers=1,
        seq_len=3,
        batch_size=8,
        update_steps=4,
        warmup_steps=2,
        eval_every=4,
        eval_episodes=2,
        target_returns=(10.0, 8.0),
        reward_scale=0.1,
    )
    workdir = tmp_path / "run"
    train(config, workdir)
    source = f"minari:{dataset_id} (not D4RL-comparable)"
    versions = json.loads((workdir / "versions.json").read_text())
    assert versions["dataset"]["source"] == source
    assert f"{source}: " in capsys.readouterr().out
    last = read_metrics(workdir / "metrics.jsonl")[-1]
    returns = [value for key, value in last.items() if key.endswith("_return_mean")]
    assert len(returns) == 2
    assert np.isfinite(returns).all()
    assert not any("normalized_score" in key for key in last)

    # Other data under the same name is refused: its content is compared.
    record("Hopper-v5", "other-v0", (20, 20, 5))
    folder = tmp_path / "minari" / dataset_id
    shutil.rmtree(folder)
    (tmp_path / "minari/other-v0").rename(folder)
    with pytest.raises(UserError, match=r"the content of .* differs"):
        train(changed(config, update_steps=6), workdir)
