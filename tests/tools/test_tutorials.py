"""The tutorials: they run, and their pages have their cells."""

import re
from pathlib import Path

import keras
import pytest

from supcon_tf import models

SCRIPTS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.py"))

SCRIPT = """# %% [markdown]
# # Title
#
# Text.

# %%
from pathlib import Path

EPOCHS = 20  # quick: 1
print(EPOCHS)

# %%
Path("a_b.png").write_bytes(b"")
"""


@pytest.fixture
def runner(tool):
    return tool("run_tutorials")


def test_page_has_the_text_code_output_and_pictures_of_a_script(runner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page, pictures = runner.run(runner.quick(SCRIPT), name="title")
    assert pictures == [Path("a_b.png")]
    assert page == (
        "# Title\n\nText.\n\n"
        "```python\nfrom pathlib import Path\n\nEPOCHS = 1\nprint(EPOCHS)\n```\n\n"
        "```text\n1\n```\n\n"
        '```python\nPath("a_b.png").write_bytes(b"")\n```\n\n'
        "![a b](../images/tutorials/title_a_b.png)\n"
    )
    assert "EPOCHS = 20\n" in runner.shown(SCRIPT)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_page_of_a_tutorial_is_of_the_present_script(runner, script):
    page = script.with_suffix(".md").read_text()
    position = 0
    for kind, text in runner.cells(script.read_text()):
        position = page.find(text if kind == "markdown" else runner.shown(text), position)
        assert position >= 0, f"run tools/run_tutorials.py {script.name} again: {text}"


@pytest.mark.parametrize(
    "script",
    [
        # The README's example is a fit of this kind too.
        pytest.param(path, marks=pytest.mark.slow if path.stem == "own_fit" else ())
        for path in SCRIPTS
    ],
    ids=lambda path: path.stem,
)
def test_tutorial_runs(runner, script, tmp_path, monkeypatch):
    def small(*_, **__):
        layers = [keras.layers.Flatten(), keras.layers.Dense(16, activation="relu")]
        return keras.Sequential([keras.Input((8, 8, 3)), *layers])

    monkeypatch.setattr(models, "resnet", small)  # Faster to trace.
    monkeypatch.chdir(tmp_path)
    page, pictures = runner.run(runner.quick(script.read_text()), name=script.stem)
    assert len(pictures) == len(re.findall(r"^!\[", page, re.M)) > 0
