"""SwAV's model: unit prototypes, frozen steps, the queue, replicas, and a whole run that resumes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.data import sources
from supcon_tf.errors import UserError
from supcon_tf.losses import SemiSupervisedLoss, SuNCEtLoss, SwAVLoss
from supcon_tf.models import Prototypes, embedding_model, model_parts, swav_model
from supcon_tf.run_dir import RunDir
from tests import reference, replica_steps
from tests.fitting import fit_steps
from tests.replicas import two_replicas
from tests.small_runs import run

CROPS = ((8, 2, (0.3, 1.0)), (6, 3, (0.1, 0.3)))


def encoder():
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, name="conv")(images)
    x = keras.layers.BatchNormalization(synchronized=True, name="bn")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)))


def small_model(**options):
    keras.utils.set_random_seed(0)
    options = {"num_prototypes": 5, "num_classes": 3, "projection": (8, 4)} | options
    return swav_model(encoder(), image_shape=(8, 8, 3), crops=CROPS, **options)


def crops_of(num_samples, seed=0):
    random = np.random.default_rng(seed)
    return {
        f"crops{size}": random.normal(size=(num_samples, count, size, size, 3)).astype(np.float32)
        for size, count, _ in CROPS
    }


def unit(*shape, seed=0):
    rows = np.random.default_rng(seed).normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def test_prototypes_return_scores_and_their_sinkhorn_codes():
    layer, projected = Prototypes(6, num_assigned=2), unit(7, 5, 4)
    packed = layer(projected).numpy()
    kernel = layer.kernel.numpy()
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, rtol=1e-5)
    scores = projected @ kernel
    np.testing.assert_allclose(packed[:, 2:], scores, rtol=1e-4, atol=1e-5)
    for crop in range(2):
        expected = reference.sinkhorn(scores[:, crop])
        np.testing.assert_allclose(packed[:, crop], expected, rtol=1e-3, atol=1e-5)


def test_prototypes_train_only_after_the_frozen_steps_and_keep_unit_length():
    model = keras.Sequential([keras.Input((3, 4)), Prototypes(6, frozen_steps=2)])
    layer = model.layers[-1]
    # Momentum and a large step would show any remainder of the frozen gradients.
    model.compile(keras.optimizers.SGD(5.0, momentum=0.9), SwAVLoss())
    kernels = [layer.kernel.numpy()]
    for step in range(3):
        model.train_on_batch(unit(8, 3, 4, seed=step), np.zeros(8))
        kernels.append(layer.kernel.numpy())
        np.testing.assert_allclose(np.linalg.norm(kernels[-1], axis=0), 1.0, rtol=1e-5)
    np.testing.assert_allclose(kernels[2], kernels[0], rtol=1e-6)
    assert np.abs(kernels[3] - kernels[2]).max() > 1e-2
    assert int(layer.step) == 3


def test_queue_joins_the_codes_once_full_and_drops_the_oldest():
    layer = Prototypes(5, num_assigned=2, queue_length=6, queue_from_step=1)
    batches = [unit(4, 3, 4, seed=step) for step in range(4)]
    for step, batch in enumerate(batches):
        packed = layer(batch, training=True).numpy()
        scores = packed[:, 2:]
        # From step 1 on, 4 enter at a time, so all 6 places are filled from step 3 on.
        earlier = np.concatenate([batches[2], batches[1]])[:6]
        for crop in range(2):
            rows = [scores[:, crop]] + ([earlier[:, crop] @ layer.kernel.numpy()] * (step == 3))
            expected = reference.sinkhorn(np.concatenate(rows))[:4]
            np.testing.assert_allclose(packed[:, crop], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(layer.queue, np.concatenate([batches[3], batches[2]])[:6, :2])
    # Evaluation neither counts steps nor fills the queue.
    layer(batches[0])
    assert int(layer.step) == 4
    np.testing.assert_array_equal(layer.queue[:4], batches[3][:, :2])


def test_model_has_its_outputs_and_parts_also_after_saving(tmp_path):
    model = small_model(queue_length=8)
    outputs = model(crops_of(4))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "prototypes": (4, 7, 5), "projection": (4, 2, 4), "logits": (4, 3),
    }  # fmt: skip
    assert set(model_parts(model)) == {"encoder", "projection_head", "prototypes", "classifier"}
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    images = crops_of(3)["crops8"][:, 0]
    np.testing.assert_allclose(
        embedding_model(restored)(images), embedding_model(model)(images), atol=1e-6
    )
    np.testing.assert_array_equal(
        restored.get_layer("prototypes").kernel, model_parts(model)["prototypes"].kernel
    )


def test_two_replicas_train_like_one_device():
    """SwAV with a queue that fills, and SuNCEt on the labelled half, for three steps."""
    labels = np.array([-1, 0, 1, -1, 0, 1, -1, -1])
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        with strategy.scope():
            model = small_model(queue_length=8, frozen_steps=1, num_classes=None)
            # It starts near zero, where a gradient and its rounding error are a hundred times the
            # size of the prototypes.
            head = model_parts(model)["projection_head"]
            head.set_weights([10.0 * weight for weight in head.get_weights()])
            model.compile(
                keras.optimizers.SGD(0.001, momentum=0.9),
                {
                    "prototypes": SwAVLoss(),
                    "projection": SemiSupervisedLoss(
                        unlabelled=None, labelled=SuNCEtLoss(implementation="dense")
                    ),
                },
            )
        batches = [(crops_of(8, seed), labels) for seed in range(3)]
        made = tf.data.Dataset.from_generator(
            lambda batches=batches: (
                (crops, {"prototypes": labels, "projection": labels}) for crops, labels in batches
            ),
            output_signature=(
                {name: tf.TensorSpec(x.shape) for name, x in crops_of(8).items()},
                dict.fromkeys(("prototypes", "projection"), tf.TensorSpec([8], tf.int64)),
            ),
        )
        history = model.fit(
            distribution.distribute_batches(strategy, lambda *_, made=made: made, 0, 3),
            steps_per_epoch=3,
            shuffle=False,
            verbose=0,
        )
        values = {variable.path: variable.numpy() for variable in model.variables}
        results.append(values | {name: logged[-1] for name, logged in history.history.items()})
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        np.testing.assert_allclose(value, results[1][name], rtol=0, atol=1e-5, err_msg=name)
    assert results[0]["prototypes/queued"] == 24


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Prototypes(0), "num_prototypes must be an integer >= 1, got 0"),
        (lambda: Prototypes(3, queue_length=-1), "queue_length must be an integer >= 0, got -1"),
        (lambda: Prototypes(3, epsilon=0.0), "epsilon must be a number > 0, got 0.0"),
        (
            lambda: swav_model(encoder(), image_shape=(9, 9, 3), crops=CROPS),
            "got 8 px and 9 x 9 px",
        ),
        (
            lambda: swav_model(replica_steps.encoder(), image_shape=(8, 8, 3), crops=CROPS),
            "need an encoder of images of any size",
        ),
    ],
)
def test_options_out_of_range_are_rejected(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_resumed_run_equals_an_uninterrupted_run(tmp_path):
    """The queue, the prototypes and the count of steps come back with a checkpoint."""

    def steps(start, stop):
        batches = [crops_of(4, seed) for seed in range(start, stop)]
        crops = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        labels = np.zeros((stop - start, 4), np.int64)
        return tf.data.Dataset.from_tensor_slices((crops, {"prototypes": labels}))

    def trained(name, *, epochs):
        model = small_model(queue_length=8, queue_from_step=1, frozen_steps=3, num_classes=None)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(model.trainable_variables)
        model.compile(optimizer, {"prototypes": SwAVLoss()})
        fit_steps(model, steps, tmp_path / name, epochs=epochs, batch_size=4, num_examples=8)
        return {variable.path: variable.numpy() for variable in model.variables}

    whole = trained("whole", epochs=3)
    trained("parts", epochs=2)
    parts = trained("parts", epochs=3)
    assert (whole["prototypes/step"], whole["prototypes/queued"]) == (6, 20)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)


# Runs on the images of a folder.
SMALL_SWAV = (
    "SOURCE = @sources.folder()",
    "experiment.run.stages = ('pretrain',)",
    "pretrain.run.epochs = 1",
    "views.Preprocessing.normalization = None",
    "swav.swav_model.encoder = @keras.Sequential()",
    "swav.swav_model.projection = (16, 8)",
    "swav.swav_model.num_prototypes = 6",
    "CROPS = ((16, 2, (0.3, 1.0)), (8, 2, (0.1, 0.3)))",
)


def test_swav_with_suncet_gin_file_runs(photos, tmp_path):
    folder = RunDir(tmp_path / "run")
    run(
        folder.root,
        *SMALL_SWAV,
        f"sources.folder.root = '{photos}'",
        "sources.subset.fraction = 0.5",
        "swav.swav_model.queue_length = 16",
        "semi_supervised.batches.labelled_classes = 2",
        "semi_supervised.batches.samples_per_class = 2",
        gin_file="semi/swav_suncet_cifar10_resnet18.gin",
    )
    assert {"probe_top_1", "knn_top_1"} <= set(folder.metrics()["pretrain"])
    assert (folder.export / "saved_model.pb").is_file()
    assert (folder.root / "report.html").is_file()
    (record,) = folder.curve("pretrain")
    # The sum of both losses: log 6 while all prototypes score alike, plus SuNCEt's.
    assert np.isfinite(record["loss"])
    model = keras.saving.load_model(folder.model("pretrain"), compile=False)
    steps = sources.folder(str(photos)).train.num_examples // 8
    assert int(model.get_layer("prototypes").step) == record["step"] == steps
    assert int(model.get_layer("prototypes").queued) == steps * (8 + 4)


def test_swav_gin_file_runs(photos, tmp_path, results_only):
    settings = (*SMALL_SWAV, f"sources.folder.root = '{photos}'")
    folder = RunDir(tmp_path / "run")
    run(folder.root, *settings, gin_file="semi/swav_cifar10_resnet18.gin")
    assert np.isfinite(folder.metrics()["pretrain"]["loss"])
    with pytest.raises(UserError, match=r"num_assigned must be 2, the crops of .* group, got 1"):
        run(
            tmp_path / "codes",
            *settings,
            "losses.SwAVLoss.num_assigned = 1",
            gin_file="semi/swav_cifar10_resnet18.gin",
        )
    with pytest.raises(UserError, match="would compute SwAV's codes for each chunk alone, got 4"):
        run(
            tmp_path / "chunks",
            *settings,
            "pretrain.run.gradient_cache_chunk = 4",
            gin_file="semi/swav_cifar10_resnet18.gin",
        )
