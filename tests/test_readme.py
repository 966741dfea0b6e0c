"""The README's example runs as it stands and does what it says."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parent.parent / "README.md"


def test_the_model_fit_example_runs_and_learns():
    marked = README.read_text().split("<!-- This example runs as a test. -->")[1]
    code = re.search(r"```python\n(.*?)```", marked, re.S)[1]
    assert len(code.splitlines()) <= 25
    names = {}
    exec(code, names)
    losses = names["history"].history["loss"]
    assert losses[-1] < 0.95 * losses[0]
    assert names["embeddings"].shape == (1797, 64)
    np.testing.assert_allclose(np.linalg.norm(names["embeddings"], axis=1), 1, rtol=1e-5)
