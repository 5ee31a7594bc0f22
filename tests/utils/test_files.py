from contextlib import suppress

import pytest

from dt_jax.utils.files import remove_leftovers, replacing, try_to_write, write_text


def left_of(path):
    """Return a temporary file as a writer of `path` that is killed leaves it."""
    temporary = break_off(path)
    temporary.touch()
    return temporary


def break_off(path):
    """Fail in the middle of writing; return what was written to."""
    with suppress(KeyError), replacing(path) as temporary:
        temporary.write_text("new, in p")
        raise KeyError
    return temporary


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old")
    assert break_off(path).suffix == ".txt"
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_two_writers_at_once_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        first.write_text("first")
        write_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_leftovers_of_a_file_go_and_nothing_else_does(tmp_path):
    ours = [left_of(tmp_path / "a[1].npz") for _ in range(2)]
    others = [left_of(tmp_path / name) for name in ("a1.npz", "a[1].txt", "b.a[1].npz")]
    kept = [tmp_path / name for name in ("a[1].npz", ".a[1].tmp.npz", ".a[1].npz.lock")]
    for path in kept:
        path.touch()
    remove_leftovers(tmp_path / "a[1].npz")
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others + kept)


def test_leftovers_in_a_folder_go_but_not_in_those_below(tmp_path):
    below = left_of(tmp_path / "below" / "a.npz")
    for name in ("a.npz", "metrics.jsonl", "no_suffix"):
        left_of(tmp_path / name)
    (tmp_path / ".hidden.tmp").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden.tmp", "below"]
    assert below.exists()
    remove_leftovers(tmp_path / "missing")


def test_trying_to_write_leaves_nothing_and_fails_as_writing_would(tmp_path):
    try_to_write(tmp_path / "new" / "a.txt")
    assert names(tmp_path / "new") == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.txt", tmp_path / f"{'a' * 250}.txt"):
        for write in (try_to_write, lambda path: write_text(path, "")):
            with pytest.raises(OSError, match=r"Not a directory|File exists|too long"):
                write(path)
