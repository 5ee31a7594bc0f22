"""Layout of the page in a browser, at the width of a desktop and of a phone."""

import json
import re
import shutil
import subprocess

import pytest
from run_folders import DATASET, make_config, make_run, start_run

from dt_jax.analysis.report import build_report, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

MEASURE = """
<!doctype html><title>-</title><body style="margin: 0">
<iframe src="index.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>
<script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument;
  const root = page.documentElement;
  const box = element => element.getBoundingClientRect();
  const size = img => [
    img.naturalWidth, box(img).width, box(img).height, box(img).right];
  const found = {
    width: root.clientWidth,
    content: root.scrollWidth,
    images: [...page.images].map(size),
    tables: [...page.querySelectorAll(".wide")].map(div => [
      box(div).right, div.scrollWidth, box(div.firstChild).width]),
    font: parseFloat(getComputedStyle(page.querySelector("td")).fontSize),
    sizes: [...page.querySelectorAll("h1, h2, p, li")].map(e => box(e).right),
    background: getComputedStyle(page.body).backgroundColor,
  };
  document.body.textContent = "<<" + JSON.stringify(found) + ">>";
});
</script>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report on several seeds, data with a long name, and a new run."""
    folder = tmp_path_factory.mktemp("browser")
    make_run(folder / "runs/a", scores=(60.0, 66.0), eval_every=20_000)
    word = DATASET | {"source": 200 * "w" + ".hdf5"}
    make_run(folder / "runs/b", data_path="x", dataset=word, eval_every=50_000)
    start_run(folder / "runs/c", make_config("walker2d-medium-v2"))
    write_report(build_report(sorted((folder / "runs").iterdir())), folder)
    return folder


def measure(folder, width, *flags):
    """Return sizes in the report, measured by a page that has it in a frame."""
    (folder / "measure.html").write_text(MEASURE.replace("WIDTH", str(width)))
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
        "--allow-file-access-from-files",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={max(width, 800)},1000",
        *flags,
        (folder / "measure.html").as_uri(),
    ]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search("&lt;&lt;(.*)&gt;&gt;", result.stdout)
    assert found, result.stdout[-500:] + result.stderr[-500:]
    found = json.loads(found[1])
    assert found["width"] == width
    return found


@pytest.fixture(scope="module", params=[1280, 390])
def layout(folder, request):
    return measure(folder, request.param)


def test_nothing_is_wider_than_the_window(layout):
    width = layout["width"]
    assert layout["content"] == width
    assert max(layout["sizes"]) <= width
    for right, _, _ in layout["tables"]:
        assert right <= width  # a wide table scrolls in its own box
    assert layout["font"] >= 14
    assert layout["background"] == "rgb(255, 255, 255)"


def test_plots_are_shown(layout):
    width, images = layout["width"], layout["images"]
    assert len(images) == 6
    for natural, wide, high, right in images:
        assert natural > 300  # the browser decoded it
        assert wide > 300
        assert 0.7 < high / wide < 1
        assert right <= width
    columns = {round(right) for *_, right in images}
    assert len(columns) == (3 if width == 1280 else 1)


def test_dark_mode(folder):
    dark = measure(folder, 390, "--blink-settings=preferredColorScheme=0")
    assert dark["background"] == "rgb(20, 24, 30)"
