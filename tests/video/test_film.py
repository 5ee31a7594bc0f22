import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dt_jax.utils.errors import UserError
from dt_jax.video import film

SIZE = 96, 64


def slide(steps):
    """Yield a bright bar that goes over a dark ground."""
    for i in range(steps):
        picture = np.full((64, 96, 3), 40, np.uint8)
        picture[:, 10 * i : 10 * i + 8] = 250, 120, 10
        yield picture


def test_a_gif_shows_every_picture_for_its_time(tmp_path):
    path = tmp_path / "x.GIF"
    film.write(path, slide(6), fps=12.5, size=SIZE)
    with Image.open(path) as image:
        assert image.n_frames == 6
        assert image.info["loop"] == 0  # for ever
        assert image.size == SIZE
        for i, picture in enumerate(slide(6)):
            image.seek(i)
            assert image.info["duration"] == 80
            shown = np.asarray(image.convert("RGB"), int)
            assert np.abs(shown - picture).max() < 12
    film.write(path, slide(6), fps=100, size=SIZE)
    with Image.open(path) as image:
        assert image.info["duration"] == 20  # browsers show shorter ones for 100


def test_an_mp4_shows_every_picture(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "x.mp4"
    film.write(path, slide(6), fps=12.5, size=SIZE)
    raw = "-f", "rawvideo", "-pix_fmt", "rgb24", "-"
    command = [ffmpeg.get_ffmpeg_exe(), "-i", str(path), *raw]
    read = subprocess.run(command, capture_output=True, check=True)
    assert re.search(rb"h264.* yuv420p\W", read.stderr)  # which browsers play
    assert b"96x64" in read.stderr
    assert b"12.50 fps" in read.stderr
    shown = np.frombuffer(read.stdout, np.uint8).reshape(-1, 64, 96, 3).astype(int)
    assert len(shown) == 6
    for picture, frame in zip(slide(6), shown, strict=True):
        assert np.abs(frame - picture).mean() < 12


def test_what_ffmpeg_says_is_told(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(UserError, match=r"ffmpeg could not write .*No such file"):
        film.write(tmp_path / "nowhere/x.mp4", slide(9), fps=10, size=SIZE)


def test_a_caption_covers_a_corner_and_can_be_read():
    ground = np.full((64, 96, 3), 200, np.uint8)
    texts = ["target 2900", "return 12.5", "step 7"]
    picture = film.captioned(ground, texts, SIZE)
    assert picture.shape == ground.shape
    changed = (picture != ground).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() < 5
    assert columns.min() < 5
    assert columns.max() < 96 - 1  # all of it is inside
    assert rows.max() < 64 - 1
    assert picture.max() == 255  # the letters
    assert picture[changed].min() < 120  # what is behind them
    other = film.captioned(ground, [*texts[:2], "step 8"], SIZE)
    assert (other != picture).any()


def test_pictures_of_another_size_are_fitted_in():
    picture = film.captioned(np.full((30, 30, 3), 90, np.uint8), ["x"], SIZE)
    assert picture.shape == (64, 96, 3)
    assert (picture[-1, [0, -1]] == 0).all()  # as high as it gets, with bars beside it
    assert (picture[-1, 48] == 90).all()


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"x.avi: expected a name that ends in .mp4 or"):
        film.check_format(tmp_path / "x.avi")
    film.check_format(tmp_path / "x.GIF")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(
        UserError, match=r"x.mp4: an .mp4 takes imageio-ffmpeg: pip install 'dt_j"
    ):
        film.check_format(tmp_path / "x.mp4")
