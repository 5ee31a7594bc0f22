import json

import numpy as np
import pytest

from dt_jax.config import default_config
from dt_jax.config.load import to_json
from dt_jax.runs import folder as runs
from dt_jax.runs.metrics import MetricsLog
from dt_jax.utils.errors import UserError

DATASET = {
    "source": "hopper.hdf5",
    "sha256": "5e" * 32,
    "return_mean": 500.0,
    "return_best": 900.0,
}


def write(folder, dataset=DATASET, **changes):
    """Write what a run of two updates with two seeds leaves."""
    config = default_config(env_name="hopper-demo", num_seeds=2, **changes)
    (folder / "config.json").write_text(to_json(config))
    about = {"jax": "0.10.0", "dataset": dataset}
    (folder / "versions.json").write_text(json.dumps(about))
    with MetricsLog(folder / "metrics.jsonl", up_to_step=-1) as log:
        log.write(0, {"eval/seconds": 2.0})
        for step, loss in [(1, 0.5), (2, 0.25)]:
            seeds = {f"seed_{10 + i}/train_loss": loss * (1 + i) for i in range(2)}
            log.write(step, {"train_loss": 1.5 * loss, **seeds})
    return folder


def test_a_folder_is_read_back(tmp_path):
    run = runs.read(write(tmp_path, update_steps=2))
    assert run.config.env_name == "hopper-demo"
    assert list(run.seeds) == [10, 11]
    assert (run.dataset, run.versions) == (DATASET, {"jax": "0.10.0"})
    assert run.newest is None
    curve = run.curve("train_loss")
    np.testing.assert_array_equal(curve.steps, [1, 2])
    np.testing.assert_array_equal(curve.values, [[0.5, 0.25], [1.0, 0.5]])
    np.testing.assert_array_equal(run.shared("eval/seconds").values, [[2.0]])
    assert run.curve("grad_norm").values.shape == (2, 0)


def test_a_folder_of_runs_is_none(tmp_path):
    (tmp_path / "hopper").mkdir()
    write(tmp_path / "hopper")
    with pytest.raises(UserError, match="is a folder of runs: name one in it"):
        runs.read(tmp_path)


def test_of_one_seed_a_curve_is_under_the_plain_name(tmp_path):
    run = runs.read(write(tmp_path))
    run.config.unlock().num_seeds = 1
    np.testing.assert_array_equal(run.curve("train_loss").values, [[0.75, 0.375]])


HISTOGRAM = {"edges": [0.0, 1.0, 2.0], "counts": [3, 4]}


@pytest.mark.parametrize(
    "change",
    [
        {"return_mean": "high"},
        {"return_mean": None},
        {"sha256": 5},
        {"return_histogram": [1, 2]},
        {"return_histogram": {"edges": [0.0, 1.0], "counts": [3, 4]}},
        {"return_histogram": {"edges": [0.0, 1.0, 1e400], "counts": [3, 4]}},
        {"return_histogram": {"edges": [0.0, 1.0, 2.0], "counts": [[3], [4]]}},
    ],
)
def test_an_identity_that_is_none_is_told(tmp_path, change):
    whole = DATASET | {"return_histogram": HISTOGRAM}
    assert runs.read(write(tmp_path, dataset=whole)).dataset == whole
    with pytest.raises(UserError, match="does not tell the run's data: restore"):
        runs.read(write(tmp_path, dataset=whole | change))
    for text in ("", "[]", "{}", "5", '{"dataset": 5}', "[" * 100_000):
        (tmp_path / "versions.json").write_text(text)
        with pytest.raises(UserError, match="does not tell the run's data: restore"):
            runs.read(tmp_path)


@pytest.mark.parametrize("value", ["NaN", "1e999", "-3", "0.5"])
def test_every_number_may_stand_in_the_log(tmp_path, value):
    with (write(tmp_path) / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": 3, "grad_norm": {value}}}\n')
    assert len(runs.read(tmp_path).rows) == 4


@pytest.mark.parametrize(
    "row",
    [
        '{"step": 3, "grad_norm": null}',
        '{"step": 3, "grad_norm": [1]}',
        '{"step": 3, "grad_norm": true}',
        f'{{"step": 3, "grad_norm": 1{400 * "0"}}}',
        f'{{"step": 1{30 * "0"}}}',
        '{"step": 2, "grad_norm": 1.0}',
        '{"step": -1, "grad_norm": 1.0}',
    ],
)
def test_what_no_run_has_logged_is_told(tmp_path, row):
    with (write(tmp_path) / "metrics.jsonl").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(UserError, match=r"metrics.jsonl: the row of step .*remove"):
        runs.read(tmp_path)
