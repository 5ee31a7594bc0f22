"""The documentation: its code runs; its commands, keys, links and paths exist."""

import ast
import json
import re
import runpy
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pytest

import dt_jax
from dt_jax.agents import agent_names
from dt_jax.agents.optim import OPTIMIZER_KEYS
from dt_jax.config import default_config
from dt_jax.config.flags import parse
from dt_jax.config.keys import sections_of
from dt_jax.data.registry import lookup

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE_COMMAND = re.compile(r"`(python [^`]+)`")
QUICKSTART = """\
from dt_jax.config import default_config

def get_config():
    return default_config(
        name="quickstart",
        env_name="halfcheetah-demo",
        data_path="data.hdf5",
        embedding_dim=8,
        num_layers=1,
        seq_len=3,
        batch_size=4,
        update_steps=2,
        eval_every=2,
        eval_episodes=1,
        target_returns=(400.0, 2900.0),
    )
"""


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of a language, each with its first line number."""
    text = page.read_text()
    return [
        (text.count("\n", 0, block.start(2)) + 1, block[2])
        for block in FENCE.finditer(text)
        if block[1] == language
    ]


def page_name(page: Path) -> str:
    """Return the name of a page as tests show it."""
    return str(page.relative_to(ROOT))


def commands() -> list[list[str]]:
    """Return the words after `python` of every command on any page."""
    lines = [
        line
        for page in PAGES
        for _, block in blocks(page, "")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in split if words[:1] == ["python"]]


def train_commands() -> list[list[str]]:
    """Return the arguments of every command that trains."""
    found = commands()
    trains = [words[1:] for words in found if words[0] == "launch.py"]
    module = ["-m", "dt_jax", "train"]
    return trains + [words[3:] for words in found if words[:3] == module]


def run_command(verb: str, *arguments: str) -> None:
    """Run `python -m dt_jax VERB ...` in this process."""
    module = verb.replace("import", "import_")
    import_module(f"dt_jax.cli.{module}").main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the files that the pages' examples read.

    configs/quickstart.py there is a tiny run, and shadows ours.
    """
    folder = tmp_path_factory.mktemp("docs")
    spec, rng, rows = lookup("halfcheetah-demo"), np.random.default_rng(0), 60
    with h5py.File(folder / "data.hdf5", "w") as file:
        file["observations"] = rng.standard_normal((rows, spec.observation_size))
        file["actions"] = rng.uniform(-1, 1, (rows, spec.action_size))
        file["rewards"] = rng.uniform(0, 100, rows)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(rows) % 20 == 19
    (folder / "configs").mkdir()
    (folder / "configs/quickstart.py").write_text(QUICKSTART)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = dt_jax.load_config("configs/quickstart.py")
        dt_jax.train(config, "runs/quickstart")
        run_command("export", "runs/quickstart", "--to=safetensors", "--out=exported")
        maze = "antmaze-medium-play"
        run_command("collect", f"{maze}-demo", "--steps=2000", f"--out={maze}.hdf5")
    return folder


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python")], ids=page_name
)
def test_python_examples_run(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"__name__": page.stem}
    for line, code in blocks(page, "python"):
        # The line breaks let a traceback name the page and the line.
        exec(compile("\n" * (line - 1) + code, page, "exec"), names)


def test_train_commands_are_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # configs/... are found in the package
    _, agent = blocks(ROOT / "docs/extending.md", "python")[0]
    Path("my_bc.py").write_text(agent)
    trains = train_commands()
    assert len(trains) > 15
    for arguments in trains:
        parse(arguments)


@pytest.mark.slow
def test_own_data_example_learns(folder):
    """Run the example's code and command as they are, in a folder of their own."""
    run = folder / "own"
    run.mkdir()
    code = blocks(ROOT / "docs/datasets.md", "python")[0][1]
    subprocess.run([sys.executable, "-c", code], cwd=run, check=True)
    (arguments,) = [w for w in train_commands() if "--config.data_path=point.npz" in w]
    arguments = [word.replace("configs/", f"{ROOT}/configs/") for word in arguments]
    command = [sys.executable, ROOT / "launch.py", *arguments]
    subprocess.run(command, cwd=run, check=True)
    lines = (run / "runs/point/metrics.jsonl").read_text().splitlines()
    metric = "eval/holdout_action_mse"
    errors = [row[metric] for row in map(json.loads, lines) if metric in row]
    assert len(errors) == 5
    assert errors[0] > 0.05
    assert errors[-1] < 0.015  # 0.01 is the variance of the action noise


def test_options_of_other_commands_exist(capsys):
    inline = [
        shlex.split(command)[1:]
        for page in PAGES
        for command in INLINE_COMMAND.findall(page.read_text())
    ]
    helps, checked = {}, set()
    for words in [*commands(), *inline]:
        is_command = words[:2] == ["-m", "dt_jax"] and words[2:3] != []
        if not is_command or words[2] in ("train", "--version"):
            continue
        verb = tuple(words[2:4] if words[2] == "data" else words[2:3])
        if verb not in helps:
            with pytest.raises(SystemExit):
                run_command(*verb, "--help")
            helps[verb] = capsys.readouterr().out
        for option in re.findall(r"--(?!config\.)\w+", " ".join(words)):
            assert option in helps[verb], words
            checked.add((verb, option))
    assert len(checked) > 15


def test_benchmarks_in_commands_exist():
    text = "".join(page.read_text() for page in PAGES)
    files = set(re.findall(r"python (benchmarks/\w+\.py)", text))
    assert len(files) > 8
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_key_table_has_every_key_with_its_default():
    table = runpy.run_path(str(ROOT / "docs/hooks.py"))["key_tables"]()
    row = r"^\| `(\w+)` \| `(.+?)` \|(?: ✓? ?\|){2} (.+) \|$"
    rows = re.findall(row, table, re.MULTILINE)
    defaults = {key: ast.literal_eval(value) for key, value, _ in rows}
    assert defaults == default_config().to_dict()
    assert all(comment for *_, comment in rows)
    assert "{{ configuration keys }}" in (ROOT / "docs/configuration.md").read_text()


@pytest.mark.parametrize("agent", ["bc", "iql", "cql"])
def test_page_of_an_agent_has_its_keys_with_their_defaults(agent):
    page = (ROOT / f"docs/algorithms/{agent}.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| ", page, re.MULTILINE)
    config = default_config(agent)
    assert {key: ast.literal_eval(value) for key, value in rows} == {
        key.name: config[key.name]
        for key in sections_of(agent)[f"The agent, {agent}"]
        if key not in OPTIMIZER_KEYS
    }


def test_configuration_page_names_every_option_of_corl():
    page = (ROOT / "docs/configuration.md").read_text()
    options = json.loads((ROOT / "tests/data/corl_hyperparameters.json").read_text())
    assert set(options["hopper-medium-v2"]) <= set(re.findall(r"`(\w+)`", page))


def test_site_builds_without_warnings_and_loads_nothing_external(tmp_path):
    """Strict: every page is in the navigation, and every link and anchor resolves."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(
        [*build, f"--site-dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    assert "{{" not in (tmp_path / "configuration.html").read_text()
    for page in tmp_path.rglob("*.html"):
        text = page.read_text()
        assert "](http" not in text, page  # a link that Markdown did not recognise
        tags = re.findall(r"<(?:img|link|script) [^>]+>", text)
        urls = [
            url for tag in tags for url in re.findall(r'(?:src|href)="?([^" >]+)', tag)
        ]
        assert urls
        assert not [url for url in urls if url.startswith(("http", "//"))], page


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_keys_paths_and_links_exist(page):
    text = page.read_text()
    keys = re.findall(r"--config\.([a-z]\w*)", text)
    known = {key for agent in agent_names() for key in default_config(agent)}
    assert set(keys) <= known
    for name in re.findall(r"`((?:tests|benchmarks|dt_jax)/[\w./]*)`", text):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target


def test_run_folder_table_matches_a_run(folder):
    page = (ROOT / "docs/quickstart.md").read_text()
    table = page.partition("## The run folder")[2].partition("\n## ")[0]
    paths = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(paths) == 6
    for path in paths:
        pattern = path.replace("<step>", "*").rstrip("/")
        assert list((folder / "runs/quickstart").glob(pattern)), path
