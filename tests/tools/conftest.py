"""Modules of tools/."""

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    """Imports a module of tools/, which imports its neighbours by name as a script does."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module
