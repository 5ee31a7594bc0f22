"""The --help of every command: an example to copy, in 80 columns."""

import ast
import shlex
from importlib import import_module

import pytest
from command import ROOT

from dt_jax.cli import evaluate
from dt_jax.cli import main as cli
from dt_jax.utils.errors import UserError
from dt_jax.utils.versions import __version__

DATA_COMMANDS = ["list", "info", "download", "verify", "clear"]


@pytest.mark.parametrize(
    "command",
    [[name] for name in cli.COMMANDS] + [["data", name] for name in DATA_COMMANDS],
    ids=" ".join,
)
def test_help_has_an_example_and_fits_80_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        cli._dispatch([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    example = text.partition("example:")[2].partition("\n\n")[0]
    words = shlex.split(example.replace("\\\n", ""))
    if command == ["train"]:
        assert words[:2] == ["python", "launch.py"]
    else:
        assert words[: 3 + len(command)] == ["python", "-m", "dt_jax", *command], text


def test_every_command_has_a_module_and_is_listed(capsys):
    cli._dispatch([])
    listed = capsys.readouterr().out.partition("commands:\n")[2].splitlines()
    assert [line.split()[3] for line in listed] == [*cli.COMMANDS]
    names = {name.replace("import", "import_") for name in cli.COMMANDS}
    modules = {path.stem for path in ROOT.glob("dt_jax/cli/*.py")}
    assert modules - {"__init__", "main", "common"} == names
    for name in names:
        assert callable(import_module(f"dt_jax.cli.{name}").main)


def test_this_file_has_every_data_command():
    source = ast.parse((ROOT / "dt_jax/cli/data.py").read_text())
    added = [
        node.args[0].value
        for node in ast.walk(source)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "add"
    ]
    assert added == DATA_COMMANDS


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        cli._dispatch(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"dt_jax {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian'; nearest: train"),
        (["--verison"], "--verison; see --help"),
        (["evaluate", "--agents=none.py", "x"], "--agents=none.py: expected a file"),
    ],
)
def test_a_wrong_command_is_reported_in_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        cli._dispatch(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["-5,-20", "-.5", "-1e3,4"])
def test_values_may_be_negative(text):
    """Also after a space, where argparse looks for flags."""
    arguments = evaluate._parser().parse_args(["run", "--target_returns", text])
    assert arguments.target_returns == text
    with pytest.raises(UserError, match="expected one argument"):
        evaluate._parser().parse_args(["run", "--target_returns", "--seed=3"])
