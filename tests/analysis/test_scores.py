from dataclasses import replace

import numpy as np
import pytest
from ml_collections import ConfigDict
from run_folders import make_config, make_run, start_run

from dt_jax.analysis.experiments import Experiment, read_experiments
from dt_jax.analysis.published import PUBLISHED
from dt_jax.analysis.scores import compute_scores
from dt_jax.analysis.tables import interval_table, score_table


def scores_of_run(folder, *args, **kwargs):
    (experiment,) = read_experiments([make_run(folder, *args, **kwargs)])
    return compute_scores(experiment)


def test_scores_of_several_seeds(tmp_path):
    scores = scores_of_run(tmp_path, scores=(60.0, 61.0, 66.0, 71.0))
    assert scores.target == 3600
    assert scores.last.mean == pytest.approx(64.5)
    assert scores.last.std == pytest.approx(np.std([60, 61, 66, 71]))
    assert scores.difference == -0.6  # CORL has 65.10 ± 1.61
    assert scores.within is True
    assert scores.interval.startswith("63.50 (6")  # mean of 61 and 66


def test_single_seed_has_the_standard_error_over_episodes(tmp_path):
    scores = scores_of_run(tmp_path, scores=(64.0,))
    assert scores.last == (pytest.approx(64), None)
    episodes = scores.experiment.evaluation.normalized_scores[0]
    assert scores.interval == f"± {episodes.std(ddof=1) / 10:.2f} s.e. over episodes"


@pytest.mark.parametrize(
    ("score", "within", "difference"),
    [
        (65.10 + 1.6149, True, 1.61),  # as many digits as CORL prints
        (65.10 - 1.6149, True, -1.61),
        (66.72, False, 1.62),
        (63.48, False, -1.62),
    ],
)
def test_within_is_at_most_corls_deviation(tmp_path, score, within, difference):
    scores = scores_of_run(tmp_path, scores=(score,))
    assert (scores.within, scores.difference) == (within, difference)


def test_best_evaluation_is_selected_for_each_seed(tmp_path):
    make_run(tmp_path, scores=(60.0, 70.0), eval_every=50_000)
    log = tmp_path / "metrics.jsonl"
    rows = log.read_text().splitlines(keepends=True)
    name = '"seed_10/eval/3600.0_normalized_score_mean": '
    before, _, after = rows[1].partition(name)
    rows[1] = f"{before}{name}90.0,{after.partition(',')[2]}"
    log.write_text("".join(rows))
    (experiment,) = read_experiments([tmp_path])
    best = compute_scores(experiment).best
    assert best == (pytest.approx(80), pytest.approx(10))


def test_untrained_network_is_not_the_best(tmp_path):
    make_run(tmp_path, scores=(60.0,), eval_every=50_000)
    log = tmp_path / "metrics.jsonl"
    name = '"eval/3600.0_normalized_score_mean": '
    before, _, after = log.read_text().partition(name)
    log.write_text(f"{before}{name}100.0,{after.partition(',')[2]}")
    (experiment,) = read_experiments([tmp_path])
    curve = experiment.target_curve(3600.0, "normalized_score")
    assert (curve.steps[0], curve.values[0, 0]) == (0, 100)
    assert compute_scores(experiment).best == (pytest.approx(60), None)


def test_run_evaluated_only_before_training_has_no_best(tmp_path):
    scores = scores_of_run(tmp_path, scores=(60.0,), until=0)
    assert scores.last.mean == pytest.approx(60)
    assert scores.best is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lr_schedule": "warmup_cosine"}, "lr_schedule warmup_cosine (CORL: warmup_c"),
        ({"batch_size": 64}, "batch_size 64 (CORL: 4096)"),
        ({"eval_episodes": 10}, "eval_episodes 10 (CORL: 100)"),
        ({"target_returns": (1800.0,)}, "target_returns 1800 (CORL: 3600,1800)"),
        ({"until": 5_000}, "unfinished: 5,000 of 100,000"),
        ({"reward_scale": 0.0}, "reward_scale 0 (CORL: 0.001)"),
        ({"init_from": "runs/x"}, "init_from runs/x (CORL: None)"),
    ],
)
def test_deviating_setting_is_named_and_not_judged(tmp_path, changes, expected):
    scores = scores_of_run(tmp_path, scores=(65.0,), **changes)
    (deviation,) = scores.deviations
    assert deviation.startswith(expected)
    assert scores.difference == -0.1
    assert scores.within is None


def test_agent_other_than_corls_is_named_and_not_judged(tmp_path):
    (experiment,) = read_experiments([make_run(tmp_path, scores=(65.0,))])
    run = experiment.runs[0]
    shared = ("env_name", "data_path", "update_steps", "train_seed", "num_seeds")
    config = ConfigDict({"agent": "bc", **{key: run.config[key] for key in shared}})
    scores = compute_scores(Experiment((replace(run, config=config),)))
    assert scores.deviations == ("agent bc (CORL: dt)",)
    assert (scores.difference, scores.within) == (-0.1, None)


def test_further_targets_are_no_deviation(tmp_path):
    targets = (3600.0, 9000.0, 1800.0, 400.0)
    scores = scores_of_run(tmp_path, scores=(65.0,), target_returns=targets)
    assert scores.target == 3600
    assert scores.within is True


@pytest.mark.parametrize("name", PUBLISHED)
def test_corls_own_score_is_within_its_deviation(tmp_path, name):
    reference = PUBLISHED[name]
    scores = scores_of_run(
        tmp_path, name, scores=(reference.last.mean,), eval_every=100_000
    )
    assert scores.deviations == ()
    assert (scores.difference, scores.within) == (0, True)
    assert scores.target == max(reference.settings["target_returns"])


@pytest.mark.parametrize(
    ("env_name", "changes", "reason"),
    [
        ("hopper-demo", {}, "demo data"),
        ("hopper-medium-v2", {"data_path": "mine.hdf5"}, "own data"),
        ("minari:mujoco/hopper/medium-v0", {}, "Minari data"),
    ],
)
def test_other_data_are_marked_and_not_compared(tmp_path, env_name, changes, reason):
    spec_name = "hopper-medium-v2" if env_name.startswith("minari") else env_name
    make_run(tmp_path, spec_name, scores=(65.0,), **changes)
    config = make_config(spec_name, **changes).unlock()
    config.env_name = env_name
    start_run(tmp_path, config)
    (experiment,) = read_experiments([tmp_path])
    scores = compute_scores(experiment)
    found = scores.not_comparable, scores.published, scores.difference
    assert found == (reason, None, None)
    (row,) = score_table([scores]).rows
    assert row[1:] == ("65.00", reason, "-", "-")
    (row,) = interval_table([scores]).rows
    assert row[-2:] == ("-", "-")


def test_domain_has_an_average_if_all_its_datasets_are_there(tmp_path):
    mazes = [name for name, row in PUBLISHED.items() if row.domain == "maze2d"]
    for i, name in enumerate([*mazes, "hopper-medium-v2"]):
        make_run(tmp_path / name, name, scores=(10.0 * i,), eval_every=100_000)
    scores = [compute_scores(each) for each in read_experiments(tmp_path.iterdir())]
    rows = score_table(scores).rows
    assert [row[0] for row in rows] == ["hopper-medium-v2", *mazes, "maze2d average"]
    assert rows[-1][1:] == ("10.00", "28.48", "-18.48", "-")
    incomplete = score_table(scores[:-1]).rows
    assert "average" not in incomplete[-1][0]
