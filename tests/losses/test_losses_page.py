"""The examples of docs/losses.md."""

import pathlib
import re

import numpy as np

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "losses.md"


def test_the_examples_train():
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 6
    # One name space: each example continues the ones before it.
    names = {}
    for example in examples:
        exec(example, names)
        [loss] = names["model"].history.history["loss"]
        assert np.isfinite(loss)
        assert loss > 0
