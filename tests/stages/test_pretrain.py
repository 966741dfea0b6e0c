"""The models that the stages compile: joint losses, large margins, warm starts, rates by part."""

import functools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import losses, models
from supcon_tf.data import sources, views
from supcon_tf.data.mixing import mixup
from supcon_tf.data.pipeline import training_batches
from supcon_tf.errors import UserError
from supcon_tf.models import momentum_memory_model, parametric_model
from supcon_tf.optimizers import warmup_schedule
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import finetune, linear, pretrain
from supcon_tf.training import results
from supcon_tf.training.encoder_io import load_encoder, load_parts
from tests.fitting import fit_steps

# Keras saves a variable by np.array, which NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (8, 8, 3)


def encoder(filters=4):
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(filters, 3, activation="tanh", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )


def contrastive(filters=4, **options):
    return models.contrastive_model(
        encoder(filters), image_shape=SHAPE, projection=(3,), num_classes=10, **options
    )


@pytest.fixture(scope="module")
def digits():
    return sources.digits()


@pytest.fixture
def compiled(monkeypatch, tmp_path, digits):
    """Runs a stage up to `fit` and returns the arguments of `fit`."""

    def run(stage_run, **settings):
        got = {}

        class Stopped(Exception):
            pass

        def stop(model, batches, **options):
            got.update(model=model, batches=batches, **options)
            raise Stopped

        for module in (pretrain, linear, finetune):
            monkeypatch.setattr(module, "fit", stop)
        folder = RunDir(tmp_path / "run")
        folder.root.mkdir(exist_ok=True)
        folder.view_sheet.touch()
        defaults = {
            "source": digits,
            "preprocessing": views.Preprocessing(SHAPE[0]),
            "augmentation": views.identity,
            "optimizer": keras.optimizers.SGD,
            "schedule": functools.partial(warmup_schedule, base_learning_rate=16.0, decay="none"),
            "epochs": 2,
            "batch_size": 16,
        }
        with pytest.raises(Stopped):
            stage_run(folder, **{**defaults, **settings})
        return got

    return run


def moved(model, images, labels):
    """The change of each variable in one step at learning rate 1."""
    before = [variable.numpy() for variable in model.trainable_variables]
    model.train_on_batch(images, labels)
    pairs = zip(model.trainable_variables, before, strict=True)
    return [start - variable.numpy() for variable, start in pairs]


def test_joint_training_follows_the_weighted_sum_of_both_gradients(compiled):
    built = contrastive(stop_classifier_gradient=False)

    def model(*, image_shape, num_classes, stop_classifier_gradient):
        assert not stop_classifier_gradient
        return built

    got = compiled(
        pretrain.run,
        model=model,
        loss=losses.SupConLoss(temperature=0.5),
        loss_weight=2.0,
        classification_loss=losses.CrossEntropyLoss(label_smoothing=0.1),
        classification_weight=0.5,
    )
    images, labels = next(iter(got["batches"](0, 1)))
    variables = built.trainable_variables

    def gradients(value_of):
        with tf.GradientTape() as tape:
            value = value_of(built(images, training=True))
        found = tape.gradient(value, [variable.value for variable in variables])
        return [0.0 if gradient is None else gradient.numpy() for gradient in found]

    by_pairs = gradients(
        lambda outputs: tf.reduce_mean(
            losses.supcon_loss(labels["projection"], outputs["projection"], temperature=0.5)
        )
    )

    def cross_entropy(outputs):
        # -sum_c t_c log p_c with t = 0.9 one_hot + 0.1 / 10.
        targets = 0.9 * tf.one_hot(labels["logits"], 10) + 0.01
        return -tf.reduce_mean(
            tf.reduce_sum(targets * tf.nn.log_softmax(outputs["logits"]), axis=1)
        )

    by_classes = gradients(cross_entropy)
    (encoder_kernel,) = (
        number for number, variable in enumerate(variables) if variable.path.endswith("conv/kernel")
    )
    assert np.abs(by_pairs[encoder_kernel]).max() > 1e-4
    assert np.abs(by_classes[encoder_kernel]).max() > 1e-4
    for step, one, other in zip(moved(got["model"], images, labels), by_pairs, by_classes):
        np.testing.assert_allclose(step, 2.0 * one + 0.5 * other, rtol=1e-3, atol=1e-6)


def test_a_probe_does_not_train_the_encoder(compiled):
    got = compiled(
        pretrain.run,
        model=lambda **_: contrastive(),
        loss=losses.SupConLoss(),
        loss_weight=0.0,
    )
    images, labels = next(iter(got["batches"](0, 1)))
    steps = moved(got["model"], images, labels)
    reached = [
        variable.path
        for variable, step in zip(got["model"].trainable_variables, steps, strict=True)
        if np.abs(step).max() > 0
    ]
    assert reached == ["classifier/kernel", "classifier/bias"]


def test_joint_training_needs_a_projection(digits, tmp_path):
    with pytest.raises(
        ValueError, match="SupConLoss takes 'projection', and the model is trained by"
    ):
        pretrain.run(
            RunDir(tmp_path),
            source=digits,
            preprocessing=views.Preprocessing(SHAPE[0]),
            augmentation=views.identity,
            model=margin_model,
            loss=losses.SupConLoss(),
            classification_loss=losses.CrossEntropyLoss(),
            optimizer=keras.optimizers.SGD,
            schedule=warmup_schedule,
            epochs=1,
            batch_size=8,
        )


def margin_model(**_):
    return models.classification_model(
        encoder(), image_shape=SHAPE, num_classes=10, large_margin=True
    )


def test_a_large_margin_classifier_is_compiled_with_its_loss_and_a_falling_lambda(compiled):
    loss = losses.LargeMarginSoftmaxLoss(margin=3)
    got = compiled(pretrain.run, model=margin_model, loss=loss, callbacks=(losses.MarginAnnealing,))
    model = got["model"]
    images, labels = next(iter(got["batches"](0, 1)))
    output = model(images, training=True)["logits"]
    assert output.shape == (16, 10, 2)
    embeddings = models.embedding_model(model)(images)
    kernel = models.model_parts(model)["classifier"].kernel
    expected = losses.large_margin_softmax_loss(labels["logits"], embeddings, kernel, margin=3)
    record = model.train_on_batch(images, labels, return_dict=True)
    assert record["loss"] == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-5)
    is_right = tf.argmax(tf.matmul(embeddings, kernel), axis=1) == labels["logits"]
    assert record["accuracy"] == pytest.approx(np.mean(is_right))
    # 1,347 images in batches of 16, twice.
    assert got["config"].callbacks == (losses.MarginAnnealing,)
    assert got["config"].last_step(2, 1347) == 168


class Lambdas(keras.callbacks.Callback):
    """Records lambda at each step."""

    def __init__(self, loss, seen):
        super().__init__()
        self.loss, self.seen = loss, seen

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(float(self.loss.annealing))


def test_margin_annealing_resumes_at_its_step(tmp_path):
    images = np.random.default_rng(0).normal(size=(20, *SHAPE)).astype("float32")

    def batches(start, stop):
        steps = tf.data.Dataset.from_tensor_slices(
            (images.reshape(5, 4, *SHAPE), np.zeros((5, 4), int))
        )
        labelled = steps.repeat().map(lambda image, label: (image, {"logits": label}))
        return labelled.skip(start).take(stop - start)

    def run(folder, epochs, seen):
        model, loss = margin_model(), losses.LargeMarginSoftmaxLoss()
        model.compile(keras.optimizers.SGD(0.01), {"logits": loss})
        model.optimizer.build(model.trainable_variables)
        callbacks = [losses.MarginAnnealing(steps=15, start=64.0, end=2.0), Lambdas(loss, seen)]
        fit_steps(
            model, batches, folder, epochs=epochs, batch_size=4, num_examples=20,
            callbacks=[lambda steps, callback=callback: callback for callback in callbacks],
        )  # fmt: skip

    seen = []
    run(tmp_path, 1, seen)
    run(tmp_path, 3, seen)
    # Lambda falls from 64 to 2 by the same factor, 32^(1/15), at each of 15 steps.
    np.testing.assert_allclose(seen, [64.0 * 32.0 ** (-step / 15) for step in range(15)], rtol=1e-5)


def test_a_large_margin_classifier_cannot_start_from_zeros():
    with pytest.raises(ValueError, match="zero_init must be False with large_margin, got True"):
        models.classification_model(
            encoder(), image_shape=SHAPE, num_classes=3, large_margin=True, zero_init=True
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory with a pretrained model and the model of a linear stage."""
    folder = RunDir(tmp_path_factory.mktemp("trained"))
    keras.utils.set_random_seed(1)
    pretrained = contrastive()
    linear = models.classification_model(
        encoder(), image_shape=SHAPE, num_classes=10, train_encoder=False
    )
    for name, model in (("pretrain", pretrained), ("linear", linear)):
        folder.checkpoints(name).mkdir(parents=True)
        model.save(folder.model(name))
    return folder, models.model_parts(pretrained), models.model_parts(linear)


def are_equal(part, other):
    pairs = zip(part.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(weight, same) for weight, same in pairs)


def test_a_single_part_can_be_loaded(trained):
    folder, pretrained, linear = trained
    names = ("encoder", "projection_head", "classifier")
    for taken in (("encoder",), ("projection_head",), ("encoder", "classifier")):
        model = contrastive()
        load_parts(model, folder.root, taken)
        parts = models.model_parts(model)
        assert [are_equal(parts[name], pretrained[name]) for name in names] == [
            name in taken for name in names
        ]
    # A classifier alone comes from the linear stage.
    model = contrastive()
    load_parts(model, folder.root, ("classifier",))
    assert are_equal(models.model_parts(model)["classifier"], linear["classifier"])


def test_incompatible_weights_are_rejected(trained, tmp_path):
    folder, _, _ = trained
    with pytest.raises(ValueError, match=r"must be some of .*, got 'encoder'"):
        load_parts(contrastive(), folder.root, "encoder")
    with pytest.raises(ValueError, match=r"the encoder in .* has other shapes than this model's"):
        load_parts(contrastive(filters=5), folder.root, ("encoder",))
    with pytest.raises(ValueError, match="this model has no projection_head: it has encoder, cla"):
        load_parts(margin_model(), folder.root, ("projection_head",))
    with pytest.raises(UserError, match=r"no trained model at .*: name a finished run's"):
        load_parts(contrastive(), tmp_path, ("encoder",))


def test_a_plain_keras_encoder_is_loaded(tmp_path):
    other, model = encoder(), contrastive()
    other.save(tmp_path / "other.keras")
    load_parts(model, tmp_path / "other.keras", ("encoder",))
    assert are_equal(models.model_parts(model)["encoder"], other)
    with pytest.raises(ValueError, match=r"has no projection_head: it has encoder"):
        load_parts(model, tmp_path / "other.keras", ("projection_head",))


def test_an_encoder_may_have_a_layer_named_embedding(tmp_path):
    other = keras.Sequential([encoder(), keras.layers.Dense(5, name="embedding")])
    other.save(tmp_path / "other.keras")
    loaded = load_encoder(tmp_path / "other.keras", image_shape=SHAPE)
    images = np.random.default_rng(0).random((2, *SHAPE), np.float32)
    np.testing.assert_array_equal(loaded(images), other(images))


def test_later_stages_use_the_loaded_encoders_normalization(trained, compiled, tmp_path):
    before = RunDir(tmp_path / "before")
    shutil.copytree(trained[0].root, before.root)
    before.set_normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    compiled(
        pretrain.run,
        model=lambda **_: contrastive(),
        loss=losses.SimCLRLoss(),
        preprocessing=views.Preprocessing(SHAPE[0], normalization="measure"),
        warm_start=str(before.root),
    )
    assert RunDir(tmp_path / "run").normalization() == before.normalization()


@pytest.mark.parametrize(
    ("model", "loss", "says"),
    [
        (
            contrastive,
            losses.CrossEntropyLoss(),
            "CrossEntropyLoss takes 'logits', and the model is trained by",
        ),
        (
            margin_model,
            losses.SupConLoss(),
            "SupConLoss takes 'projection', and the model is trained by",
        ),
    ],
)
def test_loss_without_matching_model_output_is_rejected(compiled, model, loss, says):
    with pytest.raises(ValueError, match=says):
        compiled(pretrain.run, model=lambda **_: model(), loss=loss)


def test_an_encoder_of_other_pixels_is_rejected(compiled):
    scaled = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Rescaling(1 / 255), keras.layers.GlobalMaxPooling2D()]
    )
    model = functools.partial(models.contrastive_model, scaled, projection=(4,))
    with pytest.raises(ValueError, match=r"divides its images first, so it takes 0\.\.\.255"):
        compiled(pretrain.run, model=model, loss=losses.SupConLoss())


def test_mixed_labels_are_rejected_by_a_loss_of_memberships(compiled):
    with pytest.raises(UserError, match="SupConLoss needs class memberships, mixed labels are"):
        compiled(
            pretrain.run,
            model=lambda **_: contrastive(num_views=1),
            loss=losses.SupConLoss(),
            batches=functools.partial(training_batches, mixing=mixup),
        )


def test_soft_labels_need_mixed_images(compiled):
    with pytest.raises(UserError, match="SoftSupConLoss needs rows of class weights: set"):
        compiled(pretrain.run, model=lambda **_: contrastive(), loss=losses.SoftSupConLoss())


def test_a_device_scores_at_most_its_training_batch(compiled, monkeypatch):
    sizes = []

    def noted(*arguments, batch_size, scorer=results.Scorer, **options):
        sizes.append(batch_size)
        return scorer(*arguments, batch_size=batch_size, **options)

    monkeypatch.setattr(results, "Scorer", noted)
    options = {"model": lambda **_: contrastive(), "loss": losses.SimCLRLoss()}
    compiled(pretrain.run, **options, batch_size=16, gradient_cache_chunk=4)
    compiled(pretrain.run, **options, batch_size=16)
    compiled(pretrain.run, **options, batch_size=1024)
    assert sizes == [4, 16, 256]


def test_warm_start_loads_the_named_parts(trained, compiled):
    folder, pretrained, _ = trained
    got = compiled(
        pretrain.run,
        model=lambda **_: contrastive(),
        loss=losses.SimCLRLoss(),
        warm_start=str(folder.root),
    )
    parts = models.model_parts(got["model"])
    assert are_equal(parts["encoder"], pretrained["encoder"])
    assert not are_equal(parts["projection_head"], pretrained["projection_head"])


def test_key_encoder_starts_from_the_loaded_weights(trained, compiled):
    folder, pretrained, _ = trained
    got = compiled(
        pretrain.run,
        model=lambda **_: momentum_memory_model(
            encoder(), image_shape=SHAPE, projection=(3,), num_classes=10, memory_size=8
        ),
        loss=losses.SupConLoss(),
        warm_start=str(folder.root),
    )
    keys = got["model"].get_layer("key_encoder").part_weights[0]
    for copy, weight in zip(keys, pretrained["encoder"].trainable_variables, strict=True):
        np.testing.assert_array_equal(copy.numpy(), weight.numpy())


def test_pretraining_multiplies_rates_by_part_and_freezes(compiled):
    images = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3, name="block1_conv")(images)
    x = keras.layers.BatchNormalization(name="block1_bn")(x)
    x = keras.layers.Conv2D(4, 3, activation="tanh", name="classifier_like")(x)
    x = keras.layers.BatchNormalization(name="last_bn")(x)
    built = models.contrastive_model(
        keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)),
        image_shape=SHAPE,
        projection=(3,),
        num_classes=10,
    )
    got = compiled(
        pretrain.run,
        model=lambda **_: built,
        loss=losses.SupConLoss(temperature=0.5),
        learning_rate_multipliers={"encoder": 0.25, "classifier": 0.0},
        freeze_through="block1",
        freeze_batch_norm=True,
    )
    model = got["model"]
    views, labels = next(iter(got["batches"](0, 1)))
    with tf.GradientTape() as tape:
        # In inference mode, as all batch normalisation is frozen.
        projection = model(views, training=False)["projection"]
        value = losses.SupConLoss(temperature=0.5)(labels["projection"], projection)
    parts = models.model_parts(model)
    before = {name: part.get_weights() for name, part in parts.items()}
    trained = [
        *parts["encoder"].get_layer("classifier_like").trainable_variables,
        *parts["projection_head"].trainable_variables,
    ]
    gradients = tape.gradient(value, [variable.value for variable in trained])
    assert [variable.path for variable in parts["encoder"].trainable_variables] == [
        "classifier_like/kernel", "classifier_like/bias",
    ]  # fmt: skip
    steps = {id(v): step for v, step in zip(
        model.trainable_variables, moved(model, views, labels), strict=True
    )}  # fmt: skip
    for variable, gradient, factor in zip(trained, gradients, [0.25, 0.25, 1.0], strict=True):
        np.testing.assert_allclose(steps[id(variable)], factor * gradient, rtol=1e-4, atol=1e-6)
    for weight, start in zip(parts["classifier"].get_weights(), before["classifier"], strict=True):
        np.testing.assert_array_equal(weight, start)
    for layer in ("block1_conv", "block1_bn", "last_bn"):
        assert not parts["encoder"].get_layer(layer).trainable
    unchanged = [
        np.array_equal(weight, start)
        for weight, start in zip(parts["encoder"].get_weights(), before["encoder"], strict=True)
    ]
    assert unchanged.count(False) == 2


@pytest.mark.parametrize(
    ("loss", "needs"),
    [(losses.SupConLoss(), True), (losses.NPairsLoss(), True), (losses.SimCLRLoss(), False)],
)
def test_losses_of_labelled_pairs_ask_for_batches_with_positives(compiled, loss, needs):
    asked = []

    def batches(*args, needs_positives, **options):
        asked.append(needs_positives)
        return training_batches(*args, **options)

    compiled(pretrain.run, model=lambda **_: contrastive(), loss=loss, batches=batches)
    model = parametric_model(encoder(), image_shape=SHAPE, projection=(3,), num_classes=10)
    compiled(
        pretrain.run,
        model=lambda **_: model,
        loss=losses.ParametricSupConLoss(num_classes=10),
        batches=batches,
    )
    assert asked == [needs, True]


def test_freezing_is_rejected_with_a_momentum_encoder(compiled):
    with pytest.raises(UserError, match=r"pretrain\.run\.freeze_through .* momentum encoder"):
        compiled(
            pretrain.run,
            model=lambda **_: momentum_memory_model(
                encoder(), image_shape=SHAPE, projection=(3,), num_classes=10, memory_size=8
            ),
            loss=losses.SupConLoss(),
            freeze_through="conv",
        )


def test_finetune_loads_the_classifier_and_scales_learning_rates_by_pattern(trained, compiled):
    folder, _, linear = trained
    got = compiled(
        finetune.run,
        encoder=str(folder.root),
        classifier=str(folder.root),
        learning_rate_multipliers={"conv/kernel": 0.0, "conv/": 0.25},
        callbacks=(history := keras.callbacks.History(),),
    )
    assert got["config"].callbacks == (history,)
    parts = models.model_parts(got["model"])
    assert are_equal(parts["classifier"], linear["classifier"])
    images, labels = next(iter(got["batches"](0, 1)))
    with tf.GradientTape() as tape:
        value = losses.CrossEntropyLoss()(labels["logits"], got["model"](images)["logits"])
    variables = got["model"].trainable_variables
    gradients = tape.gradient(value, [variable.value for variable in variables])
    factors = [0.0, 0.25, 1.0, 1.0]  # Kernel and bias of the encoder, then of the classifier.
    for step, gradient, factor in zip(
        moved(got["model"], images, labels), gradients, factors, strict=True
    ):
        np.testing.assert_allclose(step, factor * gradient, rtol=1e-4, atol=1e-6)
