"""The wheel and the sdist are complete and work without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from zipfile import ZipFile

import pytest
import yaml
from command import ROOT, SMALL_NETWORK

import dt_jax

CONSTRAINTS = ROOT / "constraints.txt"


def succeed(*command, cwd):
    """Run a command that must succeed; return its stdout."""
    # PYTHONPATH could have the checkout.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the sdist, and the wheel from it; return their paths."""
    folder = tmp_path_factory.mktemp("built")
    # Only the repository's files: a build must not depend on others in the checkout.
    checkout = folder / "checkout"
    for name in repository_files():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    succeed(
        *(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder),
        checkout,
        cwd=folder,
    )
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def repository_files():
    """Return the files of the repository, including those that are not committed."""
    git = "git", "ls-files", "--cached", "--others", "--exclude-standard"
    names = set(succeed(*git, cwd=ROOT).splitlines())
    return [name for name in names if (ROOT / name).exists()]


def empty_environment(folder):
    """Make a virtual environment; return its Python and the command of its pip."""
    succeed(sys.executable, "-m", "venv", "--without-pip", folder, cwd=ROOT)
    python = folder / "bin/python"
    return python, [sys.executable, "-m", "pip", "--python", python, "install", "-q"]


def test_the_wheel_contains_the_package_and_the_configs(built):
    with ZipFile(built["wheel"]) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {name for name in repository_files() if name.startswith("dt_jax/")}
    configs = {name for name in repository_files() if name.startswith("configs/")}
    assert found == package | {f"dt_jax/shipped/{name}" for name in configs}
    assert "dt_jax/py.typed" in found
    assert any(name.endswith("policies/hopper.npz") for name in found)


def test_the_version_is_the_same_everywhere(built):
    assert built["wheel"].name.startswith(f"dt_jax-{dt_jax.__version__}-")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == dt_jax.__version__


def test_the_sdist_contains_tests_and_docs(built):
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "Makefile", "constraints.txt", "launch.py"} <= names
    assert {"docs/datasets.md", "tests/conftest.py", "benchmarks/rollout.py"} <= names


@pytest.mark.parametrize(
    "kind", ["wheel", pytest.param("sdist", marks=pytest.mark.slow)]
)
def test_it_runs_without_the_checkout(kind, built, tmp_path):
    """With this environment's libraries: to install them takes a minute."""
    wheel = built["wheel"]
    if kind == "sdist":
        pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
        succeed(*pip, "--no-build-isolation", built["sdist"], cwd=tmp_path)
        (wheel,) = tmp_path.glob("*.whl")
    python, install = empty_environment(tmp_path / "env")
    succeed(*install, "--no-deps", wheel, cwd=tmp_path)
    (libraries,) = (tmp_path / "env").glob("lib/python*/site-packages")
    # Python does not read the .pth files of this folder, one of which has the checkout.
    (libraries / "more.pth").write_text(sysconfig.get_path("purelib") + "\n")
    found = succeed(python, "-c", "import dt_jax; print(dt_jax.__file__)", cwd=tmp_path)
    assert found.startswith(str(libraries))
    out = succeed(python, "-m", "dt_jax", "train", "--help", cwd=tmp_path)
    assert "python -m dt_jax train --config=configs/hopper.py:medium" in out
    configs = libraries.relative_to(tmp_path) / "dt_jax/shipped/configs"
    assert f"The package's configurations are in {configs}." in out
    (tmp_path / "mine.py").write_text(
        "from dt_jax.config import load_config\n"
        "def get_config():\n"
        "    small = {'embedding_dim': 8, 'num_layers': 1, 'residual_dropout': 0.0}\n"
        "    return load_config('configs/hopper.py:demo', **small)\n"
    )
    # The console script that pip has installed beside Python.
    train = python.with_name("dt_jax"), "train"
    out = succeed(*train, "--dry_run", "--config=mine.py", cwd=tmp_path)
    assert "dry run: hopper-demo reset and stepped" in out


@pytest.mark.slow
def test_it_trains_in_an_empty_environment(built, tmp_path):
    """With its declared dependencies and nothing else."""
    python, install = empty_environment(tmp_path / "env")
    succeed(*install, "-c", CONSTRAINTS, built["wheel"], cwd=tmp_path)
    run = ["--config=configs/hopper.py:demo", *SMALL_NETWORK]
    run += ["--config.update_steps=20"]
    run += ["--config.eval_episodes=2", "--workdir=run"]
    out = succeed(python, "-m", "dt_jax", "train", *run, cwd=tmp_path)
    assert "hopper-demo, after 20 updates" in " ".join(out.split())
    assert (tmp_path / "run/summary.png").exists()
    out = succeed(
        *(python, "-m", "dt_jax", "evaluate", "run", "--episodes=1"), cwd=tmp_path
    )
    assert "after 20 updates" in " ".join(out.split())
