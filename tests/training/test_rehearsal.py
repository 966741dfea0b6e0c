"""A model that cannot be saved is rejected before training."""

import sys

import pytest

from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from tests.small_runs import run

LAYERS = '''
import keras

class Unsaved(keras.layers.Layer):
    """Has an argument that no get_config tells."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return keras.ops.mean(x * self.factor, axis=(1, 2))
'''


@pytest.fixture
def unsaved_layer(tmp_path, monkeypatch):
    (tmp_path / "layers_of_mine.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "layers_of_mine", raising=False)
    return (
        "import layers_of_mine",
        "models.contrastive_model.encoder = @keras.Sequential()",
        "keras.Sequential.layers = [@keras.layers.Conv2D(), @layers_of_mine.Unsaved()]",
        "layers_of_mine.Unsaved.factor = 2.0",
    )


def test_a_model_that_cannot_be_loaded_is_refused_before_the_first_step(
    unsaved_layer, photos, tmp_path, capsys
):
    there = RunDir(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"the model of pretrain cannot be saved and loaded, .*get_config"
    ):
        run(there.root, *unsaved_layer, f"sources.folder.root = '{photos}'")
    assert "epoch" not in capsys.readouterr().out
    assert not there.checkpoints("pretrain").exists()
    assert not list(there.root.glob(".rehearsal*"))
