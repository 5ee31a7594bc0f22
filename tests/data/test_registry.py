"""The table of datasets against D4RL's facts, and its look-up."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dt_jax.data.registry import all_specs, demo_for, lookup
from dt_jax.utils.errors import UserError

ROOT = Path(__file__).parents[2]
FACTS = ROOT.parent / "shared/d4rl/registry.json"


def test_a_d4rl_dataset():
    spec = lookup("hopper-medium-v2")
    assert spec.family == "hopper"
    assert (spec.observation_size, spec.action_size) == (11, 3)
    assert spec.max_episode_steps == 1000
    assert (spec.ref_min, spec.ref_max) == pytest.approx((-20.272305, 3234.3))
    assert spec.url.endswith("hopper_medium-v2.hdf5")
    assert not spec.is_demo


@pytest.mark.parametrize(
    ("demo", "d4rl"),
    [
        ("halfcheetah-demo", "halfcheetah-medium-expert-v2"),
        ("hopper-demo", "hopper-medium-v2"),
        ("walker2d-demo", "walker2d-medium-v2"),
        ("maze2d-large-demo", "maze2d-large-v1"),
        ("antmaze-umaze-demo", "antmaze-umaze-v2"),
        ("antmaze-medium-diverse-demo", "antmaze-medium-diverse-v2"),
    ],
)
def test_a_demo_dataset_is_scored_as_d4rls_and_can_stand_for_it(demo, d4rl):
    assert lookup(demo).is_demo
    assert lookup(demo) == replace(lookup(d4rl), name=demo, url=None)
    assert demo_for(lookup(d4rl)) == lookup(demo)


def test_there_is_no_demo_of_the_hand():
    assert demo_for(lookup("pen-human-v1")) is None


def test_there_are_d4rls_thirty_and_twelve_of_ours():
    assert len(all_specs()) == 42
    assert sum(spec.is_demo for spec in all_specs().values()) == 12
    assert all(name == spec.name for name, spec in all_specs().items())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("hopper-medium", "nearest: hopper-medium-v2"),
        ("Hopper-demo", "nearest: hopper-demo"),
        ("", "known: antmaze-large-diverse-demo"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(name, nearest):
    with pytest.raises(UserError, match=nearest):
        lookup(name)


@pytest.mark.skipif(not FACTS.exists(), reason="D4RL's collected facts are not here")
def test_our_tables_are_the_collected_facts():
    corl = json.loads((ROOT / "tests/data/corl_hyperparameters.json").read_text())
    facts = {row["name"]: row for row in json.loads(FACTS.read_text())}
    assert {name: row["corl"] for name, row in facts.items()} == corl
    assert facts.keys() == {n for n, spec in all_specs().items() if not spec.is_demo}
    for name, row in facts.items():
        spec = lookup(name)
        assert spec.family == name.partition("-")[0]
        assert (spec.url, spec.max_episode_steps) == (
            row["url"],
            row["max_episode_steps"],
        )
        assert (spec.observation_size, spec.action_size) == (
            row["obs_dim"],
            row["act_dim"],
        )
        assert (spec.ref_min, spec.ref_max) == (row["ref_min"], row["ref_max"])
