"""Two runs that begin at once on a machine that has no data yet."""

from command import start
from helpers import restored, untimed
from test_kill import COLLECTED


def test_both_end_well_and_the_data_is_collected_once(tmp_path, record_property):
    cache, runs = tmp_path / "cache", [tmp_path / "a", tmp_path / "b"]
    arguments = [*COLLECTED, "--config.update_steps=12"]
    both = [
        start("launch.py", *arguments, f"--workdir={run}", DT_JAX_DATA=str(cache))
        for run in runs
    ]
    told = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sum(text.count("collecting 200,000 transitions") for text in told) == 1
    (file,) = cache.iterdir()
    assert file.name == "maze2d-umaze-demo.hdf5"
    first, second = runs
    assert untimed(first) == untimed(second)
    assert restored(first, "params") == restored(second, "params")
    record_property("runs at once on an empty cache", "2 of 2 ended well")
