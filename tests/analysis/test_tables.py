from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from dt_jax.analysis.tables import Table, evaluation_table, format_seconds
from dt_jax.runs.evaluations import Evaluation


@pytest.fixture
def evaluation():
    returns = np.array([[100.0, 300.0], [800.0, 820.0]], np.float32)
    return Evaluation(
        target_returns=np.array([200.0, 0.5]),
        seeds=np.array([1, 2]),
        returns=returns,
        lengths=np.array([[10, 20], [30, 40]]),
        normalized_scores=returns / 10.0,
    )


def test_evaluation_has_means_and_standard_errors(evaluation):
    table = evaluation_table(evaluation)
    assert (
        ", ".join(table.header) == "target, return, normalised score, length, episodes"
    )
    # The deviation of 100 and 300 is 141.4, divided by √2.
    assert table.rows == [
        ["200", "200.0 ± 100.0", "20.0 ± 10.0", "15", "2"],
        ["0.5", "810.0 ± 10.0", "81.0 ± 1.0", "35", "2"],
    ]


def test_all_small_returns_have_more_decimals(evaluation):
    rows = evaluation_table(
        replace(evaluation, returns=evaluation.returns / 100, normalized_scores=None)
    ).rows
    assert [row[1] for row in rows] == ["2.000 ± 1.000", "8.100 ± 0.100"]
    seeds = replace(
        evaluation,
        returns=np.stack(2 * [evaluation.returns * [[1 / 100], [1]]]),
        lengths=np.stack(2 * [evaluation.lengths]),
        normalized_scores=None,
    )
    assert [row[1:3] for row in evaluation_table(seeds).rows] == [
        ["2.0 ± 0.0", "2.0 (2.0 to 2.0)"],
        ["810.0 ± 0.0", "810.0 (810.0 to 810.0)"],
    ]


def test_evaluation_without_scores_has_no_score_column(evaluation):
    table = evaluation_table(replace(evaluation, normalized_scores=None))
    assert table.header == ["target", "return", "length", "episodes"]
    assert table.rows[0] == ["200", "200.0 ± 100.0", "15", "2"]


def test_evaluation_without_target_returns_has_no_target(evaluation):
    table = evaluation_table(replace(evaluation, target_returns=np.array([np.nan])))
    assert table.rows == [["-", "200.0 ± 100.0", "20.0 ± 10.0", "15", "2"]]


def test_evaluation_of_seeds_has_an_interquartile_mean(evaluation):
    returns = np.stack([evaluation.returns, evaluation.returns + 100])
    lengths = np.stack(2 * [evaluation.lengths])
    seeds = replace(
        evaluation, returns=returns, lengths=lengths, normalized_scores=None
    )
    table = evaluation_table(seeds)
    assert table.header[2] == "IQM of the return"
    expected = ["200", "250.0 ± 50.0", "250.0 (200.0 to 300.0)", "15", "2 x 2"]
    assert table.rows[0] == expected


def test_table_on_a_terminal_has_its_title_and_literal_cells():
    table = Table(("data", "score"), [("[b]a[/b]", "1.0")], title="[i]title[/i]")
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table.rich())
    text = capture.get()
    assert "[i]title[/i]" in text
    assert "[b]a[/b]" in text


def test_table_in_markdown_is_escaped():
    table = Table(("data", "ours"), [("a|b", "1.0"), ("<c>", "-12.25")])
    assert table.markdown().splitlines() == [
        "| data | ours |",
        "| --- | ---: |",
        r"| a\|b | 1.0 |",
        r"| \<c\> | -12.25 |",
    ]


def test_format_seconds():
    texts = [format_seconds(seconds) for seconds in (48, 720, 11_520)]
    assert texts == ["48 s", "12 min", "3.2 h"]
