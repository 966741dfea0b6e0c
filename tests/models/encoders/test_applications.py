import importlib
import inspect
import urllib.error

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format
from keras.src.utils import file_utils

from supcon_tf import models
from supcon_tf.errors import UserError
from supcon_tf.models.encoders.applications import _scaling, builders

BUILDERS = builders()
BYTES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype("float32")


@pytest.mark.parametrize("name", BUILDERS)
def test_scaling_equals_keras_preprocessing(name):
    build = BUILDERS[name]
    expected = importlib.import_module(build.__module__).preprocess_input(BYTES.copy())
    np.testing.assert_allclose(_scaling(build)(BYTES / np.float32(127.5) - 1), expected, atol=1e-3)


def test_every_public_network_is_known_with_its_preprocessing():
    public = {name for name in dir(keras.applications) if name[0].isupper()}
    assert {build.__name__ for build in BUILDERS.values()} == public
    assert all(inspect.isfunction(build) for build in BUILDERS.values())


@pytest.fixture(scope="module")
def mobilenet():
    keras.utils.set_random_seed(0)
    return models.pretrained("MobileNetV2", weights=None)


def test_features_are_those_of_keras_on_preprocessed_bytes(mobilenet):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    network = mobilenet.layers[2]
    expected = network(keras.applications.mobilenet_v2.preprocess_input(images.copy()))
    np.testing.assert_allclose(mobilenet(images / 127.5 - 1), expected, atol=1e-5)
    assert mobilenet.output_shape == (None, 1280)


def test_local_weights_are_loaded(mobilenet, tmp_path):
    network = mobilenet.layers[2]
    network.save_weights(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "downloaded.h5", "w") as file:  # The format of Keras's downloads.
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    images = np.random.default_rng(1).uniform(-1, 1, (1, 32, 32, 3)).astype("float32")
    for name in ("a.weights.h5", "downloaded.h5"):
        loaded = models.pretrained("mobilenetv2", weights=str(tmp_path / name))
        np.testing.assert_array_equal(loaded(images), mobilenet(images))


def test_weights_of_another_network_or_kind_are_rejected(mobilenet, tmp_path):
    mobilenet.layers[2].save_weights(tmp_path / "a.weights.h5")
    (tmp_path / "b.h5").write_text("no weights")
    for file, message in [
        ("a.weights.h5", "is damaged, or not of .* without its classifier: .+"),
        ("b.h5", "is damaged, or not of .* without its classifier: .+"),
        ("gone.h5", "no file of weights .*gone.h5'"),
        ("b.pth", "no file of weights"),
    ]:
        with pytest.raises(UserError, match=message) as raised:
            models.pretrained("MobileNet", weights=str(tmp_path / file))
        assert "\n" not in str(raised.value)
    (tmp_path / "b.pth").touch()
    with pytest.raises(UserError, match=r"must be a \.h5 file, got .*b.pth'"):
        models.pretrained("MobileNet", weights=str(tmp_path / "b.pth"))


def test_download_without_a_network_is_one_line_that_names_the_file(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(file_utils, "urlretrieve", fail)
    # A directory without earlier downloads.
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    with pytest.raises(
        UserError, match=r"weights of MobileNet cannot be downloaded: .*\.h5"
    ) as raised:
        models.pretrained("MobileNet")
    assert "\n" not in str(raised.value)
