"""metrics.jsonl: rows are written at once, and survive a kill."""

import json
import math

import numpy as np
import pytest

from dt_jax.runs.metrics import MetricsLog, read_metrics
from dt_jax.utils.errors import UserError


def test_rows_are_json_lines_in_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, up_to_step=-1) as log:
        log.write(0, {"eval/5.0_return_mean": 1.5})
        assert len(path.read_text().splitlines()) == 1  # on disk at once
        log.write(100, {"train_loss": 0.25})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [
        {"step": 0, "eval/5.0_return_mean": 1.5},
        {"step": 100, "train_loss": 0.25},
    ]
    assert read_metrics(path) == rows


def test_a_resumed_log_drops_rows_after_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, up_to_step=-1) as log:
        for step in (0, 100, 200, 300):
            log.write(step, {"train_loss": 1.0})
    path.write_text(path.read_text() + '{"step": 400, "train_l')  # killed there
    assert [row["step"] for row in read_metrics(path)] == [0, 100, 200, 300]
    with MetricsLog(path, up_to_step=200) as log:
        log.write(300, {"train_loss": 2.0})
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == [0, 100, 200, 300]
    assert rows[-1]["train_loss"] == 2.0


def test_a_metric_that_is_not_finite_is_null(tmp_path):
    """JSON has no NaN; other programs could not read the row."""
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, up_to_step=-1) as log:
        log.write(3, {"a": math.nan, "b": -math.inf, "c": 1e308})
    assert path.read_text() == '{"step": 3, "a": null, "b": null, "c": 1e+308}\n'
    np.testing.assert_equal(
        read_metrics(path), [{"step": 3, "a": math.nan, "b": math.nan, "c": 1e308}]
    )


@pytest.mark.parametrize("value", ["NaN", "null", "1e999", "-3", "0.5"])
def test_every_number_is_a_valid_metric(tmp_path, value):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 3, "grad_norm": {value}}}\n')
    assert len(read_metrics(path)) == 1


@pytest.mark.parametrize(
    "line",
    [
        *("garbage", "[1]", "3", "\xbc", "[" * 100_000),
        *('{"stp": 2}', '{"step": 1e400}', f'{{"step": 1{30 * "0"}}}'),
        *('{"step": null}', '{"step": -1}', '{"step": 1.5}', '{"step": 1e300}'),
        '{"step": 3, "grad_norm": [1]}',
        '{"step": 3, "grad_norm": true}',
        f'{{"step": 3, "grad_norm": 1{400 * "0"}}}',
    ],
)
def test_a_malformed_row_is_reported_with_its_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n', encoding="latin1")
    message = "metrics.jsonl, line 2: not a row of metrics; remove that line"
    with pytest.raises(UserError, match=message):
        read_metrics(path)


def test_a_carriage_return_ends_no_row(tmp_path):
    """Else a damaged byte would hide all rows after it."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":\r1}\r\n{"step": 2}\n{"step": 3')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


def test_without_a_path_nothing_is_written():
    """In processes other than the main one."""
    with MetricsLog(None, up_to_step=0) as log:
        log.write(100, {"train_loss": 0.5})
