"""Modules of tools/."""

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    """Imports a file of tools/, which imports its neighbours by name as a script does."""

    def load(name):
        folder, _, module = name.rpartition("/")
        monkeypatch.syspath_prepend(str(TOOLS / folder))
        return importlib.import_module(module)

    return load
