import numpy as np
import pytest
from folders import make_run
from rliable import metrics as rliable_metrics

from dt_jax.analysis import experiments, tables
from dt_jax.analysis.published import published
from dt_jax.analysis.scores import scores_of


def scores(folder, *args, intervals=True, **kwargs):
    (experiment,) = experiments.read([make_run(folder, *args, **kwargs)])
    return scores_of(experiment, intervals)


def test_scores_of_several_seeds(tmp_path):
    found = scores(tmp_path, scores=(60.0, 61.0, 66.0, 71.0))
    assert found.target == 3600
    assert found.last.mean == pytest.approx(64.5)
    assert found.last.std == pytest.approx(np.std([60, 61, 66, 71]))
    assert found.difference == -0.6  # CORL has 65.10 ± 1.61
    assert found.within is True
    iqm = rliable_metrics.aggregate_iqm(np.array([[60.0, 61.0, 66.0, 71.0]]))
    assert found.interval.startswith(f"{iqm:.2f} (6")


def test_without_rliable_there_are_standard_errors(tmp_path):
    found = scores(tmp_path, scores=(60.0, 61.0, 66.0, 71.0), intervals=False)
    error = np.std([60, 61, 66, 71], ddof=1) / 2
    assert found.interval == f"± {error:.2f} s.e. over seeds"


def test_of_one_seed_the_error_is_over_episodes(tmp_path):
    found = scores(tmp_path, scores=(64.0,))
    assert found.last == (pytest.approx(64), None)
    episodes = found.experiment.evaluation.normalized_scores[0]
    assert found.interval == f"± {episodes.std(ddof=1) / 10:.2f} s.e. over episodes"


@pytest.mark.parametrize(
    ("score", "within"),
    [(65.10 + 1.61, True), (65.10 - 1.61, True), (66.72, False), (63.48, False)],
)
def test_within_corls_deviation(tmp_path, score, within):
    assert scores(tmp_path, scores=(score,)).within is within


def test_best_is_of_each_seed(tmp_path):
    make_run(tmp_path, scores=(60.0, 70.0), eval_every=50_000)
    log = tmp_path / "metrics.jsonl"
    rows = log.read_text().splitlines(keepends=True)
    name = '"seed_10/eval/3600.0_normalized_score_mean": '
    before, _, after = rows[1].partition(name)
    rows[1] = f"{before}{name}90.0,{after.partition(',')[2]}"
    log.write_text("".join(rows))
    (experiment,) = experiments.read([tmp_path])
    best = scores_of(experiment, intervals=True).best
    assert best == (pytest.approx(80), pytest.approx(10))


@pytest.mark.parametrize(
    ("changes", "told"),
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
def test_what_was_done_otherwise_is_told_and_not_judged(tmp_path, changes, told):
    found = scores(tmp_path, scores=(65.0,), **changes)
    (deviation,) = found.deviations
    assert deviation.startswith(told)
    assert found.difference == -0.1
    assert found.within is None


def test_more_targets_than_corls_do_no_harm(tmp_path):
    found = scores(
        tmp_path, scores=(65.0,), target_returns=(3600.0, 9000.0, 1800.0, 400.0)
    )
    assert found.target == 3600
    assert found.within is True


@pytest.mark.parametrize("name", published())
def test_corls_own_score_is_within_its_deviation(tmp_path, name):
    theirs = published()[name]
    found = scores(tmp_path, name, scores=(theirs.last.mean,), eval_every=100_000)
    assert found.deviations == ()
    assert (found.difference, found.within) == (0, True)
    assert found.target == max(theirs.settings["target_returns"])


@pytest.mark.parametrize(
    ("env_name", "changes", "why"),
    [
        ("hopper-demo", {}, "demo data"),
        ("hopper-medium-v2", {"data_path": "mine.hdf5"}, "own data"),
        ("minari:mujoco/hopper/medium-v0", {}, "Minari's data"),
    ],
)
def test_other_data_is_marked_and_never_compared(tmp_path, env_name, changes, why):
    spec_name = "hopper-medium-v2" if env_name.startswith("minari") else env_name
    make_run(tmp_path, spec_name, scores=(65.0,), **changes)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace(f'"{spec_name}"', f'"{env_name}"'))
    (experiment,) = experiments.read([tmp_path])
    found = scores_of(experiment, intervals=True)
    assert (found.foreign, found.theirs, found.difference) == (why, None, None)
    (row,) = tables.compared([found]).rows
    assert row[1:] == ("65.00", why, "-", "-")
    (row,) = tables.further([found]).rows
    assert row[-2:] == ("-", "-")


def test_averages_over_a_domain_where_all_of_it_is_there(tmp_path):
    mazes = [name for name, row in published().items() if row.domain == "maze2d"]
    for i, name in enumerate([*mazes, "hopper-medium-v2"]):
        make_run(tmp_path / name, name, scores=(10.0 * i,), eval_every=100_000)
    found = [scores_of(e, intervals=True) for e in experiments.read(tmp_path.iterdir())]
    rows = tables.compared(found).rows
    assert [row[0] for row in rows] == ["hopper-medium-v2", *mazes, "maze2d average"]
    assert rows[-1][1:] == ("10.00", "28.48", "-18.48", "-")
    without = tables.compared(found[:-1]).rows
    assert "average" not in without[-1][0]
