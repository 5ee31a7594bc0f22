"""What is built from the checkout works away from it."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
from zipfile import ZipFile

import pytest
import yaml
from command import ROOT

import dt_jax

CONSTRAINTS = ROOT / "constraints.txt"
SMALL = [
    "--config=configs/hopper.py:medium",
    "--config.embedding_dim=8",
    "--config.num_layers=1",
    "--config.seq_len=3",
    "--config.batch_size=4",
]


def succeed(*command, cwd):
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the sdist, and the wheel from it; return their paths."""
    folder = tmp_path_factory.mktemp("built")
    # Without what is not the repository's: a build may not live on leftovers.
    checkout = folder / "checkout"
    for name in tracked():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    succeed(
        *(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder),
        checkout,
        cwd=folder,
    )
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def tracked():
    """Return the files of the repository as they are here, new ones too."""
    git = "git", "ls-files", "--cached", "--others", "--exclude-standard"
    names = set(succeed(*git, cwd=ROOT).splitlines())
    return [name for name in names if (ROOT / name).exists()]


def empty_environment(folder):
    """Make a virtual environment; return its Python, and how to call its pip."""
    succeed(sys.executable, "-m", "venv", "--without-pip", folder, cwd=ROOT)
    python = folder / "bin/python"
    return python, [sys.executable, "-m", "pip", "--python", python, "install", "-q"]


def test_the_wheel_has_what_the_package_and_the_configs_have(built):
    with ZipFile(built["wheel"]) as wheel:
        shipped = {n for n in wheel.namelist() if ".dist-info/" not in n}
    expected = {name for name in tracked() if name.startswith("dt_jax/")}
    configs = {name for name in tracked() if name.startswith("configs/")}
    assert shipped == expected | {f"dt_jax/shipped/{name}" for name in configs}
    assert "dt_jax/py.typed" in shipped
    assert any(name.endswith("policies/hopper.npz") for name in shipped)


def test_there_is_one_version(built):
    assert built["wheel"].name.startswith(f"dt_jax-{dt_jax.__version__}-")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == dt_jax.__version__


def test_the_sdist_has_the_tests_and_the_docs(built):
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "Makefile", "constraints.txt", "launch.py"} <= names
    assert {"docs/datasets.md", "tests/conftest.py", "benchmarks/rollout.py"} <= names


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_runs_away_from_the_checkout(kind, built, tmp_path):
    """With this environment's libraries, for to install them takes a minute."""
    wheel = built["wheel"]
    if kind == "sdist":
        pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
        succeed(*pip, "--no-build-isolation", built["sdist"], cwd=tmp_path)
        (wheel,) = tmp_path.glob("*.whl")
    python, install = empty_environment(tmp_path / "env")
    succeed(*install, "--no-deps", wheel, cwd=tmp_path)
    (libraries,) = (tmp_path / "env").glob("lib/python*/site-packages")
    # A path in a .pth file, whose own .pth files, the checkout's, are not looked at.
    (libraries / "more.pth").write_text(sysconfig.get_path("purelib") + "\n")
    succeed(python, "-c", "import dt_jax; print(dt_jax.__file__)", cwd=tmp_path)
    said = succeed(python, "-m", "dt_jax", "train", "--help", cwd=tmp_path)
    assert "python -m dt_jax train --config=configs/hopper.py:medium" in said
    configs = libraries.relative_to(tmp_path) / "dt_jax/shipped/configs"
    assert f"Our configurations are in {configs}." in said
    (tmp_path / "mine.py").write_text(
        "from configs import hopper\n"
        "def get_config():\n"
        "    config = hopper.get_config('demo')\n"
        "    config.embedding_dim = 8\n"
        "    return config\n"
    )
    said = succeed(
        *(python, "-m", "dt_jax", "train", "--dry_run", "--config=mine.py"),
        cwd=tmp_path,
    )
    assert "dry run: hopper-demo reset and stepped" in said


@pytest.mark.slow
def test_it_trains_in_an_empty_environment(built, tmp_path):
    """With the libraries that it asks for itself, and nothing else."""
    python, install = empty_environment(tmp_path / "env")
    succeed(*install, "-c", CONSTRAINTS, built["wheel"], cwd=tmp_path)
    run = [*SMALL, "--config=configs/hopper.py:demo", "--config.update_steps=20"]
    run += ["--config.eval_episodes=2", "--workdir=run"]
    said = succeed(python, "-m", "dt_jax", "train", *run, cwd=tmp_path)
    assert "hopper-demo, after 20 updates" in said
    assert (tmp_path / "run/summary.png").exists()
    said = succeed(
        *(python, "-m", "dt_jax", "evaluate", "run", "--episodes=1"), cwd=tmp_path
    )
    assert "after 20 updates" in " ".join(said.split())
