"""Imports go one way, and what is imported is what pyproject.toml installs."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted(ROOT.glob("dt_jax/**/*.py"))
CONFIGS = sorted(ROOT.glob("configs/*.py"))

# The lowest first. A module of dt_jax imports from the rows before its own; a package
# (data, models, ...) counts as one module and may import itself. A command in a package
# may have a row of its own.
LAYERS = [
    ["stopping"],
    ["compilation", "errors", "files", "types"],
    ["data", "film", "lock", "manifest", "placement", "processes", "registry"],
    ["rules", "sizes"],
    [
        "across_seeds",
        "checkpoint",
        "config",
        "data_defaults",
        "envs",
        "loggers",
        "metrics",
        "models",
        "optim",
        "scores",
    ],
    ["collect", "extras", "flags", "formats", "train_state", "versions"],
    ["agents", "datasets"],
    ["feed"],
    ["description", "dispatch", "finite", "holdout", "policy", "rollout", "warm_start"],
    ["data.__main__", "evaluation"],
    ["figures", "measurements", "resume", "runs"],
    ["imported", "summary"],
    ["trainer"],
    ["train"],
    ["dry_run", "evaluate", "export", "report", "sweep"],
    ["launch", "video"],
    ["__init__"],
    ["__main__"],
]
BASE = {*LAYERS[0], *LAYERS[1], *LAYERS[2]}

# Less than their rows would let them.
ONLY = {"models": {"types"}, "collect": BASE | {"data", "envs"}}
KNOWN_BY = {"collect": {"datasets"}}

JAX = {"flax", "jax", "optax", "orbax"}
WITHOUT_JAX = [path for path in PACKAGE if "/data/" in path.as_posix()]
WITHOUT_JAX.remove(ROOT / "dt_jax/data/prefetch.py")


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


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "dt_jax").with_suffix("").parts
    dotted = ".".join(parts)
    return dotted if any(dotted in layer for layer in LAYERS) else parts[0]


def allowed(module: str) -> set[str]:
    """Return what a module of dt_jax may import of dt_jax."""
    row = next((i for i, layer in enumerate(LAYERS) if module in layer), None)
    assert row is not None, (
        f"dt_jax/{module} is new: add it to LAYERS in {Path(__file__).name}, "
        "in the lowest row after all that it imports"
    )
    below = {name for layer in LAYERS[:row] for name in layer}
    hidden = {name for name in below if module not in KNOWN_BY.get(name, {module})}
    package = {module} if (ROOT / "dt_jax" / module).is_dir() else set()
    return ONLY.get(module, below - hidden) | package


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_the_layers_below_it(path):
    may = allowed(module_of(path))
    for where, name in imports(path):
        root, _, rest = name.partition(".")
        if root == "dt_jax":
            other = rest.split(".")[0].replace("__version__", "__init__")
            assert other in may, f"{where}: {module_of(path)} must not import {other}"


@pytest.mark.parametrize("path", WITHOUT_JAX, ids=lambda path: path.name)
def test_data_knows_numpy_and_not_jax(path):
    assert not third_party([path]) & JAX


def test_configs_import_ml_collections_alone():
    assert third_party(CONFIGS) == {"configs", "ml_collections"}


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
