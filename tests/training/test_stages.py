"""Runs in stages: a critic, labels, and the policy that is trained on them."""

import json
import shutil
import signal

import h5py
import numpy as np
import pytest
from command import run
from helpers import (
    TINY_TRANSFORMER,
    assert_same_run,
    changed,
    restored,
    steps_of,
    train_until,
)

from dt_jax.agents.qdt import QLearningDecisionTransformerAgent
from dt_jax.config import default_config
from dt_jax.config.load import validate
from dt_jax.datasets import load_dataset
from dt_jax.datasets.demo import collect_demo
from dt_jax.evaluation.policy import Policy
from dt_jax.training import stages
from dt_jax.training import train as training
from dt_jax.training.dry_run import dry_run
from dt_jax.training.stages import stage_configs
from dt_jax.training.train import train
from dt_jax.training.trainer import Trainer
from dt_jax.utils.errors import UserError
from dt_jax.utils.signals import Stopped


@pytest.fixture(scope="module")
def corridor(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "corridor.hdf5"
    collect_demo("corridor-demo", path, steps=100)
    return path


@pytest.fixture
def config(corridor):
    """Return a run of 4 updates after 6 of the critic, for two seeds."""
    config = default_config(
        "qdt",
        env_name="corridor-demo",
        data_path=str(corridor),
        **TINY_TRANSFORMER,
        seq_len=2,
        batch_size=4,
        update_steps=4,
        warmup_steps=2,
        eval_every=4,
        eval_episodes=2,
        target_returns=(10.0,),
        reward_scale=0.1,
        log_every=1,
        checkpoint_every=2,
        num_workers=0,
        num_seeds=2,
        critic_dim=8,
        critic_update_steps=6,
        critic_batch_size=4,
    )
    validate(config)
    return config.lock()


@pytest.fixture(scope="module")
def _finished_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def finished(config, _finished_folder):
    """Return the folder of the complete run; tests must not change it."""
    if not _finished_folder.exists():
        train(config, _finished_folder)
    return _finished_folder


def assert_same(ours, theirs):
    assert_same_run(ours / "critic", theirs / "critic")
    assert_same_run(ours, theirs)
    arrays = [np.load(folder / "labels" / "labels.npz") for folder in (ours, theirs)]
    np.testing.assert_array_equal(*[each["values"] for each in arrays])


def test_each_seed_is_trained_on_the_labels_of_its_own_critic(
    finished, config, corridor
):
    with np.load(finished / "labels" / "labels.npz") as file:
        labels = file["values"]
    assert labels.shape == (2, 100)
    assert (labels[0] != labels[1]).any()
    summary = json.loads((finished / "labels" / "summary.json").read_text())
    assert [each["share_below_return"] for each in summary["seeds"]] == [0, 0]
    assert (finished / "labels" / "histogram.png").stat().st_size > 1000
    assert steps_of(finished / "critic") == [2, 4, 6]
    policy = Policy.load(finished, seed=11)
    policy.reset(10.0)
    assert policy.act(np.eye(3)[0]).shape == ()


def test_a_run_killed_in_any_stage_resumes_to_the_same_bits(
    finished, config, tmp_path, monkeypatch, capsys
):
    workdir = tmp_path / "run"
    train_until(5, config, workdir)
    assert steps_of(workdir / "critic") == [2, 4]
    assert "nothing is evaluated" not in capsys.readouterr().out  # the policy will be
    with monkeypatch.context() as patch:  # in the labels
        patch.setattr(stages, "_write", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config, workdir)
    assert steps_of(workdir / "critic") == [2, 4, 6]
    train_until(3, config, workdir)
    assert steps_of(workdir) == [2]
    critic = restored(workdir / "critic", "train")
    capsys.readouterr()
    train(config, workdir)
    assert "stage critic" not in capsys.readouterr().out  # it was complete
    assert restored(workdir / "critic", "train") == critic
    assert_same(workdir, finished)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iql_tau": 0.9}, r"\(iql_tau 0.7 -> 0.9\), with its stage critic: set"),
        ({"critic_batch_size": 8}, r"\(critic_batch_size 4 -> 8\), with its stage c"),
        ({"critic_update_steps": 8}, r"\(critic_update_steps 6 -> 8\), with its st"),
        ({"label_mode": "window"}, r"\(label_mode per_step -> window\): set these"),
        ({"seq_len": 3}, r"\(seq_len 2 -> 3\): set these back"),
    ],
)
def test_a_changed_key_is_refused_with_the_stage_that_it_belongs_to(
    finished, config, changes, message, tmp_path
):
    shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(UserError, match=f"run holds another run {message}"):
        train(changed(config, **changes), tmp_path / "run")
    assert steps_of(tmp_path / "run" / "critic") == [2, 4, 6]


@pytest.fixture
def only_critic(finished, tmp_path):
    """Return the folder of a run that was killed after its critic was complete."""
    shutil.copytree(finished / "critic", tmp_path / "run" / "critic")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iql_tau": 0.9}, r"holds another run \(iql_tau 0.7 -> 0.9\)"),
        ({"critic_update_steps": 5}, "has 6 updates, more than the 5 that this run"),
        ({"data_path": "other"}, "was trained on other data than .* has now"),
    ],
)
def test_a_stage_of_another_run_or_other_data_is_refused(
    only_critic, config, changes, message, tmp_path
):
    if "data_path" in changes:
        changes = {"data_path": str(tmp_path / "other.hdf5")}
        collect_demo("corridor-demo", tmp_path / "other.hdf5", steps=120)
    with pytest.raises(UserError, match=f"^stage critic: .*run/critic {message}"):
        train(changed(config, **changes), only_critic)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": "nonsense"}, "nonsense"),
        ({"num_devices": 3, "num_seeds": 1, "critic_batch_size": 3}, "^config.batch_s"),
    ],
)
def test_a_run_that_would_be_refused_is_refused_before_its_stages(
    config, changes, message, tmp_path
):
    with pytest.raises(UserError, match=message):
        train(changed(config, **changes), tmp_path / "run")
    assert not (tmp_path / "run" / "critic").exists()


def test_a_complete_run_does_not_need_its_stages(finished, config, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "critic")
    train(config, tmp_path / "run")
    assert "this run is complete" in capsys.readouterr().out
    assert not (tmp_path / "run" / "critic").exists()


@pytest.mark.slow
def test_a_resumed_run_that_has_its_labels_does_not_need_its_stages(
    finished, config, tmp_path
):
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "critic")
    train(changed(config, update_steps=6), tmp_path / "run")
    assert not (tmp_path / "run" / "critic").exists()
    assert_labels_equal(tmp_path / "run", finished)


@pytest.mark.slow
def test_a_signal_in_the_last_save_of_a_stage_stops_the_run(
    config, tmp_path, monkeypatch
):
    save = Trainer._save

    def save_and_signal(self, step, *args):
        save(self, step, *args)
        if step == 6:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_save", save_and_signal)
    with pytest.raises(Stopped, match="after stage critic; saved"):
        train(config, tmp_path / "run")
    assert steps_of(tmp_path / "run" / "critic") == [2, 4, 6]
    assert not (tmp_path / "run" / "labels").exists()


def test_a_signal_between_stages_says_that_the_stage_is_saved(config, tmp_path):
    code = f"""if True:
        import signal
        from dt_jax.analysis import summary
        from dt_jax.cli.common import run_command
        from dt_jax.config.load import from_dict
        from dt_jax.training.train import train

        summary.draw = lambda run: signal.raise_signal(signal.SIGTERM)
        config = from_dict({config.to_dict()!r})
        run_command(lambda: train(config, {str(tmp_path / "run")!r}), "-c")
    """
    status, _, err = run("-c", code)
    message = "after stage critic; saved: run the same command to resume"
    assert (status, err) == (143, f"-c: interrupted by SIGTERM {message}\n")


@pytest.mark.slow
def test_targets_far_from_the_data_are_reported_once_before_the_stages(
    config, tmp_path, monkeypatch
):
    train_stage, before = training._train_stage, []

    def counted(*args):
        before.append(len(warned))
        train_stage(*args)

    monkeypatch.setattr(training, "_train_stage", counted)
    config = changed(config, target_returns=(1e6,), num_seeds=1)
    message = r"target_returns 1e\+06 are far outside"
    with pytest.warns(UserWarning, match=message) as warned:
        train(config, tmp_path / "run")
    assert before == [1]
    assert len(warned) == 1


@pytest.mark.slow
def test_the_policy_is_announced_like_the_stages(config, tmp_path, capsys):
    train(changed(config, num_seeds=1, eval_episodes=0), tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    stages = [line for line in lines if line.startswith("stage ")]
    assert stages == ["stage critic: iql, 6 updates", "stage policy: qdt, 4 updates"]


def test_changed_labels_are_refused(finished, config, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    path = workdir / "labels" / "labels.npz"
    np.savez(path, values=np.load(path)["values"] + 1)
    with pytest.raises(UserError, match="labels are not those that the run was"):
        train(changed(config, update_steps=6), workdir)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"labels.npz is damaged .*: delete .*/labels"):
        train(changed(config, update_steps=6), workdir)


@pytest.mark.slow
def test_missing_labels_are_made_again(finished, config, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "labels")
    train(changed(config, update_steps=6), workdir)
    assert_labels_equal(workdir, finished)


def assert_labels_equal(ours, theirs):
    arrays = [np.load(folder / "labels" / "labels.npz") for folder in (ours, theirs)]
    np.testing.assert_array_equal(*[each["values"] for each in arrays])


def test_labels_from_another_run_or_its_critic(finished, config, tmp_path, capsys):
    for source in finished, finished / "critic":
        workdir = tmp_path / source.name
        train(changed(config, labels_from=str(source), discount=1.0), workdir)
        assert not (workdir / "critic").exists()
        assert_labels_equal(workdir, finished)
        summary = json.loads((workdir / "labels" / "summary.json").read_text())
        assert summary["labels_from"] == str(source)
        made_by = summary["made_by"]
        assert (made_by["agent"], made_by["critic"]["agent"]) == ("qdt", "iql")
        assert made_by["critic"]["discount"] == 0.99
        assert (
            f"labels_from {source}: critic iql, 6 updates, discount 0.99 (here 1.0); "
            "this run's own keys of stage critic are not used\n"
        ) in capsys.readouterr().out
        assert restored(workdir, "params") == restored(finished, "params")


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("nonsense", {}, "there is no such folder: choose the folder of a run"),
        ("run/labels", {}, "this is only its folder of labels: give .*run$"),
        ("run", {"num_seeds": 3}, "it has 2 seeds, not 3: set num_seeds=2, or choose"),
        (
            "run",
            {"label_mode": "window"},
            "its labels were made with label_mode=per_step: set config.label_mode="
            "per_step, or give .*run/critic to make others",
        ),
        ("run", {"label_rounding": 1.0}, "its labels were made with label_rounding=0"),
        ("run", {"data_path": "other"}, "it is a run on other data, .*corridor.hdf5 "),
        ("run/critic", {"data_path": "other"}, "it is a run on other data, .*corridor"),
        ("run/critic", {"num_seeds": 1}, "it has 2 seeds, not 1: set num_seeds=2, or"),
        ("run/critic", {"critic": "cql"}, "expected a run with labels, or a run of t"),
    ],
)
def test_labels_from_a_run_of_no_use_is_refused(
    finished, config, source, changes, message, tmp_path
):
    source = str(finished.parent / source) if "run" in source else source
    if "data_path" in changes:
        changes = {"data_path": str(tmp_path / "other.hdf5")}
        collect_demo("corridor-demo", tmp_path / "other.hdf5", steps=120)
    config = changed(config, labels_from=source, **changes)
    for use in train, dry_run:
        with pytest.raises(UserError, match=f"^config.labels_from={source}: {message}"):
            use(config, tmp_path / "run")


@pytest.mark.slow
def test_one_seed_s_labels_for_several_seeds_are_reported(
    finished, config, tmp_path, capsys
):
    source = tmp_path / "source"
    train(changed(config, num_seeds=1, eval_episodes=0), source)
    capsys.readouterr()
    train(changed(config, labels_from=str(source)), tmp_path / "run")
    line = "critic iql, 6 updates, its one seed for all 2 seeds; this run's own"
    assert line in capsys.readouterr().out


def test_the_printed_labels_are_those_of_all_seeds(
    finished, config, tmp_path, capsys, monkeypatch
):
    source, drawn = tmp_path / "source", []
    shutil.copytree(finished / "labels", source / "labels")
    with np.load(source / "labels" / "labels.npz") as file:
        values = file["values"] + np.array([[500], [0]])
    np.savez(source / "labels" / "labels.npz", values=values)
    monkeypatch.setattr(stages, "draw_label_histogram", lambda *x: drawn.append(x))
    config = changed(config, labels_from=str(source), target_returns=None)
    message = "the largest label is 510, but .*: the critic promises more than rewards"
    with pytest.warns(UserWarning, match=message):
        train(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert "labels (2 seeds): " in out
    assert "largest label of a first step 10 to 510, best return 10 " in out
    assert "target_returns 260, " in out
    assert "largest and mean label of a first step, mean over seeds\n" in out
    (_, title, _), *_ = drawn
    assert title == f"labels of {config.data_path} (corridor-demo), seed 10"


def test_labels_from_a_damaged_or_incomplete_run_are_refused(
    finished, config, tmp_path
):
    source = tmp_path / "source"
    shutil.copytree(finished, source)
    (source / "labels" / "summary.json").write_text("{}")
    with pytest.raises(UserError, match=r"summary.json is missing or damaged"):
        train(changed(config, labels_from=str(source)), tmp_path / "run")
    shutil.rmtree(source / "critic" / "checkpoints" / "6")
    (source / "critic" / "checkpoints" / "6.json").unlink()
    config = changed(config, labels_from=str(source / "critic"))
    with pytest.raises(UserError, match="this run has 4 of 6 updates: resume it"):
        train(config, tmp_path / "run")


def test_labels_of_another_agent_are_refused(finished, config, tmp_path):
    esper = default_config("esper")
    same = {key: config[key] for key in esper if key in config and key != "agent"}
    esper = changed(esper, **same | {"labels_from": str(finished)})
    message = "labels were made with agent=qdt: choose a run of the agent esper"
    with pytest.raises(UserError, match=message):
        train(esper, tmp_path / "run")


@pytest.mark.slow
def test_window_mode_shows_true_rewards_before_the_window_s_end(
    config, corridor, tmp_path
):
    workdir = tmp_path / "run"
    config = changed(config, label_mode="window", num_seeds=1, eval_episodes=0)
    train(config, workdir)
    with np.load(workdir / "labels" / "labels.npz") as file:
        assert set(file) == {"values", "offsets"}
        assert (file["offsets"] > 0).any()
    kinds = {
        mode: QLearningDecisionTransformerAgent.from_config(
            changed(config, label_mode=mode), Policy.load(workdir).agent.normalizer
        ).batch_kind
        for mode in ("per_step", "window")
    }
    assert kinds == {"per_step": "windows", "window": "window_ends"}


def test_a_warm_start_is_that_of_the_run_and_not_of_its_stages(finished, config):
    warm = changed(config, init_from=str(finished))
    assert [stage.init_from for stage in stage_configs(warm).values()] == [None]


def test_cql_learns_unscaled_rewards(config):
    """Its conservative term would outweigh scaled ones."""
    for critic, scale in (("iql", 0.1), ("cql", 1.0)):
        changes = {"critic": critic, "reward_scale": 0.1}
        (stage,) = stage_configs(changed(config, **changes)).values()
        assert (stage.agent, stage.reward_scale) == (critic, scale)


def test_a_dry_run_tries_every_stage(config, tmp_path, capsys):
    dry_run(config, tmp_path / "run")
    lines = [line for line in capsys.readouterr().out.splitlines() if "dry run" in line]
    assert len(lines) == 2
    assert not (tmp_path / "run").exists()


def test_labels_of_other_trajectories_of_the_same_file_are_refused(
    finished, config, corridor, tmp_path
):
    """`split` changes where trajectories end, not the file."""
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    path = workdir / "labels" / "summary.json"
    summary = json.loads(path.read_text())
    assert summary["rows_sha256"] == stages._rows_sha256(load_dataset(str(corridor)))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name, ends in ("terminals", 5), ("timeouts", 20):
            file[name] = np.arange(1, 201) % ends == 0
        file["observations"] = np.zeros((200, 2))
        file["actions"], file["rewards"] = np.zeros((200, 1)), np.zeros(200)
    rows = {
        stages._rows_sha256(load_dataset(str(tmp_path / "a.hdf5"), split=split))
        for split in ("corl", "timeouts")
    }
    assert len(rows) == 2
    path.write_text(json.dumps(summary | {"rows_sha256": rows.pop()}))
    with pytest.raises(UserError, match="begin or end at other rows: set split"):
        train(changed(config, labels_from=str(workdir)), tmp_path / "other")
