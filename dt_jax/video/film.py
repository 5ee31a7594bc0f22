"""Pictures with captions, one after the other, as an .mp4 or a .gif."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryFile

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dt_jax.utils.errors import UserError

# Pictures a second at most, where nothing else is asked for.
FPS = {".mp4": 30.0, ".gif": 10.0}
_SMALLEST_FONT = 11  # pixels


def check_format(path: Path) -> None:
    """Raise a UserError unless a film can be written to a file of this name."""
    if path.suffix.lower() not in FPS:
        raise UserError(f"{path}: expected a name that ends in {' or '.join(FPS)}")
    if path.suffix.lower() == ".mp4":
        _ffmpeg(path)


def _ffmpeg(path: Path) -> str:
    """Return the program that writes `path`."""
    try:
        found: str = import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except ImportError:
        raise UserError(
            f"{path}: an .mp4 takes imageio-ffmpeg: pip install 'dt_jax[video]', or "
            "let the name end in .gif"
        ) from None
    return found


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
      UserError: imageio-ffmpeg is missing, or can't write it.
    """
    if path.suffix.lower() == ".gif":
        images = _gif_images(pictures)
        milliseconds = 10 * max(2, round(100 / fps))  # shorter ones are shown as 100
        next(images).save(
            path, save_all=True, append_images=images, duration=milliseconds, loop=0
        )
        return
    _write_mp4(path, pictures, fps, size)


def _write_mp4(
    path: Path, pictures: Iterable[np.ndarray], fps: float, size: tuple[int, int]
) -> None:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*size)]
    film = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    # Not imageio_ffmpeg.write_frames: its os.fork has JAX warn of a deadlock.
    command = [_ffmpeg(path), "-y", "-loglevel", "error"]
    command += [*raw, "-r", f"{fps:.6f}", "-i", "-", *film, str(path.absolute())]
    with TemporaryFile() as said:
        with Popen(command, stdin=PIPE, stdout=said, stderr=said) as process:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin as pipe:  # it says why
                for picture in pictures:
                    pipe.write(picture.tobytes())
        if process.returncode:
            said.seek(0)
            why = " ".join(said.read().decode(errors="replace").split())[-300:]
            raise UserError(f"ffmpeg could not write {path}: {why}")


def _gif_images(pictures: Iterable[np.ndarray]) -> Iterator[Image.Image]:
    """Yield images with the colours that each has the most need of."""
    for picture in pictures:
        yield Image.fromarray(picture).quantize(128, dither=Image.Dither.NONE)


def captioned(
    picture: np.ndarray, texts: Sequence[str], size: tuple[int, int]
) -> np.ndarray:
    """Return a picture with texts in its upper left corner.

    Args:
      picture: [h, w, 3] uint8, fitted into `size`.
      texts: set side by side, in as many lines as it takes.
      size: width and height.
    """
    canvas = Image.fromarray(picture)
    if canvas.size != size:
        canvas = ImageOps.pad(canvas, size)
    points = max(_SMALLEST_FONT, min(size) // 26)
    font, margin = ImageFont.load_default(points), points // 2
    lines: list[str] = []
    for text in texts:
        longer = f"{lines[-1]}   {text}" if lines else ""
        if longer and font.getlength(longer) <= size[0] - 2 * margin:
            lines[-1] = longer
        else:
            lines.append(text)
    draw = ImageDraw.Draw(canvas, "RGBA")
    where, block = (margin, margin), "\n".join(lines)
    left, top, right, bottom = draw.multiline_textbbox(where, block, font=font)
    box = left - margin, top - margin, right + margin, bottom + margin
    draw.rectangle(box, fill=(0, 0, 0, 150))
    draw.multiline_text(where, block, font=font, fill=(255, 255, 255, 255))
    return np.asarray(canvas)
