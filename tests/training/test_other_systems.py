"""Systems that lack what Linux has; simulated by taking the names away."""

import json

import pytest
from command import run
from helpers import changed

WINDOWS = """if True:
    import mmap, os, signal, sys
    for name in ("SIGUSR1", "SIGUSR2", "SIGHUP"):
        delattr(signal, name)
    for name in ("sysconf", "sched_getaffinity"):
        delattr(os, name)
    del mmap.MADV_RANDOM
"""
PROGRAM = """
import importlib, json, pkgutil, sys
import numpy as np
import dt_jax
from dt_jax.config.load import from_dict

for module in pkgutil.walk_packages(dt_jax.__path__, "dt_jax."):
    importlib.import_module(module.name)
config, workdir = from_dict(json.loads(sys.argv[1])), sys.argv[2]
policy = dt_jax.train(config, workdir).policy()
policy.reset(30.0)
print(policy.act(np.zeros(11)).shape)
"""


@pytest.mark.slow
def test_training_and_policy_need_nothing_that_windows_lacks(small_config, tmp_path):
    config = changed(small_config, eval_episodes=0, memory_limit_gb=0.0)
    status, out, err = run(
        *("-c", WINDOWS + PROGRAM, json.dumps(config.to_dict()), tmp_path / "run"),
        DT_JAX_DATA=str(tmp_path),
    )
    assert status == 0, err
    assert out.endswith("(3,)\n")
