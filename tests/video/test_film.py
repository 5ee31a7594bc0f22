import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from dt_jax.utils.errors import UserError
from dt_jax.video import film

SIZE = 96, 64


def moving_bar(steps):
    """Yield frames of a bright bar that moves over a dark background."""
    for i in range(steps):
        frame = np.full((64, 96, 3), 40, np.uint8)
        frame[:, 10 * i : 10 * i + 8] = 250, 120, 10
        yield frame


def test_gif_has_every_frame_with_its_duration(tmp_path):
    path = tmp_path / "x.GIF"
    film.write(path, moving_bar(6), fps=12.5)
    with Image.open(path) as image:
        assert image.n_frames == 6
        assert image.info["loop"] == 0  # repeat forever
        assert image.size == SIZE
        for i, frame in enumerate(moving_bar(6)):
            image.seek(i)
            assert image.info["duration"] == 80
            shown = np.asarray(image.convert("RGB"), int)
            assert np.abs(shown - frame).max() < 12
    film.write(path, moving_bar(6), fps=100)
    with Image.open(path) as image:
        assert image.info["duration"] == 20  # browsers show less than 20 as 100


def test_mp4_has_every_frame(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "x.mp4"
    film.write(path, moving_bar(6), fps=12.5)
    raw = "-f", "rawvideo", "-pix_fmt", "rgb24", "-"
    command = [ffmpeg.get_ffmpeg_exe(), "-i", str(path), *raw]
    read = subprocess.run(command, capture_output=True, check=True)
    assert re.search(rb"h264.* yuv420p\W", read.stderr)  # what browsers play
    assert b"96x64" in read.stderr
    assert b"12.50 fps" in read.stderr
    shown = np.frombuffer(read.stdout, np.uint8).reshape(-1, 64, 96, 3).astype(int)
    assert len(shown) == 6
    for expected, frame in zip(moving_bar(6), shown, strict=True):
        assert np.abs(frame - expected).mean() < 12


# imageio does not close the pipe of an ffmpeg that has failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ffmpeg_failure_is_an_error(tmp_path, capfd):
    """Both if it exits at once and if it exits after the last frame."""
    pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "x.mp4").mkdir()
    for frames in (moving_bar(1), moving_bar(9)):
        with pytest.raises(UserError, match=r"x.mp4: ffmpeg failed to write"):
            film.write(tmp_path / "x.mp4", frames, fps=10)
        assert "x.mp4: Is a directory" in capfd.readouterr().err


def test_truncated_mp4_is_an_error(tmp_path, monkeypatch):
    """As from a disk that is full when ffmpeg writes its last frames."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setattr(ffmpeg, "count_frames_and_secs", lambda path: (5, 0.5))
    with pytest.raises(UserError, match="ffmpeg failed to write 6 frames"):
        film.write(tmp_path / "x.mp4", moving_bar(6), fps=10)


def test_mp4_is_written_without_a_fork_beside_jax(tmp_path, recwarn):
    """JAX warns of forks: warnings are errors in these tests."""
    pytest.importorskip("imageio_ffmpeg")
    jax.numpy.zeros(1).block_until_ready()
    film.write(tmp_path / "x.mp4", moving_bar(3), fps=10)
    assert not recwarn.list


def test_caption_covers_a_corner_and_is_legible():
    ground = np.full((64, 96, 3), 200, np.uint8)
    texts = ["target 2900", "return 12.5", "step 7"]
    frame = film.add_caption(ground, texts, SIZE)
    assert frame.shape == ground.shape
    changed = (frame != ground).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() < 5
    assert columns.min() < 5
    assert columns.max() < 96 - 1  # inside the frame
    assert rows.max() < 64 - 1
    assert frame.max() == 255  # the text
    assert frame[changed].min() < 120  # its background
    other = film.add_caption(ground, [*texts[:2], "step 8"], SIZE)
    assert (other != frame).any()


def test_frames_of_another_size_are_scaled_and_padded():
    frame = film.add_caption(np.full((30, 30, 3), 90, np.uint8), ["x"], SIZE)
    assert frame.shape == (64, 96, 3)
    assert (frame[-1, [0, -1]] == 0).all()  # full height, bars at the sides
    assert (frame[-1, 48] == 90).all()


def test_unsupported_format_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"x.avi: expected a name that ends in .mp4 or"):
        film.check_format(tmp_path / "x.avi")
    film.check_format(tmp_path / "x.GIF")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(
        UserError, match=r"x.mp4: an .mp4 needs imageio-ffmpeg: pip install 'dt_j"
    ):
        film.check_format(tmp_path / "x.mp4")
