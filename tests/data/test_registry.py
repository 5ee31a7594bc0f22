"""The named datasets, compared with D4RL's own tables, and normalised scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dt_jax.data.registry import all_specs, demo_for, lookup, normalized_score
from dt_jax.utils.errors import UserError

ROOT = Path(__file__).parents[2]
FACTS = ROOT.parent / "shared/d4rl/registry.json"


def test_d4rl_dataset():
    spec = lookup("hopper-medium-v2")
    assert (spec.family, spec.environment) == ("hopper", "hopper")
    assert (spec.engine, spec.env_id) == ("locomotion", "Hopper-v4")
    assert (spec.observation_size, spec.action_size) == (11, 3)
    assert spec.max_episode_steps == 1000
    assert spec.url.endswith("hopper_medium-v2.hdf5")
    assert not spec.is_demo
    # v4 has D4RL's rewards, v5 does not.
    assert lookup("halfcheetah-medium-v2").env_id == "HalfCheetah-v4"
    assert lookup("walker2d-medium-v2").env_id == "Walker2d-v4"
    maze = lookup("antmaze-umaze-diverse-v2")
    assert (maze.engine, maze.env_id, maze.maze) == ("antmaze", "umaze", "umaze")
    assert maze.environment == "antmaze-umaze"


@pytest.mark.parametrize(
    ("demo", "d4rl"),
    [
        ("halfcheetah-demo", "halfcheetah-medium-expert-v2"),
        ("hopper-demo", "hopper-medium-v2"),
        ("maze2d-large-demo", "maze2d-large-v1"),
        ("antmaze-umaze-demo", "antmaze-umaze-v2"),
        ("antmaze-medium-diverse-demo", "antmaze-medium-diverse-v2"),
    ],
)
def test_demo_dataset_has_d4rls_environment_and_replaces_it(demo, d4rl):
    assert lookup(demo).is_demo
    assert lookup(demo) == replace(lookup(d4rl), name=demo, url=None)
    assert demo_for(lookup(d4rl)) == lookup(demo)


def test_registry_has_30_d4rl_and_15_demo_datasets():
    assert len(all_specs()) == 45
    assert sum(spec.is_demo for spec in all_specs().values()) == 15
    assert all(name == spec.name for name, spec in all_specs().items())
    assert demo_for(lookup("pen-human-v1")) is None  # no demo of Adroit


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("hopper-medium", "nearest: hopper-medium-v2"),
        ("Hopper-demo", "nearest: hopper-demo"),
    ],
)
def test_unknown_name_lists_the_nearest(name, nearest):
    with pytest.raises(UserError, match=nearest):
        lookup(name)


@pytest.mark.skipif(not FACTS.exists(), reason="D4RL's tables are not available")
def test_registry_matches_d4rls_tables():
    corl = json.loads((ROOT / "tests/data/corl_hyperparameters.json").read_text())
    facts = {row["name"]: row for row in json.loads(FACTS.read_text())}
    assert {name: row["corl"] for name, row in facts.items()} == corl
    assert facts.keys() == {n for n, spec in all_specs().items() if not spec.is_demo}
    keys = {"obs_dim": "observation_size", "act_dim": "action_size"}
    for name, row in facts.items():
        spec = lookup(name)
        assert spec.family == name.partition("-")[0]
        for key in ("url", "max_episode_steps", *keys, "ref_min", "ref_max"):
            assert getattr(spec, keys.get(key, key)) == row[key]


@pytest.mark.parametrize(  # REF_MIN_SCORE and REF_MAX_SCORE of d4rl/infos.py
    ("name", "low", "high"),
    [
        ("halfcheetah-medium-v2", -280.178953, 12135.0),
        ("hopper-medium-v2", -20.272305, 3234.3),
        ("walker2d-medium-v2", 1.629008, 4592.3),
        ("maze2d-umaze-v1", 23.85, 161.86),
        ("antmaze-umaze-v2", 0.0, 1.0),
        ("pen-human-v1", 96.262799, 3076.8331017826877),
    ],
)
def test_normalized_score_uses_d4rls_constants(name, low, high):
    score = normalized_score(lookup(name), [[low], [high], [(low + high) / 2]])
    np.testing.assert_allclose(score, [[0], [100], [50]], atol=1e-4)
    assert normalized_score(lookup(name), high) == pytest.approx(100)
    assert normalized_score(replace(lookup(name), ref_min=None), high) is None
