"""What the docs say is tried: their code, commands, options, links and paths."""

import ast
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from dt_jax.config.rules import RULES

from dt_jax.config import default_config
from dt_jax.config.flags import parse
from dt_jax.data.registry import lookup
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.resume import MAY_CHANGE
from dt_jax.training.train import train

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def fenced(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of a language, each with its first line's number."""
    text = page.read_text()
    return [
        (text.count("\n", 0, block.start(2)) + 1, block[2])
        for block in FENCE.finditer(text)
        if block[1] == language
    ]


def commands() -> list[list[str]]:
    """Return the words of every `python ...` command on any page."""
    lines = [
        line
        for page in PAGES
        for _, block in fenced(page, "")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in found if words[:1] == ["python"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the pages' code runs: runs/quickstart is there, barely trained."""
    folder = tmp_path_factory.mktemp("docs")
    spec, rng, rows = lookup("halfcheetah-demo"), np.random.default_rng(0), 60
    with h5py.File(folder / "data.hdf5", "w") as file:
        file["observations"] = rng.standard_normal((rows, spec.observation_size))
        file["actions"] = rng.uniform(-1, 1, (rows, spec.action_size))
        file["rewards"] = rng.standard_normal(rows)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(rows) % 20 == 19
    config = default_config(
        env_name=spec.name,
        data_path=str(folder / "data.hdf5"),
        embedding_dim=8,
        num_layers=1,
        seq_len=3,
        batch_size=4,
        update_steps=2,
        eval_episodes=0,
    )
    run = folder / "runs/quickstart"
    train(config.lock(), run)
    scores = rng.standard_normal(
        (2, 3)
    )  # an evaluation would take longer than all else
    Evaluation(np.array([400.0, 2900.0]), np.arange(3), scores, scores, scores).save(
        run / "eval/2.npz"
    )
    return folder


@pytest.mark.parametrize(
    "page", [p for p in PAGES if fenced(p, "python")], ids=lambda page: page.name
)
def test_the_code_of_a_page_runs(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"__name__": page.stem}
    for line, code in fenced(page, "python"):
        # Where it fails, the traceback then names the page and the line.
        exec(compile("\n" * (line - 1) + code, page, "exec"), names)


def test_launch_takes_every_command(monkeypatch):
    monkeypatch.chdir(ROOT)
    launches = [words for words in commands() if words[0] == "launch.py"]
    assert len(launches) > 3
    for words in launches:
        parse(words)


@pytest.mark.slow
def test_the_example_of_own_data_is_made_and_trained_on(folder):
    """As it stands on the page, in a folder of one's own."""
    page = ROOT / "docs/data.md"
    run = folder / "own"
    run.mkdir()
    made = fenced(page, "python")[0][1]
    subprocess.run([sys.executable, "-c", made], cwd=run, check=True)
    (launch,) = [w for w in commands() if "--config.data_path=point.npz" in w]
    command = [word.replace("configs/", f"{ROOT}/configs/") for word in launch[1:]]
    subprocess.run([sys.executable, ROOT / "launch.py", *command], cwd=run, check=True)
    rows = read_metrics(run / "runs/point/metrics.jsonl")
    errors = [row[HOLDOUT_METRIC] for row in rows if HOLDOUT_METRIC in row]
    assert len(errors) == 5
    assert errors[0] > 0.05
    assert errors[-1] < 0.015  # 0.01 is the noise in the actions


def test_the_other_commands_have_their_options():
    checked = 0
    for program, *words in commands():
        if program == "-m" and words[0].startswith("dt_jax."):
            path = ROOT / words[0].replace(".", "/")
            source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
            for option in re.findall(r"--\w+", " ".join(words)):
                assert f'"{option}"' in source.read_text(), f"{source}: {option}"
                checked += 1
        elif program.endswith(".py"):
            assert (ROOT / program).is_file(), program
    assert checked > 3


def test_the_configuration_page_has_every_key_at_its_default():
    keys = runpy.run_path(str(ROOT / "docs/hooks.py"))["keys"]
    table = keys((ROOT / "configs/default.py").read_text())
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| (.+) \|$", table, re.MULTILINE)
    shown = {key: ast.literal_eval(value) for key, value, _ in rows}
    assert shown == default_config().to_dict()
    assert list(shown) == list(RULES)
    assert all(what for *_, what in rows)
    assert "{{ configs/default.py }}" in (ROOT / "docs/configuration.md").read_text()


def test_the_options_page_has_corls_keys():
    page = (ROOT / "docs/options.md").read_text()
    values = json.loads((ROOT / "tests/data/corl_hyperparameters.json").read_text())
    assert set(values["hopper-medium-v2"]) <= set(re.findall(r"`(\w+)`", page))


def test_the_site_is_built(tmp_path):
    """Strictly: every page is in it, and every link and anchor leads somewhere."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    made = subprocess.run(
        [*build, f"--site-dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert "{{" not in (tmp_path / "configuration.html").read_text()
    for page in tmp_path.glob("*.html"):
        text = page.read_text()
        assert "](http" not in text, page  # a link that was not taken for one
        # What the pages load comes with them.
        tags = re.findall(r"<(?:img|link|script) [^>]+>", text)
        loaded = [
            u for tag in tags for u in re.findall(r'(?:src|href)="?([^" >]+)', tag)
        ]
        assert loaded
        assert not [url for url in loaded if url.startswith(("http", "//"))], page


@every_page
def test_the_keys_exist(page):
    keys = re.findall(r"--config\.([a-z]\w*)", page.read_text())
    assert set(keys) <= set(default_config())


@every_page
def test_nothing_is_left_to_be_filled_in(page):
    assert "<!--" not in page.read_text()


@every_page
def test_the_tests_that_it_names_exist(page):
    for name in re.findall(r"`(tests/[^`]+)`", page.read_text()):
        file, _, test = name.partition("::")
        assert (ROOT / file).exists(), name
        assert not test or f"def {test}(" in (ROOT / file).read_text(), name


def test_the_keys_that_may_change_in_a_run():
    page = (ROOT / "docs/reliability.md").read_text()
    listed = page.partition("These may change:")[2].partition("A run's folder")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == MAY_CHANGE


@every_page
def test_the_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not re.match(r"https?://", target):
            assert (page.parent / target).exists(), target


def test_the_paths_in_the_readme_exist(folder):
    _, here, rest = (ROOT / "README.md").read_text().partition("## What is where")
    checkout, between, run = rest.partition("\n## ")[0].partition("in a run's folder")
    assert here
    assert between
    for top, table in [(ROOT, checkout), (folder / "runs/quickstart", run)]:
        cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        assert len(cells) > 5
        for path in re.findall(r"`(.+?)`", " ".join(cells)):
            assert (top / path).exists(), path
