"""Dataset downloads: locked, retried, validated and with a SHA-256 record."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pooch

from dt_jax.data.cache import cache_lock, download_folder, record_sha256, sha256_of
from dt_jax.utils.errors import UserError

_RETRIES = 2
_CHUNK_BYTES = 1 << 16


def download(url: str, path: Path, check: Callable[[Path], object]) -> None:
    """Download `url` to `path`, which then exists as a whole or not at all.

    The file gets its final name, and `<name>.sha256` beside it, after it has passed
    `check`. If two processes request the same file, the second waits for the first. An
    existing file is kept.

    Args:
      url: http:// or https://.
      path: the final path.
      check: called with the path of the downloaded file; raises a UserError if the file
        is unusable.

    Raises:
      UserError: the download or the check failed.
    """
    folder = download_folder(path)
    with cache_lock(path, "downloading"):
        if path.exists():
            return
        try:
            file = _fetch(url, folder)
            check(file)
            file.chmod(0o644)  # pooch makes it private, but the cache may be shared
            # The record first: a downloaded file is never without one.
            record_sha256(path, sha256_of(file))
            file.replace(path)
        except (UserError, OSError, ValueError) as error:  # requests raises OSErrors
            reason = " ".join(str(error).split()).replace(f"{folder}/", "")
            raise UserError(
                f"{url}: download failed ({reason}); copy the file to {path}, or set "
                "data_path to another one"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _fetch(url: str, folder: Path) -> Path:
    """Download a file into `folder`, with a progress bar on a terminal."""
    base_url, _, name = url.rpartition("/")
    print(f"downloading {url}", flush=True)
    pooch.get_logger().setLevel("WARNING")  # an error is one line on stderr
    files = pooch.create(
        folder, f"{base_url}/", registry={name: None}, retry_if_failed=_RETRIES
    )
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), chunk_size=_CHUNK_BYTES
    )
    return Path(files.fetch(name, downloader=downloader))
