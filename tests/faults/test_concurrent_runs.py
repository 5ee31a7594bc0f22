"""Two runs that start at the same time on a machine without data."""

from command import start
from helpers import assert_same_run
from test_kill import COLLECTED


def test_both_complete_and_the_data_is_collected_once(tmp_path, record_property):
    cache, runs = tmp_path / "cache", [tmp_path / "a", tmp_path / "b"]
    arguments = [*COLLECTED, "--config.update_steps=12"]
    processes = [
        start("launch.py", *arguments, f"--workdir={run}", DT_JAX_DATA=str(cache))
        for run in runs
    ]
    errs = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errs
    assert sum(err.count("collecting 200,000 transitions") for err in errs) == 1
    (file,) = cache.iterdir()
    assert file.name == "maze2d-umaze-demo.hdf5"
    assert_same_run(*runs)
    record_property("concurrent runs on an empty cache", "2 of 2 completed")
