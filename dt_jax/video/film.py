"""Captions, and video files: .mp4 by imageio, .gif by Pillow."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dt_jax.utils.errors import UserError
from dt_jax.video.view import Size

MAX_FPS = {".mp4": 30.0, ".gif": 10.0}  # the default maximum of frames per second
_MIN_FONT_SIZE = 11  # pixels


def check_format(path: Path) -> None:
    """Raise a UserError if no video can be written to a file of this name."""
    suffix = path.suffix.lower()
    if suffix not in MAX_FPS:
        raise UserError(f"{path}: expected a name that ends in {' or '.join(MAX_FPS)}")
    if suffix == ".mp4" and not (find_spec("imageio") and find_spec("imageio_ffmpeg")):
        raise UserError(
            f"{path}: an .mp4 needs imageio-ffmpeg: pip install 'dt_jax[video]', or "
            "choose a name that ends in .gif"
        )


def write(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write a video and return the number of frames that the file has.

    A GIF has equal frames in a row only once, shown for longer.

    Args:
      path: ends in .mp4 (H.264) or .gif.
      frames: at least one, [height, width, 3] uint8; even sizes for an .mp4.
      fps: frames per second; a GIF rounds the time of a frame to 1/100 s.

    Raises:
      UserError: ffmpeg cannot write the file.
    """
    if path.suffix.lower() == ".gif":
        return _write_gif(path, frames, fps)
    return _write_mp4(path, frames, fps)


def _write_gif(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write a GIF, each frame with its own palette, without holding all frames."""
    images = (
        Image.fromarray(frame).quantize(128, dither=Image.Dither.NONE)
        for frame in frames
    )
    milliseconds = 10 * max(2, round(100 / fps))  # browsers show less than 20 as 100
    next(images).save(
        path, save_all=True, append_images=images, duration=milliseconds, loop=0
    )
    with Image.open(path) as written:
        return getattr(written, "n_frames", 1)


def _write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    # imageio-ffmpeg would fork to shield ffmpeg from Ctrl-C, and JAX's threads make a
    # fork unsafe: JAX warns of a deadlock.
    os.environ["IMAGEIO_FFMPEG_NO_PREVENT_SIGINT"] = "1"
    writer = import_module("imageio.v2").get_writer(
        path,
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        quality=None,  # x264's own default
        pixelformat="yuv420p",  # the only one that browsers play
        macro_block_size=1,  # otherwise sizes are rounded up to multiples of 16
        output_params=["-movflags", "+faststart"],
        ffmpeg_log_level="error",
    )
    count, written = 0, None
    with suppress(OSError, RuntimeError):  # reported below
        with writer:
            for frame in frames:
                writer.append_data(frame)
                count += 1
        # imageio ignores ffmpeg's exit status, for example if the disk is full.
        written, _ = import_module("imageio_ffmpeg").count_frames_and_secs(path)
    if written != count:
        raise UserError(
            f"{path}: ffmpeg failed to write {count} frames; check the free disk "
            "space, or choose a name that ends in .gif"
        )
    return count


def add_caption(frame: np.ndarray, texts: Sequence[str], size: Size) -> np.ndarray:
    """Return a frame [h, w, 3], scaled and padded to `size`, with texts in its corner.

    They are set side by side, in as many lines as needed.
    """
    image = Image.fromarray(frame)
    if image.size != size:
        image = ImageOps.pad(image, size)
    font_size = max(_MIN_FONT_SIZE, min(size) // 26)
    font, margin = ImageFont.load_default(font_size), font_size // 2
    lines: list[str] = []
    for text in texts:
        longer = f"{lines[-1]}   {text}" if lines else ""
        if longer and font.getlength(longer) <= size[0] - 2 * margin:
            lines[-1] = longer
        else:
            lines.append(text)
    draw = ImageDraw.Draw(image, "RGBA")
    corner, block = (margin, margin), "\n".join(lines)
    left, top, right, bottom = draw.multiline_textbbox(corner, block, font=font)
    box = left - margin, top - margin, right + margin, bottom + margin
    draw.rectangle(box, fill=(0, 0, 0, 150))
    draw.multiline_text(corner, block, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)
