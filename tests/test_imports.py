"""Imports go one way, and what is imported is what pyproject.toml installs."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command import run

ROOT = Path(__file__).parents[1]
PACKAGE = sorted(ROOT.glob("dt_jax/**/*.py"))
CONFIGS = sorted(ROOT.glob("configs/**/*.py"))

# From the bottom up. A folder imports from the rows above its own, and from itself.
FLOORS = [
    ["types"],
    ["utils"],
    ["data", "networks"],
    ["envs", "agents"],
    ["rollout", "config"],
    ["datasets", "runs", "interop"],
    ["evaluation"],
    ["video", "analysis"],
    ["training"],
    ["cli"],
    ["__init__", "__main__"],
]

JAX = {"flax", "jax", "optax", "orbax"}
WITHOUT_JAX = sorted(ROOT.glob("dt_jax/data/**/*.py"))


def imports(path: Path) -> list[tuple[str, str]]:
    """Return where and what a file imports, dotted; functions are looked into too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            found += [(where, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{where}: name the module in full"
            found += [(where, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def third_party(paths: list[Path]) -> set[str]:
    """Return the installed packages that files import."""
    roots = {name.split(".")[0] for path in paths for _, name in imports(path)}
    return roots - sys.stdlib_module_names


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "dt_jax").with_suffix("").parts[0]


@pytest.mark.parametrize("room", [room for floor in FLOORS for room in floor])
def test_imports_go_downwards(room):
    floor = next(i for i, rooms in enumerate(FLOORS) if room in rooms)
    below = {name for rooms in FLOORS[:floor] for name in rooms} | {room}
    for path in filter(lambda path: room_of(path) == room, PACKAGE):
        for where, name in imports(path):
            root, _, rest = name.partition(".")
            if root == "dt_jax":
                other = rest.split(".")[0]
                assert other in below, f"{where}: {room} must not import {other}"


def test_every_folder_has_a_floor():
    assert {room_of(path) for path in PACKAGE} == {r for rooms in FLOORS for r in rooms}


@pytest.mark.parametrize("path", WITHOUT_JAX, ids=lambda path: path.name)
def test_data_knows_numpy_and_not_jax(path):
    assert not third_party([path]) & JAX


def test_configs_import_only_dt_jax():
    """A `configs` package of the user's would shadow ours."""
    assert third_party(CONFIGS) == {"dt_jax"}


def test_dependencies_are_exactly_what_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # absl-py>=2.1 is imported as absl, orbax-checkpoint as orbax
    installed = {re.match(r"\w+", line)[0] for line in project["dependencies"]}
    installed = {name.removeprefix("Py").lower() for name in installed}  # PyYAML
    installed = {{"pillow": "pil"}.get(name, name) for name in installed}
    imported = {name.lower() for name in third_party([*PACKAGE, *CONFIGS])}
    assert installed == imported - {"configs", "dt_jax"}


def test_the_package_stands_without_the_checkout_around_it():
    around = {"benchmarks", "configs", "launch", "tests"}
    assert not third_party(PACKAGE) & around


def run_code(code, **environment):
    """Run Python code in a process of its own, which must succeed."""
    status, out, err = run("-c", code, **environment)
    assert status == 0, err
    return out


@pytest.mark.parametrize("backend", ["module://not_installed.backend_inline", "banana"])
def test_pictures_need_no_backend_of_matplotlibs(backend):
    """A notebook passes its own to `!python`, whose packages may lack it."""
    status, _, err = run("-m", "dt_jax", "report", "nowhere", MPLBACKEND=backend)
    assert status == 2, err
    assert "nowhere" in err


@pytest.mark.parametrize(
    "renderer", ["osmesa", pytest.param("nonsense", marks=pytest.mark.slow)]
)
def test_simulations_need_no_renderer(renderer):
    """osmesa's library is missing on many machines."""
    code = (
        "import os\n"
        "from dt_jax import envs\n"
        "for name in 'maze2d-umaze-v1', 'HalfCheetah-v5':\n"
        "    envs.make(envs.lookup(name), [0]).host_reset()\n"
        "print(os.environ['MUJOCO_GL'])"
    )
    assert run_code(code, MUJOCO_GL=renderer) == f"{renderer}\n"


def test_the_ants_model_needs_nothing_that_renders():
    """Gymnasium's package around the model imports imageio, which need not be there."""
    code = (
        "import sys; sys.modules['imageio'] = None\n"
        "from dt_jax.envs import antmaze, mazes\n"
        "antmaze.ants(mazes.antmaze('umaze'), 1)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
