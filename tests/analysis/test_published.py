"""What is published is what CORL and the paper say, as far as it is told twice."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from dt_jax.analysis.published import Spread, difference, published
from dt_jax.data import registry

ROOT = Path(__file__).parents[2]


def test_every_dataset_of_d4rls_is_there():
    specs = registry.all_specs().values()
    assert set(published()) == {spec.name for spec in specs if not spec.is_demo}


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
def test_averages_over_a_domain_are_corls(domain, last, best, count):
    rows = [row for row in published().values() if row.domain == domain]
    assert len(rows) == count
    assert np.mean([row.last.mean for row in rows]) == pytest.approx(last, abs=0.0051)
    assert np.mean([row.best.mean for row in rows]) == pytest.approx(best, abs=0.0051)


def test_the_papers_average_is_that_of_its_table():
    papers = [row.paper for row in published().values() if row.paper]
    assert len(papers) == 9
    # Table 2's "Average (Without Reacher)".
    assert np.mean([paper.mean for paper in papers]) == pytest.approx(74.7, abs=0.051)


@pytest.mark.parametrize("name", published())
def test_the_configurations_tell_the_same_scores(name):
    module = importlib.import_module(f"configs.{name.split('-')[0]}")
    last = published()[name].last
    assert f"{last.mean:.2f} ± {last.std:.2f}" in module.__doc__


@pytest.mark.parametrize("name", published())
def test_settings_are_corls(name):
    path = ROOT / "tests/data/corl_hyperparameters.json"
    corl = json.loads(path.read_text())[name]
    ours = published()[name].settings
    # How often it evaluates bears on nothing, and seeds are to differ.
    apart = {"eval_every", "eval_seed", "train_seed"}
    assert {key: ours[key] for key in corl.keys() - apart} == {
        key: value for key, value in corl.items() if key not in apart
    }
    assert ours["lr_schedule"] == "warmup_constant"


def test_differences_have_the_digits_of_what_is_published():
    assert difference(66.714999, Spread(65.10, 1.61)) == 1.61
    assert difference(63.486, Spread(65.10, 1.61)) == -1.61
