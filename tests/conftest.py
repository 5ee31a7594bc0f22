"""JAX's settings for tests, and fixtures that several folders share."""

import gc
import os
import pickle
import signal
import sys

import h5py
import jax
import numpy as np
import pytest
from jax._src import compiler

from dt_jax.config import default_config
from dt_jax.data.registry import lookup
from dt_jax.data.schema import RawData

# For the tests of several devices; all others use only the first.
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True)
def _strict_jax():
    """Make JAX refuse implicit promotion of dtypes and ranks."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True)
def _restore_process():
    """Undo what a command changes in its process, where a test runs it in its own."""
    hook = sys.unraisablehook
    yield
    signal.set_wakeup_fd(-1)
    sys.unraisablehook = hook


# Tests of exact numbers, which need the program as users run it, and of many updates.
_OPTIMISED = ("test_multi_step", "test_batches", "test_stochasticity")


def _compile_options(*args, _original=compiler.get_compile_options, **kwargs):
    """Return JAX's options for XLA, with the former code generator where it is faster.

    Without optimisations, it compiles in a third of the time. JAX has no public way to
    set this for all programs and to change it afterwards.
    """
    options = _original(*args, **kwargs)
    if jax.config.read("jax_disable_most_optimizations"):
        options.env_option_overrides += [("xla_cpu_use_fusion_emitters", False)]
    return options


def _set_optimisations(enabled):
    """Enable or disable most XLA optimisations, also in processes that tests start.

    Without them, only the last bits of results differ, and compilation is faster by
    more than the few updates of a test become slower.
    """
    jax.config.update("jax_disable_most_optimizations", not enabled)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(not enabled))


def pytest_collection_finish():
    """Spare the garbage collector what stays to the end: the modules and the tests."""
    gc.freeze()


def pytest_configure(config):
    """Make compilation fast in the fast tests; slow ones run as users do."""
    compiler.get_compile_options = _compile_options
    _set_optimisations("not slow" not in config.option.markexpr)


@pytest.fixture(autouse=True)
def _optimise(request):
    """Enable optimisations in the modules that need them."""
    if request.module.__name__ not in _OPTIMISED:
        yield
        return
    disabled = jax.config.read("jax_disable_most_optimizations")
    _set_optimisations(True)
    yield
    _set_optimisations(not disabled)


@pytest.fixture(scope="session", autouse=True)
def _share_compilation_cache(tmp_path_factory):
    """Compile each program once for all tests: compilation takes most of their time."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all workers
    options = {
        "jax_compilation_cache_dir": str(folder / "xla"),
        "jax_compilation_cache_max_size": 1 << 32,  # bytes; with a limit, JAX locks it
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    for name, value in options.items():
        os.environ[name.upper()] = str(value)  # for the processes that tests start
        jax.config.update(name, value)


@pytest.fixture
def homeless(monkeypatch):
    """Take the user's home away, as in a container that runs with any user id."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def hopper_file(tmp_path_factory):
    """Return a file with six random trajectories of hopper's sizes, and a tail."""
    spec, rng = lookup("hopper-demo"), np.random.default_rng(0)
    lengths = (30, 1, 25, 40, 12, 33, 5)
    rows = sum(lengths)
    terminals = np.zeros(rows, bool)
    terminals[np.cumsum(lengths[:-1]) - 1] = True
    path = tmp_path_factory.mktemp("data") / "hopper.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = rng.standard_normal(
            (rows, spec.observation_size), np.float32
        )
        file["actions"] = rng.uniform(-1, 1, (rows, spec.action_size)).astype("f4")
        file["rewards"] = rng.uniform(0, 2, rows).astype("f4")
        file["terminals"] = terminals
        file["timeouts"] = np.zeros(rows, bool)
    return path


@pytest.fixture
def small_config(hopper_file):
    """Return the configuration of a run of 8 updates with three evaluations."""
    config = default_config(
        env_name="hopper-demo",
        data_path=str(hopper_file),
        embedding_dim=8,
        num_layers=1,
        seq_len=3,
        episode_len=50,
        batch_size=4,
        update_steps=8,
        warmup_steps=2,
        eval_every=4,
        eval_episodes=2,
        holdout_fraction=0.0,
        target_returns=(30.0, 5.5),
        log_every=2,
        checkpoint_every=3,
        num_workers=1,
        attention_dropout=0.0,  # one dropout is enough: each takes long to compile
        residual_dropout=0.0,
    )
    return config.lock()


@pytest.fixture
def lengths():
    """Trajectory lengths with one step first, in the middle, adjacent and last."""
    return [1, 7, 3, 1, 1, 40, 12, 1]


@pytest.fixture
def raw(lengths):
    """A dataset with every kind of trajectory end and an unfinished trajectory."""
    rng = np.random.default_rng(0)
    rows = sum(lengths) + 5
    last = np.cumsum(lengths) - 1
    terminals, timeouts = np.zeros((2, rows), bool)
    terminals[last[::2]] = True
    timeouts[last[1::2]] = True
    timeouts[last[[2, 4]]] = True  # these rows have both flags
    return RawData(
        observations=rng.normal(3, 2, (rows, 4)).astype(np.float32),
        actions=rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        rewards=rng.normal(size=rows).astype(np.float32),
        terminals=terminals,
        timeouts=timeouts,
    )


@pytest.fixture
def write_hdf5(tmp_path):
    """Return a function that writes a dataset with changed arrays; None omits one."""

    def write(raw, name="data.hdf5", **changes):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, array in (raw._asdict() | changes).items():
                if array is not None:
                    file[key] = array
        return path

    return write


class Evil:
    """An object that creates the file `victim` when it is unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return open, (str(self.victim), "w")


@pytest.fixture
def evil(tmp_path):
    """Return an `Evil`; its victim exists if code was executed or a path left."""
    evil = Evil(tmp_path / "victim")
    pickle.loads(pickle.dumps(evil)).close()
    evil.victim.unlink()  # it exists: otherwise the tests prove nothing
    yield evil
    assert not evil.victim.exists()
