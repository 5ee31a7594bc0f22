"""The command line's working directory."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    """Run in the checkout, so that configs/hopper.py is found as a user names it."""
    monkeypatch.chdir(Path(__file__).parents[2])
