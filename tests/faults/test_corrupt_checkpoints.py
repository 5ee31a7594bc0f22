"""Damage to each file of a run's newest checkpoint."""

import random
import shutil
from pathlib import Path

import pytest
from helpers import assert_same_run, steps_of

from dt_jax.training.resume import last_checkpoint
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

RNG = random.Random(0)


def truncate(file):
    file.write_bytes(file.read_bytes()[: RNG.randrange(file.stat().st_size)])


def change_a_byte(file):
    content = bytearray(file.read_bytes())
    content[RNG.randrange(len(content))] ^= RNG.randrange(1, 256)
    file.write_bytes(content)


DAMAGES = (truncate, change_a_byte, Path.unlink)


@pytest.fixture
def run(small_config, tmp_path):
    train(small_config, tmp_path / "run")
    return tmp_path / "run"


def files_of_the_newest(run):
    """Return every file of the newest checkpoint that is not empty, and its manifest.

    Damage to an empty file would change nothing.
    """
    step = steps_of(run)[-1]
    files = (run / "checkpoints" / str(step)).rglob("*")
    found = [path for path in files if path.is_file() and path.stat().st_size]
    return [*found, run / "checkpoints" / f"{step}.json"]


def test_each_damage_is_detected_and_the_previous_checkpoint_used(
    run, small_config, record_property
):
    steps = steps_of(run)
    detected = 0
    for file in files_of_the_newest(run):
        content = file.read_bytes()
        for damage in DAMAGES:
            damage(file)
            message = rf"{steps[-1]} is corrupt and not used: .*"
            with pytest.warns(UserWarning, match=message) as warned:
                checkpoint = last_checkpoint(run, small_config)
            assert checkpoint.step == steps[-2]
            (message,) = (str(each.message) for each in warned)
            assert file.name in message
            detected += 1
            file.write_bytes(content)
    assert last_checkpoint(run, small_config).step == steps[-1]
    record_property("files damaged, detected and named", f"{detected} of {detected}")


def test_run_resumes_from_the_previous_checkpoint_to_the_same_bits(
    run, small_config, tmp_path, record_property
):
    count = len(files_of_the_newest(run))
    chosen = RNG.sample([(i, d) for i in range(count) for d in DAMAGES], 6)
    for number, (i, damage) in enumerate(chosen):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(run, copy)
        damage(files_of_the_newest(copy)[i])
        with pytest.warns(UserWarning, match="is corrupt and not used"):
            train(small_config, copy)
        assert_same_run(copy, run)
    record_property("of them resumed from, to the same bits", len(chosen))


def test_run_without_a_valid_checkpoint_is_not_resumed(run, small_config):
    before = (run / "metrics.jsonl").read_text()
    for step in steps_of(run):
        files = (run / "checkpoints" / str(step)).rglob("*")
        truncate(max(files, key=lambda path: path.stat().st_size))
    with (
        pytest.warns(UserWarning, match="is corrupt and not used"),
        pytest.raises(UserError, match=r"every checkpoint in .* is corrupt: restore"),
    ):
        train(small_config, run)
    assert (run / "metrics.jsonl").read_text() == before
