"""Every command's --help: an example that can be copied, in 80 columns."""

import ast
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def is_command(path):
    return 'if __name__ == "__main__":' in path.read_text()


def module(path):
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return dotted.removesuffix(".__main__")


COMMANDS = sorted(
    module(path) for path in ROOT.glob("dt_jax/**/*.py") if is_command(path)
)
OF_DATA = ["list", "info", "download", "verify", "clear"]


@pytest.mark.parametrize(
    "command",
    [[name] for name in COMMANDS] + [["dt_jax.data", name] for name in OF_DATA],
    ids=" ".join,
)
def test_help_has_an_example_and_fits_80_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    name, *more = command
    file = name.replace(".", "/")
    file += "/__main__" if (ROOT / file).is_dir() else ""
    program = str(ROOT / f"{file}.py")  # as python -m would have it
    monkeypatch.setattr(sys, "argv", [program, *more, "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(program)["main"]()
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    example = text.partition("example:")[2].replace("\\\n", "")
    words = shlex.split(example)
    assert words[:3] == ["python", "-m", name], text
    assert words[3 : 3 + len(more)] == more


def test_every_command_is_named(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dt_jax"])
    runpy.run_module("dt_jax")["main"]()
    listed = capsys.readouterr().out.partition("commands:\n")[2].splitlines()
    assert {line.split()[2] for line in listed} == {*COMMANDS} - {"dt_jax"}


def test_every_command_of_data_is_tried():
    source = ast.parse((ROOT / "dt_jax/data/__main__.py").read_text())
    added = [
        node.args[0].value
        for node in ast.walk(source)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "add"
    ]
    assert added == OF_DATA
