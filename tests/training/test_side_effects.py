"""What `import dt_jax` and `dt_jax.train` leave as they are in the caller's process.

In fresh processes: pytest and the other tests have changed this one.
"""

import json

from command import run

SNAPSHOT = """
import logging, os, random, signal, sys, threading, warnings

def snapshot():
    import jax
    import numpy as np

    loggers = logging.root.manager.loggerDict
    return {
        "streams": (sys.stdout, sys.stderr, sys.argv[:], os.getcwd()),
        "levels": {
            name: (logger.level, logger.handlers[:], logger.disabled)
            for name in ("root", "absl", "jax", "asyncio", "concurrent.futures")
            for logger in [logging.getLogger(name if name != "root" else None)]
        },
        "logging": logging.root.manager.disable,
        "warnings": (warnings.filters[:], warnings.showwarning),
        "numpy": [str(part) for part in np.random.get_state()],
        "random": random.getstate(),
        "jax": dict(jax.config.values),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(each) for each in signal.valid_signals()],
        "threads": threading.active_count(),
    }
"""


def test_importing_the_package_imports_neither_jax_nor_numpy():
    code = (
        "import sys, dt_jax\n"
        "assert dt_jax.__version__\n"
        "print({'jax', 'numpy', 'flax', 'absl', 'ml_collections'} & {*sys.modules})"
    )
    status, out, err = run("-c", code)
    assert (status, out) == (0, "set()\n"), err


def test_public_names_exist_and_importing_them_starts_no_back_end():
    code = (
        "import dt_jax, jax\n"
        "print([name for name in dt_jax.__all__ if not hasattr(dt_jax, name)])\n"
        "print(hasattr(dt_jax, 'nonsense'), jax._src.xla_bridge._backends)"
    )
    status, out, err = run("-c", code)
    assert (status, out) == (0, "[]\nFalse {}\n"), err


def test_train_leaves_the_process_as_it_was(small_config, tmp_path):
    """Also where the caller has changed it, and in a thread other than the main one."""
    values = json.dumps(small_config.to_dict() | {"update_steps": 2, "eval_every": 2})
    code = (
        SNAPSHOT
        + """
import json
import jax, numpy as np
from dt_jax import train
from dt_jax.config.load import from_dict

config = from_dict(json.loads(sys.argv[1]))
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=1"
)
logging.getLogger("jax").setLevel(logging.INFO)
warnings.simplefilter("default")
jax.config.update("jax_log_compiles", False)
np.random.seed(7)
jax.devices()

def differences(before):
    after = snapshot()
    return [name for name in before if before[name] != after[name]]

before = snapshot()
train(config, sys.argv[2] + "/main")
print("main:", differences(before))

before = snapshot()
thread = threading.Thread(target=train, args=(config, sys.argv[2] + "/thread"))
thread.start()
thread.join()
print("thread:", differences(before))
"""
    )
    status, out, err = run("-c", code, values, tmp_path)
    assert status == 0, err
    lines = [line for line in out.splitlines() if line.startswith(("main:", "thread:"))]
    assert lines == ["main: []", "thread: []"], err
    for name in ("main", "thread"):
        assert (tmp_path / name / "checkpoints" / "2.json").exists()
