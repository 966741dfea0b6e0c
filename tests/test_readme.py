"""The README's example, and the links and commands of all documentation pages."""

import re
from pathlib import Path

import numpy as np
import pytest

from supcon_tf import config

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def anchors(page):
    """The anchors of a page's headings, as GitHub derives them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def marked_examples(page):
    """The Python examples of a page that are marked as tests."""
    parts = page.read_text().split("<!-- This example runs as a test. -->")[1:]
    return [re.search(r"```python\n(.*?)```", part, re.S)[1] for part in parts]


# Keras warns of its own default, shuffle=True, for every tf.data.Dataset.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_readme_example_runs_and_its_loss_falls():
    (code,) = marked_examples(ROOT / "README.md")
    assert len(code.splitlines()) <= 25
    names = {}
    exec(code, names)
    losses = names["history"].history["loss"]
    assert losses[-1] < 0.95 * losses[0]
    assert names["embeddings"].shape == (1797, 64)
    np.testing.assert_allclose(np.linalg.norm(names["embeddings"], axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("code", marked_examples(ROOT / "docs" / "finetune.md"))
def test_examples_of_pretrained_encoders_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    encoder = names["encoder"]
    features = encoder(np.zeros((1, 64, 64, 3), "float32"))
    assert features.shape[0] == 1
    assert len(features.shape) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_gin_files_and_tools_of_commands_exist(page):
    text = page.read_text()
    for name in re.findall(r"--gin_file=(\S+\.gin)", text):
        is_shown = f"```\n# {name}\n" in text  # A file of the user, whole.
        assert is_shown or config.find(name).is_file(), name
    for name in re.findall(r"python (tools/\w+\.py)", text):
        assert (ROOT / name).is_file(), name
