"""Each file of a run's newest checkpoint, damaged in turn."""

import random
import shutil
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from dt_jax.runs.checkpoint import find_checkpoints
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.resume import last_checkpoint
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

RNG = random.Random(0)


def cut_short(file):
    file.write_bytes(file.read_bytes()[: RNG.randrange(file.stat().st_size)])


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[RNG.randrange(len(content))] ^= RNG.randrange(1, 256)
    file.write_bytes(content)


DAMAGES = (cut_short, flip_a_byte, Path.unlink)


@pytest.fixture
def run(small_config, tmp_path):
    train(small_config, tmp_path / "run")
    return tmp_path / "run"


def files_of_the_newest(run):
    """Return every file of the checkpoint that has a byte, and its manifest."""
    step = find_checkpoints(run / "checkpoints")[-1].step
    files = (run / "checkpoints" / str(step)).rglob("*")
    found = [path for path in files if path.is_file() and path.stat().st_size]
    return [*found, run / "checkpoints" / f"{step}.json"]


def params(run):
    newest = find_checkpoints(run / "checkpoints")[-1]
    restored = newest._restore(params=ocp.args.StandardRestore())["params"]
    return [np.asarray(x).tobytes() for x in _leaves(restored)]


def _leaves(tree):
    if not isinstance(tree, dict):
        return [tree]
    return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]


def test_each_damage_is_detected_and_the_step_before_is_used(
    run, small_config, record_property
):
    steps = [checkpoint.step for checkpoint in find_checkpoints(run / "checkpoints")]
    detected = 0
    for file in files_of_the_newest(run):
        whole = file.read_bytes()
        for damage in DAMAGES:
            damage(file)
            with pytest.warns(UserWarning, match=rf"{steps[-1]} is not used: .*") as w:
                checkpoint, _ = last_checkpoint(run, small_config)
            assert checkpoint.step == steps[-2]
            (told,) = (str(each.message) for each in w)
            assert file.name in told
            detected += 1
            file.write_bytes(whole)
    assert last_checkpoint(run, small_config)[0].step == steps[-1]
    record_property("files damaged, and named", f"{detected} of {detected}")


def test_a_run_with_a_damaged_checkpoint_ends_as_if_nothing_had_been(
    run, small_config, tmp_path, record_property
):
    count = len(files_of_the_newest(run))
    chosen = RNG.sample([(i, d) for i in range(count) for d in DAMAGES], 6)
    for number, (i, damage) in enumerate(chosen):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(run, copy)
        damage(files_of_the_newest(copy)[i])
        with pytest.warns(UserWarning, match="is not used"):
            train(small_config, copy)
        assert params(copy) == params(run)
        rows, rows_before = (
            [
                {**row, "steps_per_second": 0, "eval/seconds": 0}
                for row in read_metrics(r / "metrics.jsonl")
            ]
            for r in (copy, run)
        )
        assert rows == rows_before
    record_property("of them resumed from, to the same end", len(chosen))


def test_with_no_whole_checkpoint_nothing_is_begun(run, small_config):
    before = (run / "metrics.jsonl").read_text()
    for checkpoint in find_checkpoints(run / "checkpoints"):
        folder = run / "checkpoints" / str(checkpoint.step)
        cut_short(max(folder.rglob("*"), key=lambda path: path.stat().st_size))
    with (
        pytest.warns(UserWarning, match="is not used"),
        pytest.raises(UserError, match="is whole any more: restore one"),
    ):
        train(small_config, run)
    assert (run / "metrics.jsonl").read_text() == before
