"""The published scores agree with every other place that states them."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from dt_jax.analysis.published import PUBLISHED, Spread
from dt_jax.data import registry

ROOT = Path(__file__).parents[2]


def test_every_d4rl_dataset_has_scores():
    specs = registry.all_specs().values()
    assert set(PUBLISHED) == {spec.name for spec in specs if not spec.is_demo}


# CORL's README, the rows of averages in the column DT.
@pytest.mark.parametrize(
    ("domain", "last", "best", "count"),
    [
        ("locomotion", 73.84, 77.49, 9),
        ("maze2d", 28.48, 60.74, 3),
        ("antmaze", 18.12, 21.04, 6),
        ("adroit", 49.21, 52.60, 12),
    ],
)
def test_domain_averages_are_those_of_corls_readme(domain, last, best, count):
    rows = [row for row in PUBLISHED.values() if row.domain == domain]
    assert len(rows) == count
    assert np.mean([row.last.mean for row in rows]) == pytest.approx(last, abs=0.0051)
    assert np.mean([row.best.mean for row in rows]) == pytest.approx(best, abs=0.0051)


def test_average_is_that_of_the_papers_table():
    papers = [row.paper for row in PUBLISHED.values() if row.paper]
    assert len(papers) == 9
    # Table 2's "Average (Without Reacher)".
    assert np.mean([paper.mean for paper in papers]) == pytest.approx(74.7, abs=0.051)


@pytest.mark.parametrize("name", PUBLISHED)
def test_docstring_of_the_configuration_states_the_same_score(name):
    module = importlib.import_module(f"configs.{name.split('-')[0]}")
    last = PUBLISHED[name].last
    assert last.text() in module.__doc__


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_corls_hyperparameters(name):
    path = ROOT / "tests/data/corl_hyperparameters.json"
    corl = json.loads(path.read_text())[name]
    ours = PUBLISHED[name].settings
    # The others do not affect the mean of a score.
    keys = corl.keys() - {"eval_every", "eval_seed", "train_seed"}
    assert {key: ours[key] for key in keys} == {key: corl[key] for key in keys}
    assert ours["lr_schedule"] == "warmup_constant"


def test_spread_as_text():
    assert Spread(65.1, 1.609).text() == "65.10 ± 1.61"
    assert Spread(65.1, None).text(digits=1) == "65.1"
