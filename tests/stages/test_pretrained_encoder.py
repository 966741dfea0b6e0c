"""Runs that start from a pretrained encoder."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from supcon_tf import models
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.training.encoder_io import encoder_path, load_encoder
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
    tmp_path, photos, encoder_file, capsys
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
    results = RunDir(tmp_path / "run").metrics()
    frozen = {key: value for key, value in results["pretrain"].items() if "frozen" in key}
    assert set(frozen) == {"frozen_knn_top_1", "frozen_linear_top_1"}
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert last_line.endswith(
        f"; frozen encoder top-1 {frozen['frozen_linear_top_1']:.3f}, "
        f"kNN {frozen['frozen_knn_top_1']:.3f}"
    )
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


FROZEN = (
    "experiment.run.stages = ('linear',)",
    "linear.run.solver = 'lbfgs'",
    "linear.run.batch_size = 64",  # More than there are images.
    "views.eval_crop.method = 'none'",
)


def results(workdir):
    """The classifier and the accuracies of a linear stage."""
    folder = RunDir(workdir)
    kept = {k: v for k, v in folder.metrics()["linear"].items() if "_per_" not in k}
    kept.pop("seconds")
    model = keras.saving.load_model(folder.model("linear"), compile=False)
    return models.model_parts(model)["classifier"].get_weights(), kept


def assert_same(one, other):
    for weight, expected in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert one[1] == other[1]


def test_the_linear_stage_takes_a_pretrained_encoder_without_a_saved_file(
    tmp_path, photos, encoder_file, request
):
    root = f"sources.folder.root = '{photos}'"
    run(
        tmp_path / "object",
        root,
        *FROZEN,
        "linear.run.encoder = @models.pretrained()",
        f"models.pretrained.name = '{encoder_file}'",
    )
    models.pretrained(str(encoder_file)).save(tmp_path / "pretrained.keras")
    request.getfixturevalue("results_only")
    path = f"linear.run.encoder = '{tmp_path / 'pretrained.keras'}'"
    run(tmp_path / "path", root, *FROZEN, path)
    assert_same(results(tmp_path / "object"), results(tmp_path / "path"))
    assert (tmp_path / "object" / "export" / "labels.txt").read_text() == "bright\ndark\n"
    assert (tmp_path / "object" / "report.html").is_file()


def test_a_resumed_linear_stage_has_the_random_encoder_that_it_started_with(
    tmp_path, photos, results_only
):
    settings = (
        f"sources.folder.root = '{photos}'",
        *FROZEN,
        "linear.run.encoder = @keras.Sequential()",
    )
    folder = RunDir(tmp_path / "run")
    run(folder.root, *settings)
    before, features = results(folder.root), sorted(folder.features.iterdir())
    # Killed before its results were saved.
    folder.remove_metrics("linear")
    folder.model("linear").unlink()
    run(folder.root, *settings)
    assert_same(results(folder.root), before)
    assert sorted(folder.features.iterdir()) == features


def test_an_encoder_without_a_checkpoint_is_saved_again_only_if_it_changed(tmp_path):
    def saved(encoder):
        file = encoder_path(
            encoder,
            RunDir(tmp_path),
            stage="linear",
            image_shape=(8, 8, 3),
            strategy=tf.distribute.get_strategy(),
        )
        return file, file.stat().st_mtime_ns

    parts = [keras.Input((None, None, 3)), layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()]
    encoder = keras.Sequential(parts)
    file, written = saved(encoder)
    assert saved(encoder) == (file, written)
    encoder.set_weights([weight + 1 for weight in encoder.get_weights()])
    assert saved(encoder)[1] != written
    loaded = keras.saving.load_model(file, compile=False)
    np.testing.assert_array_equal(loaded.get_weights()[0], encoder.get_weights()[0])


def test_an_encoder_that_is_neither_a_model_nor_a_path_is_rejected(tmp_path):
    for encoder in (3, layers.Conv2D(2, 3)):
        with pytest.raises(UserError, match=r"linear.run.encoder must be a Keras model, such as @"):
            encoder_path(
                encoder,
                RunDir(tmp_path),
                stage="linear",
                image_shape=(8, 8, 3),
                strategy=tf.distribute.get_strategy(),
            )
