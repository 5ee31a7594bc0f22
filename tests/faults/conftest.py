"""Faults in the real program: `make faults`, which ends with a table of them.

A test adds a line to the table by `record_property("kills survived", "25 of 25")`.
"""

import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Mark every test of this folder: they take minutes."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.faults)


@pytest.fixture
def mount(tmp_path):
    """Return a context manager that mounts a file system in memory in a new folder."""

    @contextmanager
    def mounted(name, options):
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command).returncode:
            pytest.skip("cannot mount file systems here")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)

    return mounted


def pytest_terminal_summary(terminalreporter):
    """Print the number of passed cases and the recorded figures of each file."""
    passed = [
        report
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and "tests/faults/" in report.nodeid
    ]
    if not passed:
        return
    terminalreporter.section("faults")
    files = Counter(report.nodeid.partition("::")[0] for report in passed)
    for file, count in sorted(files.items()):
        terminalreporter.line(f"{Path(file).name}: {count} passed")
        for report in passed:
            if report.nodeid.startswith(f"{file}::"):
                for name, figure in report.user_properties:
                    terminalreporter.line(f"    {name}: {figure}")
