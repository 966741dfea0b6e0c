"""Which `.keras` files load where this package is not imported: docs/runs.md says it."""

import keras
import numpy as np
import pytest

from supcon_tf import models
from supcon_tf.evaluation import ContrastiveAccuracy
from supcon_tf.losses import SupConLoss
from supcon_tf.optimizers import LARS

# Keras saves a variable by np.array, which NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (4, 4, 3)
IMAGES = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")


def encoder():
    return keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
    )


@pytest.fixture
def forget_package(monkeypatch):
    """Returns a function after which Keras knows no class of this package."""

    def forget():
        registered = keras.saving.get_custom_objects()
        for name in [name for name in registered if name.startswith("supcon_tf>")]:
            monkeypatch.delitem(registered, name)

    return forget


def compiled_by_user():
    model = encoder()
    model.add(keras.layers.Reshape((1, 4)))  # One view.
    model.compile(LARS(0.1), SupConLoss(), metrics=[ContrastiveAccuracy()])
    model.optimizer.build(model.trainable_variables)
    return model


def test_a_stock_model_with_a_loss_of_this_package_loads_without_it(tmp_path, forget_package):
    model = compiled_by_user()
    model.save(tmp_path / "model.keras")
    assert isinstance(keras.saving.load_model(tmp_path / "model.keras").loss, SupConLoss)
    forget_package()
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    with pytest.raises(TypeError, match="Could not locate class 'LARS'"):
        keras.saving.load_model(tmp_path / "model.keras")


def test_a_model_of_this_package_loads_only_with_it_but_a_stock_encoder_in_it_loads(
    tmp_path, forget_package
):
    model = models.contrastive_model(encoder(), image_shape=SHAPE, projection=(3,))
    model.save(tmp_path / "model.keras")
    part = models.model_parts(model)["encoder"]
    part.save(tmp_path / "encoder.keras")
    forget_package()
    with pytest.raises(TypeError, match="Could not locate class 'ReplicatedModel'"):
        keras.saving.load_model(tmp_path / "model.keras", compile=False)
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(loaded(IMAGES), part(IMAGES))


def test_the_documented_imports_register_all_classes():
    registered = keras.saving.get_custom_objects().items()
    modules = {value.__module__ for name, value in registered if name.startswith("supcon_tf>")}
    # `supcon_tf.models` imports `supcon_tf.losses`.
    packages = {".".join(module.split(".")[:2]) for module in modules}
    assert packages == {
        "supcon_tf.evaluation", "supcon_tf.losses", "supcon_tf.models", "supcon_tf.optimizers"
    }  # fmt: skip
