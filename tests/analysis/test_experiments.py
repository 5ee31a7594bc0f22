import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from run_folders import DATASET, make_config, make_run, start_run

from dt_jax import agents
from dt_jax.agents.base import Agent
from dt_jax.analysis.experiments import data_label, read_experiments
from dt_jax.analysis.published import PUBLISHED
from dt_jax.runs.evaluations import last_evaluation
from dt_jax.utils.errors import UserError


class WithoutKeys(Agent):
    KEYS = ()


def read(tmp_path):
    return read_experiments(sorted(tmp_path.iterdir()))


def test_runs_that_differ_only_in_their_seed_are_one_experiment(tmp_path):
    make_run(tmp_path / "a", train_seed=1, scores=(60.0,), name="first", num_workers=0)
    make_run(tmp_path / "b", train_seed=2, scores=(66.0, 69.0), eval_every=10_000)
    (experiment,) = read(tmp_path)
    assert experiment.seeds == [1, 2, 3]
    assert (experiment.name, experiment.step) == ("hopper-medium-v2", 100_000)
    assert experiment.evaluation.returns.shape == (3, 2, 100)
    for i, run, row in [(0, "a", ...), (1, "b", 0), (2, "b", 1)]:
        _, single = last_evaluation(tmp_path / run)
        np.testing.assert_array_equal(
            experiment.evaluation.returns[i], single.returns[row]
        )
    means = experiment.evaluation.normalized_scores[:, 0].mean(axis=1)
    np.testing.assert_allclose(means, [60, 66, 69])
    curve = experiment.curve("eval/3600.0_normalized_score_mean")
    # At the steps that both runs have.
    np.testing.assert_array_equal(curve.steps, np.arange(0, 100_001, 10_000))
    np.testing.assert_allclose(curve.values[:, -1], [60, 66, 69])
    assert curve.values.shape == (3, 11)


def test_names_have_the_settings_that_differ_on_the_same_data(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", batch_size=64, clip_grad=None)
    make_run(tmp_path / "c", "hopper-medium-replay-v2", batch_size=64)
    first, second, third = read(tmp_path)
    assert first.name == "hopper-medium-v2, clip_grad=0.25, batch_size=4096"
    assert second.name == "hopper-medium-v2, clip_grad=None, batch_size=64"
    assert third.name == "hopper-medium-replay-v2"


def test_names_have_the_last_parts_of_paths_that_differ(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", init_from="/tmp/runs/first")
    assert [each.name for each in read(tmp_path)] == [
        "hopper-medium-v2",
        "hopper-medium-v2, init_from=first",
    ]
    make_run(tmp_path / "c", init_from="/tmp/other/first")
    assert [each.name for each in read(tmp_path)] == [
        "hopper-medium-v2",
        "hopper-medium-v2, init_from=other/first",
        "hopper-medium-v2, init_from=runs/first",
    ]


def test_names_of_different_agents_have_the_keys_that_differ_for_one_agent(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(agents._REGISTERED, "another", WithoutKeys)
    make_run(tmp_path / "a", seq_len=5)
    make_run(tmp_path / "c", seq_len=6)
    config = make_config("hopper-medium-v2").to_dict()
    own = {key.name for key in agents.agent_class("dt").KEYS}
    shared = {name: value for name, value in config.items() if name not in own}
    start_run(
        tmp_path / "b", ConfigDict(shared | {"agent": "another", "batch_size": 64})
    )
    assert [experiment.name for experiment in read(tmp_path)] == [
        "hopper-medium-v2, agent=another",
        "hopper-medium-v2, agent=dt, seq_len=5",
        "hopper-medium-v2, agent=dt, seq_len=6",
    ]


def test_names_have_the_hash_of_differing_data(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", train_seed=3, dataset=DATASET | {"sha256": "0b" * 32})
    assert [experiment.name for experiment in read(tmp_path)] == [
        "hopper-medium-v2, sha256=0b0b0b0b",
        "hopper-medium-v2, sha256=5e5e5e5e",
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"until": 20_000}, "evaluated after 20000 updates, other seeds .* after 1000"),
        ({"target_returns": (1.0, 2.0, 3.0)}, "target returns .* differ from .*a "),
    ],
)
def test_run_with_another_evaluation_is_skipped(tmp_path, changes, reason):
    make_run(tmp_path / "a", train_seed=1)
    make_run(tmp_path / "b", train_seed=2, **changes)
    start_run(tmp_path / "b", make_config("hopper-medium-v2", train_seed=2))
    with pytest.warns(UserWarning, match=f"b: {reason}"):
        (experiment,) = read(tmp_path)
    assert experiment.seeds == [1]


@pytest.mark.parametrize("until", [0, 5_000])
def test_run_without_evaluation_is_skipped_beside_evaluated_ones(tmp_path, until):
    start_run(tmp_path / "a", make_config("hopper-medium-v2", train_seed=1))
    make_run(tmp_path / "b", train_seed=2, until=until)
    with pytest.warns(UserWarning, match=r"a: .*\(skipped\)"):
        (experiment,) = read(tmp_path)
    assert experiment.seeds == [2]
    assert experiment.evaluation.returns.shape == (2, 100)


@pytest.mark.parametrize("seed", [1, 2])
def test_duplicate_seed_is_taken_from_the_run_with_more_seeds(tmp_path, seed):
    make_run(tmp_path / "a", train_seed=1, scores=(60.0, 61.0))
    make_run(tmp_path / "0", train_seed=seed, scores=(62.0,))
    expected = f"0: seed {seed} is already taken from .*a "
    with pytest.warns(UserWarning, match=expected):
        (experiment,) = read(tmp_path)
    assert experiment.seeds == [1, 2]


def test_folder_given_twice_is_read_once_without_a_warning(tmp_path):
    make_run(tmp_path / "a", train_seed=1)
    folders = [tmp_path / "a", tmp_path / "a", tmp_path / "a/../a"]
    (experiment,) = read_experiments(folders)
    assert experiment.seeds == [1]


def test_experiments_are_in_the_order_of_corls_tables(tmp_path):
    names = [*PUBLISHED]
    for i, name in enumerate(reversed(names)):
        start_run(tmp_path / f"{i:02}", make_config(name))
    start_run(tmp_path / "x", make_config("hopper-demo"))
    start_run(tmp_path / "y", make_config("antmaze-umaze-demo"))
    found = [experiment.name for experiment in read(tmp_path)]
    assert found == [*names, "antmaze-umaze-demo", "hopper-demo"]


def test_started_run_has_no_evaluation_and_empty_curves(tmp_path):
    start_run(tmp_path / "a", make_config("hopper-medium-v2"))
    (experiment,) = read(tmp_path)
    assert (experiment.step, experiment.evaluation) == (0, None)
    assert experiment.curve("train_loss").values.shape == (1, 0)


def remove_checkpoint(run):
    shutil.rmtree(run / "checkpoints")


def add_text_to_metrics(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 200000, "train_loss": "low"}\n')


def damage_evaluation(run):
    (run / "eval/100000.npz").write_bytes(b"PK")


def swap_evaluation(run):
    make_run(run.parents[1] / "other", scores=(1.0, 2.0, 3.0))
    (run.parents[1] / "other/eval/100000.npz").replace(run / "eval/100000.npz")


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (remove_checkpoint, "checkpoints"),
        (add_text_to_metrics, "metrics.jsonl"),
        (damage_evaluation, "100000.npz"),
        (swap_evaluation, "100000.npz"),
    ],
)
def test_damaged_run_is_named_and_skipped(tmp_path, damage, file):
    make_run(tmp_path / "runs/good", train_seed=1)
    damage(make_run(tmp_path / "runs/bad", train_seed=2))
    with pytest.warns(UserWarning, match=rf"bad.*{file}.*\(skipped\)"):
        (experiment,) = read(tmp_path / "runs")
    assert experiment.seeds == [1]


def test_no_run_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with (
        pytest.warns(UserWarning, match="checkpoints"),
        pytest.raises(UserError, match="none of the given folders could be read"),
    ):
        read_experiments([tmp_path, tmp_path / "notes.txt"])


def test_label_names_foreign_data_and_their_score():
    def label(data_path, env_name, scored_as, source="mine.hdf5"):
        config = {"data_path": data_path, "env_name": env_name}
        return data_label(config, {"source": source}, scored_as)

    hopper, demo = "hopper-medium-v2", "hopper-demo"
    assert label("a/mine.hdf5", hopper, hopper) == f"mine.hdf5 (scored as {hopper})"
    assert label("a/mine.hdf5", hopper, None) == "mine.hdf5"
    assert label("/a/mine.hdf5", None, None, "/a/mine.hdf5") == "mine.hdf5"
    assert label("a/mine.hdf5", None, hopper) == f"mine.hdf5 (scored as {hopper})"
    assert label(None, demo, demo) == label(None, demo, None) == demo
    collected = "mine.hdf5 (hopper-demo)"
    assert label("a/mine.hdf5", demo, demo, collected) == collected
    assert label(None, demo, hopper) == f"{demo} (scored as {hopper})"
    minari = "minari:mujoco/hopper/medium-v0"
    assert label(None, minari, minari) == "mine.hdf5"
    assert label(None, minari, hopper) == f"mine.hdf5 (scored as {hopper})"
