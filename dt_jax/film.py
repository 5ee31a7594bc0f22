"""Pictures with captions, one after the other, as an .mp4 or a .gif."""

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dt_jax.errors import UserError

# Pictures a second at most, where nothing else is asked for.
FPS = {".mp4": 30.0, ".gif": 10.0}
_SMALLEST_FONT = 11  # pixels


def check_format(path: Path) -> None:
    """Raise a UserError unless a film can be written to a file of this name."""
    if path.suffix.lower() not in FPS:
        raise UserError(f"{path}: expected a name that ends in {' or '.join(FPS)}")
    _package("PIL.Image")
    if path.suffix.lower() == ".mp4":
        _package("imageio_ffmpeg")


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UserError(
            f"{name.partition('.')[0]} is missing: pip install 'dt_jax[video]'"
        ) from None


def write(
    path: Path, pictures: Iterable[np.ndarray], fps: float, size: tuple[int, int]
) -> None:
    """Write a film.

    Args:
      path: ends in .mp4 (H.264) or .gif.
      pictures: [height, width, 3] uint8, one at least.
      fps: pictures a second; a GIF has whole hundredths of a second for each.
      size: width and height; even, for an .mp4.

    Raises:
      UserError: a package is missing.
    """
    if path.suffix.lower() == ".gif":
        images = _gif_images(pictures)
        milliseconds = 10 * max(2, round(100 / fps))  # shorter ones are shown as 100
        next(images).save(
            path, save_all=True, append_images=images, duration=milliseconds, loop=0
        )
        return
    writer = _package("imageio_ffmpeg").write_frames(
        str(path), size, fps=fps, quality=7, macro_block_size=2
    )
    writer.send(None)
    try:
        for picture in pictures:
            writer.send(np.ascontiguousarray(picture))
    finally:
        writer.close()


def _gif_images(pictures: Iterable[np.ndarray]) -> Iterator[Any]:
    """Yield images with the colours that each has the most need of."""
    image = _package("PIL.Image")
    for picture in pictures:
        yield image.fromarray(picture).quantize(128, dither=image.Dither.NONE)


def captioned(
    picture: np.ndarray, texts: Sequence[str], size: tuple[int, int]
) -> np.ndarray:
    """Return a picture with texts in its upper left corner.

    Args:
      picture: [h, w, 3] uint8, fitted into `size`.
      texts: set side by side, in as many lines as it takes.
      size: width and height.
    """
    image, ops = _package("PIL.Image"), _package("PIL.ImageOps")
    draws, fonts = _package("PIL.ImageDraw"), _package("PIL.ImageFont")
    canvas = image.fromarray(picture)
    if canvas.size != size:
        canvas = ops.pad(canvas, size)
    points = max(_SMALLEST_FONT, min(size) // 26)
    font, margin = fonts.load_default(points), points // 2
    lines: list[str] = []
    for text in texts:
        longer = f"{lines[-1]}   {text}" if lines else ""
        if longer and font.getlength(longer) <= size[0] - 2 * margin:
            lines[-1] = longer
        else:
            lines.append(text)
    draw = draws.Draw(canvas, "RGBA")
    where, block = (margin, margin), "\n".join(lines)
    left, top, right, bottom = draw.multiline_textbbox(where, block, font=font)
    box = left - margin, top - margin, right + margin, bottom + margin
    draw.rectangle(box, fill=(0, 0, 0, 150))
    draw.multiline_text(where, block, font=font, fill=(255, 255, 255, 255))
    return np.asarray(canvas)
