import json

import numpy as np
import pytest
from folders import DATASET, begin, config_of, make_run

from dt_jax.analysis import experiments
from dt_jax.analysis.published import published
from dt_jax.runs.evaluations import last_evaluation
from dt_jax.utils.errors import UserError


def read(tmp_path):
    return experiments.read(sorted(tmp_path.iterdir()))


def test_runs_that_differ_in_their_seed_alone_are_one(tmp_path):
    make_run(tmp_path / "a", train_seed=1, scores=(60.0,), name="first", num_workers=0)
    make_run(tmp_path / "b", train_seed=2, scores=(66.0, 69.0), eval_every=10_000)
    (one,) = read(tmp_path)
    assert one.seeds == [1, 2, 3]
    assert (one.name, one.step) == ("hopper-medium-v2", 100_000)
    assert one.evaluation.returns.shape == (3, 2, 100)
    for i, run, row in [(0, "a", ...), (1, "b", 0), (2, "b", 1)]:
        _, alone = last_evaluation(tmp_path / run)
        np.testing.assert_array_equal(one.evaluation.returns[i], alone.returns[row])
    means = one.evaluation.normalized_scores[:, 0].mean(axis=1)
    np.testing.assert_allclose(means, [60, 66, 69])
    curve = one.curve("eval/3600.0_normalized_score_mean")
    # At the steps that all of them have.
    np.testing.assert_array_equal(curve.steps, np.arange(0, 100_001, 10_000))
    np.testing.assert_allclose(curve.values[:, -1], [60, 66, 69])
    assert curve.values.shape == (3, 11)


def test_what_differs_is_told_of_runs_on_the_same_data(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", batch_size=64, clip_grad=None)
    make_run(tmp_path / "c", "hopper-medium-replay-v2", batch_size=64)
    first, second, third = read(tmp_path)
    assert first.name == "hopper-medium-v2, batch_size=4096, clip_grad=0.25"
    assert second.name == "hopper-medium-v2, batch_size=64, clip_grad=None"
    assert third.name == "hopper-medium-replay-v2"


def test_other_content_of_the_data_is_told(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", train_seed=3, dataset=DATASET | {"sha256": "0b" * 32})
    names = [each.name for each in read(tmp_path)]
    assert names == [
        "hopper-medium-v2, sha256=0b0b0b0b",
        "hopper-medium-v2, sha256=5e5e5e5e",
    ]


def test_a_run_whose_targets_were_changed_since_is_left_out(tmp_path):
    make_run(tmp_path / "a", train_seed=1)
    make_run(tmp_path / "b", train_seed=2, target_returns=(1.0, 2.0, 3.0))
    changed = config_of("hopper-medium-v2", train_seed=2)
    (tmp_path / "b/config.json").write_text(json.dumps(changed.to_dict()))
    with pytest.warns(UserWarning, match=r"b: evaluated at other targets.* than .*a "):
        (one,) = read(tmp_path)
    assert one.seeds == [1]


def test_a_run_that_is_behind_the_others_is_left_out(tmp_path):
    make_run(tmp_path / "a", train_seed=1)
    make_run(tmp_path / "b", train_seed=2, until=20_000)
    with pytest.warns(UserWarning, match="b: evaluated after 20000 updates, and other"):
        (one,) = read(tmp_path)
    assert one.seeds == [1]
    (one,) = experiments.read([tmp_path / "b"])  # alone it is told
    assert one.step == 20_000


@pytest.mark.parametrize("until", [0, 5_000])
def test_a_run_that_has_only_begun_is_left_out(tmp_path, until):
    begin(tmp_path / "a", config_of("hopper-medium-v2", train_seed=1))
    make_run(tmp_path / "b", train_seed=2, until=until)
    with pytest.warns(UserWarning, match=r"a: evaluated .*\(left out\)"):
        (one,) = read(tmp_path)
    assert one.seeds == [2]
    assert one.evaluation.returns.shape == (2, 100)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_counts_once(tmp_path, seed):
    """Where it does with others, for these would be lost."""
    make_run(tmp_path / "a", train_seed=1, scores=(60.0, 61.0))
    make_run(tmp_path / "0", train_seed=seed, scores=(62.0,))
    with pytest.warns(UserWarning, match=f"0: seed {seed} of the same run is in .*a "):
        (one,) = read(tmp_path)
    assert one.seeds == [1, 2]
    (one,) = experiments.read([tmp_path / "a", tmp_path / "a", tmp_path / "0/../a"])
    assert one.seeds == [1, 2]  # nor is there a warning


def test_the_order_is_that_of_corls_tables(tmp_path):
    names = [*published()]
    for i, name in enumerate(reversed(names)):
        begin(tmp_path / f"{i:02}", config_of(name), DATASET)
    begin(tmp_path / "x", config_of("hopper-demo"), DATASET)
    begin(tmp_path / "y", config_of("antmaze-umaze-demo"), DATASET)
    found = [each.name for each in read(tmp_path)]
    assert found == [*names, "antmaze-umaze-demo", "hopper-demo"]


def test_a_run_without_an_evaluation_yet(tmp_path):
    begin(tmp_path / "a", config_of("hopper-medium-v2"))
    (one,) = read(tmp_path)
    assert (one.step, one.evaluation) == (0, None)
    assert one.curve("train_loss").values.shape == (1, 0)


def damage_config(run):
    (run / "config.json").write_text("{}")


def damage_versions(run):
    (run / "versions.json").write_text('{"dataset": {"source": 1}}')


def damage_log(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 200000, "train_loss": "low"}\n')


def damage_order(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train_loss": 0.1}\n')


def damage_evaluation(run):
    (run / "eval/100000.npz").write_bytes(b"PK")


def swap_evaluation(run):
    make_run(run.parents[1] / "other", scores=(1.0, 2.0, 3.0))
    (run.parents[1] / "other/eval/100000.npz").replace(run / "eval/100000.npz")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_config, "config.json: a configuration without"),
        (damage_versions, "versions.json does not tell the run's data"),
        (damage_log, "metrics.jsonl: the row of step 200000"),
        (damage_order, "metrics.jsonl: the row of step 5"),
        (damage_evaluation, "100000.npz is no evaluation: remove it"),
        (swap_evaluation, "100000.npz is no evaluation of this run"),
        (lambda run: (run / "versions.json").unlink(), "no .*versions.json: restore"),
    ],
)
def test_a_bad_folder_is_named_and_the_rest_is_reported(tmp_path, damage, told):
    make_run(tmp_path / "runs/good", train_seed=1)
    damage(make_run(tmp_path / "runs/bad", train_seed=2))
    with pytest.warns(UserWarning, match=rf"{told}.*\(left out\)"):
        (one,) = read(tmp_path / "runs")
    assert one.seeds == [1]


def test_no_run_at_all(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with (
        pytest.warns(UserWarning, match=r"no .*config.json: is .* the folder of a run"),
        pytest.raises(UserError, match="no run to report on: name the folders"),
    ):
        experiments.read([tmp_path, tmp_path / "notes.txt"])
