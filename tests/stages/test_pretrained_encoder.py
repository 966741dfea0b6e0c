"""Runs that start from a pretrained encoder."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from supcon_tf import models
from supcon_tf.run_dir import RunDir
from supcon_tf.training.encoder_io import load_encoder
from tests.small_runs import run


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory):
    """A small network with the scaling layer of pretrained encoders."""
    keras.utils.set_random_seed(0)
    scaling = models.InputScaling([127.5] * 3, [127.5] * 3)
    parts = [keras.Input((None, None, 3)), scaling, layers.Conv2D(8, 3), layers.ReLU()]
    file = tmp_path_factory.mktemp("encoder") / "small.keras"
    keras.Sequential(parts).save(file)
    return file


def test_run_from_a_pretrained_encoder_caches_features_exports_and_loads(
    tmp_path, photos, encoder_file
):
    run(
        tmp_path / "run",
        f"sources.folder.root = '{photos}'",
        "models.contrastive_model.encoder = @models.pretrained()",
        f"models.pretrained.name = '{encoder_file}'",
        "views.eval_crop.method = 'none'",
        "linear.run.cache_features = True",
    )
    assert list((tmp_path / "run").rglob("training-*.npz"))
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype("uint8")
    signature = tf.saved_model.load(str(tmp_path / "run" / "export")).signatures["serving_default"]
    exported = signature(images=tf.constant(images))["embedding"].numpy()
    scaled = images / np.float32(127.5) - 1
    loaded = load_encoder(tmp_path / "run", image_shape=(16, 16, 3))
    np.testing.assert_allclose(loaded(scaled), exported, atol=1e-5)
    # The trained encoder is a start again, without the normalisation.
    again = models.pretrained(str(RunDir(tmp_path / "run").model("pretrain")))
    features = again(scaled).numpy()
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(features / norms, exported, atol=1e-5)
