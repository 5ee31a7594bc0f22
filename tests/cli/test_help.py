"""Every command's --help: an example that can be copied, in 80 columns."""

import ast
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from dt_jax.cli import main as cli

ROOT = Path(__file__).parents[2]
OF_DATA = ["list", "info", "download", "verify", "clear"]


@pytest.mark.parametrize(
    "command",
    [[name] for name in cli.COMMANDS] + [["data", name] for name in OF_DATA],
    ids=" ".join,
)
def test_help_has_an_example_and_fits_80_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        cli._dispatch([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    example = text.partition("example:")[2].replace("\\\n", "")
    words = shlex.split(example)
    if command == ["train"]:
        assert words[:2] == ["python", "launch.py"]
    else:
        assert words[: 3 + len(command)] == ["python", "-m", "dt_jax", *command], text


def test_the_list_of_commands_is_complete(capsys):
    cli._dispatch([])
    listed = capsys.readouterr().out.partition("commands:\n")[2].splitlines()
    assert [line.split()[3] for line in listed] == [*cli.COMMANDS]
    modules = {path.stem for path in ROOT.glob("dt_jax/cli/*.py")}
    shared = {"__init__", "main", "common"}
    assert modules - shared == {name.replace("import", "import_") for name in listed}


def test_every_data_command_is_tested():
    source = ast.parse((ROOT / "dt_jax/cli/data.py").read_text())
    added = [
        node.args[0].value
        for node in ast.walk(source)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "add"
    ]
    assert added == OF_DATA


def test_every_command_has_a_module():
    for name in cli.COMMANDS:
        module = import_module(f"dt_jax.cli.{name.replace('import', 'import_')}")
        assert callable(module.main)
