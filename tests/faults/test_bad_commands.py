"""Wrong commands, config files and environments: status 2, one line, nothing left."""

import resource

import h5py
import numpy as np
import pytest
from command import ROOT, launch_command, refusal, run

EVALUATE = ["-m", "dt_jax", "evaluate"]
DATA = ["-m", "dt_jax", "data"]
COLLECT = ["-m", "dt_jax", "collect"]
REPLAY = ["benchmarks/replay.py"]
WITH_BROKEN_ENVIRONMENTS = {"PYTHONPATH": "tests/faults"}


@pytest.fixture
def refused(tmp_path):
    """Return a function that runs a wrong command and checks how it is refused."""

    def refused(*command, words, **environment):
        before = set(tmp_path.rglob("*"))
        line = refusal(*command, HOME=str(tmp_path), **environment)
        for word in words:
            assert word in line
        assert ": error: " in line
        assert "Traceback" not in line
        assert set(tmp_path.rglob("*")) <= before | {tmp_path / "cache"}
        return line

    return refused


@pytest.fixture
def memory_limit():
    """Limit the memory of started processes, so that they fail instead of swapping."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--confg=x", ["--confg", "nearest: config"]),
        ("--agents=nowhere.py", ["--agents=nowhere.py", "expected a file"]),
        ("--config.batch_size", ["Missing value", "--config.batch_size", "--help"]),
        ("--dry_run=maybe", ["--dry_run=maybe", "true or false"]),
        ("--config.num_layers=1000000", ["num_layers=1000000", "to 1000"]),
        ("--config.learning_rate=1e300", ["learning_rate=1e+300", "float32"]),
        ("--config.target_returns=3600;1800", ["3600;1800", "such as 3600,1800"]),
        ("--config.split=both", ["split=both", "corl, timeouts"]),
        ("--config.device=tpu", ["device=tpu", "--config.device=cpu"]),
        ("--config.env_name=Minari:a/b-v0", ["env_name=Minari:", "with 'minari:'"]),
        ("--config.env_name=nowhere:X-v0", ["cannot be built", "'nowhere'"]),
        ("--config.env_name=a:b:c-v0", ["a:b:c-v0 cannot be built", "another"]),
        ("--config.env_name=Hoper-v4", ["'Hoper-v4'", "nearest: Hopper-v4"]),
        ("--config.init_from=none", ["init_from=none", "the folder of a run"]),
    ],
)
def test_wrong_argument_of_launch(refused, tmp_path, hopper_file, argument, words):
    refused(*launch_command(hopper_file, tmp_path / "run", argument), words=words)


@pytest.mark.parametrize("key", ["embedding_dim=100000", "batch_size=2147483647"])
def test_out_of_memory_is_reported_in_one_line(
    memory_limit, tmp_path, hopper_file, key
):
    command = launch_command(hopper_file, tmp_path / "run", f"--config.{key}")
    status, _, err = run(*command)
    assert status == 2, err
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("launch.py: error: out of memory: ")
    assert key.partition("=")[0] in line


START = (
    "from dt_jax.config import default_config\n"
    "def get_config():\n"
    "    c = default_config()"
)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ValueError('one\\ntwo')", ["mine.py, line 1: ValueError: one two"]),
        ("def get_config(): raise SystemExit(0)", ["mine.py, line 1: SystemExit: 0"]),
        ("def get_config(): return get_config()", ["recursion depth"]),
        ("def get_config(a, b): pass", ["missing 2 required", "'a' and 'b'"]),
        ("get_config = 3", ["defines no get_config()"]),
        (
            f"{START}; c.clip_grad = 10**400; return c",
            ["mine.py, line 3: OverflowError: int"],
        ),
        (f"{START}; c.reward_scale = None; c.betas = 1; return c", ["betas"]),
        (f"{START}; c.data_path = 'a\\0b'; return c", [r"data_path=a\0b"]),
        (b"\xff\xfe", ["mine.py: SyntaxError", "utf-8"]),
        (None, ["no config file", "the package's are in configs/"]),
    ],
)
def test_wrong_config_file(refused, tmp_path, source, words):
    path = tmp_path / "mine.py"
    if source is None:
        path.mkdir()
    else:
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
    command = [f"--config={path}", f"--workdir={tmp_path / 'run'}"]
    refused("launch.py", *command, words=words)


def launch_in(name, tmp_path, data):
    """Return the command of a run in one of the broken environments."""
    env_name = f"--config.env_name=broken_environments:{name}-v0"
    return launch_command(data, tmp_path / "run", env_name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("RaisesInConstructor", ["built: RuntimeError: the licence has expired"]),
        ("ExitsInConstructor", ["cannot be built: SystemExit: 0", "choose another"]),
        ("RaisesInClose", ["cannot be built: RuntimeError: closed already"]),
        ("NoSpaces", ["cannot be built: AttributeError", "observation_space"]),
        ("Missing", ["'broken_environments:Missing-v0'", "neither a dataset"]),
    ],
)
def test_environment_that_cannot_be_used(refused, tmp_path, hopper_file, name, words):
    command = launch_in(name, tmp_path, hopper_file)
    refused(*command, words=words, **WITH_BROKEN_ENVIRONMENTS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("RaisesAtReset", ["failed at a reset: RuntimeError: the simulator is not"]),
        ("RaisesInStep", ["failed at step 8", "ZeroDivisionError: division by"]),
        ("ExitsInStep", ["failed at step 8 of an episode: SystemExit: 0"]),
        ("NanObservation", ["observation with NaN", "episode 0 of 1, after 8 steps"]),
        ("InfiniteFirstObservation", ["observation with NaN or inf", "after 0 steps"]),
        ("NanReward", ["a reward with NaN", "episode 0 of 1, after 8 steps"]),
        ("NoneReward", ["None as the reward", "expected a number"]),
        ("TextAsReward", ["'1.5' as the reward", "expected a number"]),
        ("TextAsEnd", ["'False' as the end of an episode", "True or False"]),
        ("TextAsObservation", ["an observation of type <U", "expected numbers"]),
        ("RaisesKeyboardInterruptAtReset", ["failed at a reset: KeyboardInterrupt"]),
        ("RaisesKeyboardInterrupt", ["step 1", "KeyboardInterrupt: the window was"]),
        ("ShortObservation", ["observation of shape (1,)", "(11,)", "fix the env"]),
        ("LongFirstObservation", ["observation of shape (11, 1)", "(11,)", "fix"]),
        ("FourValues", ["failed at step 1", "expected 5, got 4"]),
    ],
)
def test_environment_that_fails_in_an_episode(tmp_path, hopper_file, name, words):
    """The run's folder exists by then: its files are complete, and the run resumes."""
    command = launch_in(name, tmp_path, hopper_file)
    status, _, err = run(*command, **WITH_BROKEN_ENVIRONMENTS)
    assert status == 2
    line = err.splitlines()[-1]  # after warnings about the data
    for word in (f"broken_environments:{name}-v0", "fix", *words):
        assert word in line
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files <= {"config.json", "versions.json", "metrics.jsonl", "checkpoints"}
    assert not [path for path in tmp_path.rglob("*") if "tmp" in path.name]
    command.append("--config.eval_episodes=0")
    status, out, err = run(*command, **WITH_BROKEN_ENVIRONMENTS)
    assert status == 0, err
    assert str(tmp_path / "run") in out


def test_environment_that_closes_stdout(tmp_path, hopper_file):
    command = launch_in("ClosesStdout", tmp_path, hopper_file)
    status, _, err = run(*command, **WITH_BROKEN_ENVIRONMENTS)
    assert status == 2
    line = err.splitlines()[-1]
    assert line.startswith("launch.py: error: standard output is closed: fix the env")


def test_environment_that_changes_the_working_folder(
    tmp_path, hopper_file, monkeypatch
):
    """The run's folder and the data are named relative to where it started."""
    (tmp_path / "data.hdf5").symlink_to(hopper_file)
    env = "--config.env_name=broken_environments:ChangesFolder-v0"
    command = launch_command("data.hdf5", "run", env)
    monkeypatch.setattr("command.ROOT", tmp_path)
    places = {"PYTHONPATH": f"{ROOT}:{ROOT}/tests/faults"}
    train = "-m", "dt_jax", "train", *command[1:]
    status, out, err = run(*train, **places)
    assert status == 0, err
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files >= {"config.json", "metrics.jsonl", "checkpoints", "summary.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"data.hdf5", "run"}
    status, out, err = run(*train, **places)
    assert "this run is complete" in out
    env = f"--env_name={env.partition('=')[2]}"
    status, out, err = run("-m", "dt_jax", "evaluate", "run", env, **places)
    assert status == 0, err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([*EVALUATE], ["workdir", "--help"]),
        ([*DATA, "info", "Minari:a/b-v0"], ["minari:"]),
        ([*DATA, "verify", "hopper-medium-v2"], ["data download hopper-medium-v2"]),
        ([*COLLECT, "hopper-medium-v2"], ["demo dataset", "nearest: hopper-demo"]),
        ([*COLLECT, "hopper-demo", "--steps=x"], ["--steps", "invalid int", "'x'"]),
        ([*COLLECT, "hopper-demo", "--steps=0"], ["steps is 0", "at least 4"]),
        ([*COLLECT, "hopper-demo", "--seed=-1"], ["seed is -1", "expected 0 to"]),
        ([*COLLECT, "hopper-demo", "--out=tests"], ["tests is not a regular file"]),
        ([*REPLAY, "nowhere.hdf5"], ["no such file", "nowhere.hdf5"]),
        ([*REPLAY, "tests/conftest.py"], ["conftest.py: corrupt, or not an HDF5"]),
    ],
)
def test_wrong_arguments_of_other_commands(refused, tmp_path, command, words):
    refused(*command, words=words, DT_JAX_DATA=str(tmp_path / "cache"))


def test_replay_of_states_that_explode(refused, tmp_path):
    """Reported in one line, without MuJoCo's MUJOCO_LOG.TXT."""
    path, rows = tmp_path / "exploded.hdf5", 5
    with h5py.File(path, "w") as file:
        for name, size in (("observations", 11), ("actions", 3)):
            file[name] = np.zeros((rows, size), np.float32)
        for name in ("infos/qpos", "infos/qvel"):
            file[name] = np.full((rows, 6), 1e12)
        for name in ("rewards", "terminals", "timeouts"):
            file[name] = np.arange(rows) == rows - 1
    refused(*REPLAY, path, "--env_name=hopper-medium-v2", words=["become unstable"])
    assert not (ROOT / "MUJOCO_LOG.TXT").exists()
