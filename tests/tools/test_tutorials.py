"""The tutorials: they run, or their commands are valid, and their pages have their cells."""

import importlib
import re
import shlex
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from supcon_tf import config, distribution, models

SCRIPTS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.py"))
# Those train whole runs, which takes minutes.
WITH_COMMANDS = [script for script in SCRIPTS if "\n# %% [bash]\n" in script.read_text()]

SCRIPT = """# %% [markdown]
# # Title
#
# Text.

# %%
from pathlib import Path

EPOCHS = 20  # quick: 1
print(EPOCHS)

# %% [few.gin]
# include 'digits/base.gin'

# %% [bash]
# cat few.gin && \\
#     python -c "import os; print(os.path.abspath('few.gin'))"

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
        "```\n# few.gin\ninclude 'digits/base.gin'\n```\n\n"
        "```bash\ncat few.gin && \\\n    python -c \"import os; print(os.path.abspath('few.gin'))\"\n"
        "```\n\n```text\ninclude 'digits/base.gin'\nfew.gin\n```\n\n"
        '```python\nPath("a_b.png").write_bytes(b"")\n```\n\n'
        "![a b](../images/tutorials/title_a_b.png)\n"
    )
    assert "EPOCHS = 20\n" in runner.shown("code", SCRIPT)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_page_of_a_tutorial_is_of_the_present_script(runner, script):
    page = script.with_suffix(".md").read_text()
    position = 0
    for kind, text in runner.cells(script.read_text()):
        position = page.find(runner.shown(kind, text), position)
        assert position >= 0, f"run tools/run_tutorials.py {script.name} again: {text}"


@pytest.mark.parametrize(
    "script",
    [
        # The README's example is a fit of this kind too.
        pytest.param(path, marks=pytest.mark.slow if path.stem == "own_fit" else ())
        for path in SCRIPTS
        if path not in WITH_COMMANDS
    ],
    ids=lambda path: path.stem,
)
def test_tutorial_runs(runner, script, tmp_path, monkeypatch):
    def small(*_, **__):
        layers = [keras.layers.Flatten(), keras.layers.Dense(16, activation="relu")]
        return keras.Sequential([keras.Input((8, 8, 3)), *layers])

    # Faster to trace; tests of losses and models train on replicas.
    monkeypatch.setattr(models, "resnet", small)
    monkeypatch.setattr(distribution, "strategy", lambda *_, **__: tf.distribute.get_strategy())
    monkeypatch.chdir(tmp_path)
    page, pictures = runner.run(runner.quick(script.read_text()), name=script.stem)
    assert len(pictures) == len(re.findall(r"^!\[", page, re.M)) > 0


@pytest.mark.parametrize("script", WITH_COMMANDS, ids=lambda path: path.stem)
def test_commands_of_a_tutorial_have_known_flags_and_settings(
    runner, script, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for kind, text in runner.cells(script.read_text()):
        if kind.endswith(".gin"):
            Path(kind).write_text(text)
        if kind != "bash":
            continue
        for line in text.replace("\\\n", "").splitlines():
            python, m, module, *flags = shlex.split(line.partition(" | ")[0])
            assert (python, m) == ("python", "-m")
            with pytest.raises(SystemExit):
                importlib.import_module(module).main(["--help"])
            known = re.findall(r"^  (--\w+)  ", capsys.readouterr().out, re.M)
            assert {flag.partition("=")[0] for flag in flags} <= {*known}, line
            given = [flag.partition("=")[::2] for flag in flags]
            files = [value for name, value in given if name == "--gin_file"]
            settings = [value for name, value in given if name == "--gin_param"]
            if module == "supcon_tf.evaluate":
                files.insert(0, "digits/supcon.gin")  # As in the run's config.gin.
            if files:
                config.parse(files, settings)
