import functools
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from supcon_tf import models
from supcon_tf.errors import UserError

# Keras saves a variable by np.array, which NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (8, 8, 3)


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def small_encoder():
    """Batch statistics and dropout, so that training and inference differ."""
    x = images = keras.Input(SHAPE)
    x = layers.Conv2D(6, 3, strides=2, name="conv")(x)
    x = layers.BatchNormalization(momentum=0.5, name="norm")(x)
    x = layers.Dropout(0.5)(layers.ReLU()(x))
    return keras.Model(images, layers.GlobalAveragePooling2D()(x), name="users_encoder")


def small_model(**options):
    return models.contrastive_model(
        small_encoder(), image_shape=SHAPE, **{"projection": (7, 4), **options}
    )


def views(batch=6, count=2):
    return np.random.default_rng(0).normal(size=(batch, count, *SHAPE)).astype("float32")


LABELS = np.array([0, 1, 2, 0, 1, 2])


@keras.saving.register_keras_serializable(package="test")
def first_coordinate(_, projection):
    return tf.reduce_mean(projection[..., 0], axis=1)


def compile_for_training(model):
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = {"projection": first_coordinate, "logits": cross_entropy}
    model.compile("sgd", {name: losses[name] for name in model.output})


def gradients(model, images, output):
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images, training=True)[output][..., 0] ** 2)
    found = tape.gradient(loss, variables)
    return {
        variable.path: gradient
        for variable, gradient in zip(model.trainable_variables, found, strict=True)
    }


@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_projection_of_a_view_does_not_depend_on_the_other_views(num_views):
    model = small_model(num_views=num_views)
    images = views(count=num_views)
    projection = model(images)
    assert projection.shape == (6, num_views, 4)
    head = models.model_parts(model)["projection_head"]
    for view in range(num_views):
        alone = head(models.embedding_model(model)(images[:, view]))
        np.testing.assert_allclose(projection[:, view], alone, rtol=1e-5, atol=1e-6)


def test_views_share_one_batch_of_the_encoder():
    model = small_model()
    images = views()
    encoder = models.model_parts(model)["encoder"]
    maps = encoder.get_layer("conv")(images.reshape(12, *SHAPE))
    expected = 0.5 * np.mean(maps, axis=(0, 1, 2))
    model(images, training=True)
    np.testing.assert_allclose(
        encoder.get_layer("norm").moving_mean, expected, rtol=1e-5, atol=1e-6
    )


def test_permuted_views_give_permuted_projections():
    model = small_model(num_views=3)
    images = views(count=3)
    order = [2, 0, 1]
    permuted = model(images[:, order])
    np.testing.assert_allclose(permuted, model(images).numpy()[:, order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_embedding_has_unit_length_only_when_normalized(normalize):
    model = small_model(normalize_embedding=normalize, num_classes=3)
    images = views()
    features = models.model_parts(model)["encoder"](images[:, 0]).numpy()
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.01
    expected = features / lengths if normalize else features
    embedding = models.embedding_model(model)(images[:, 0])
    np.testing.assert_allclose(embedding, expected, rtol=1e-5)

    kernel, bias = models.model_parts(model)["classifier"].get_weights()
    logits = model(images)["logits"]
    np.testing.assert_allclose(logits, expected @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_probe_sees_view_zero_and_trains_only_itself():
    model = small_model(num_classes=3)
    images = views()
    logits = model(images)["logits"]
    other_second_view = np.stack([images[:, 0], images[::-1, 1]], axis=1)
    np.testing.assert_allclose(model(other_second_view)["logits"], logits, rtol=1e-5)

    found = gradients(model, images, "logits")
    assert {path for path, gradient in found.items() if gradient is not None} == {
        "classifier/kernel",
        "classifier/bias",
    }


def test_projection_trains_encoder_and_head_but_not_the_probe():
    found = gradients(small_model(num_classes=3), views(), "projection")
    assert {path for path, gradient in found.items() if gradient is None} == {
        "classifier/kernel",
        "classifier/bias",
    }
    for name in ("conv", "projection_head_dense1", "projection_head_dense2"):
        assert np.any(found[f"{name}/kernel"])


def test_fit_trains_projection_and_probe_together():
    model = small_model(num_classes=3)
    compile_for_training(model)
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    history = model.fit(views(), {"projection": LABELS, "logits": LABELS}, verbose=0).history
    assert set(history) == {"loss", "projection_loss", "logits_loss"}
    for variable in model.trainable_variables:
        if variable.path.endswith("/kernel"):
            assert np.abs(variable.numpy() - before[variable.path]).max() > 0


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("train_encoder", [True, False])
def test_classification_model_is_a_linear_map_of_the_embedding(normalize, train_encoder):
    model = models.classification_model(
        small_encoder(),
        image_shape=SHAPE,
        num_classes=3,
        normalize_embedding=normalize,
        train_encoder=train_encoder,
    )
    images = views()[:, 0]
    kernel, bias = models.model_parts(model)["classifier"].get_weights()
    embedding = models.embedding_model(model)(images).numpy()
    lengths = np.linalg.norm(embedding, axis=1)
    assert (np.abs(lengths - 1).max() < 1e-5) == normalize
    np.testing.assert_allclose(
        model(images)["logits"], embedding @ kernel + bias, rtol=1e-4, atol=1e-5
    )


def test_frozen_encoder_stays_in_inference_mode_and_unchanged_by_training():
    encoder = small_encoder()
    encoder(views()[:, 0], training=True)  # statistics that differ from the initial ones
    model = models.classification_model(
        encoder, image_shape=SHAPE, num_classes=3, train_encoder=False
    )
    images = views()[:, 0]
    np.testing.assert_array_equal(
        model(images, training=True)["logits"], model(images, training=False)["logits"]
    )
    assert [variable.path for variable in model.trainable_variables] == [
        "classifier/kernel",
        "classifier/bias",
    ]

    # The seed generator of dropout must not change either.
    frozen = [variable.numpy() for variable in encoder.variables]
    classifier = model.get_layer("classifier").get_weights()
    compile_for_training(model)
    model.fit(images, {"logits": LABELS}, verbose=0)
    for before, variable in zip(frozen, encoder.variables, strict=True):
        np.testing.assert_array_equal(before, variable)
    for before, after in zip(classifier, model.get_layer("classifier").get_weights(), strict=True):
        assert np.abs(before - after).max() > 0


@pytest.mark.parametrize("train_encoder", [True, False])
def test_backward_graph_holds_the_encoder_only_when_it_trains(train_encoder):
    encoder = small_encoder()
    model = models.classification_model(
        encoder, image_shape=SHAPE, num_classes=3, train_encoder=train_encoder
    )
    kernels = [
        encoder.get_layer("conv").kernel.value,
        model.get_layer("classifier").weights[0].value,
    ]

    @tf.function
    def backward(images):
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            loss = tf.reduce_sum(model(images, training=True)["logits"])
        of_encoder, of_classifier = tape.gradient(loss, kernels)
        assert (of_encoder is not None) == train_encoder
        return of_classifier

    graph = backward.get_concrete_function(tf.TensorSpec((2, *SHAPE))).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert "Conv2D" in kinds
    assert ("Conv2DBackpropFilter" in kinds) == train_encoder


def test_encoder_frozen_in_one_model_trains_in_the_next():
    encoder = small_encoder()
    options = {"image_shape": SHAPE, "num_classes": 3}
    models.classification_model(encoder, train_encoder=False, **options)
    assert not encoder.trainable_variables
    finetuned = models.classification_model(encoder, train_encoder=True, **options)
    assert len(finetuned.trainable_variables) == 4 + 2


def test_encoder_loaded_from_a_frozen_model_trains(tmp_path):
    options = {"image_shape": SHAPE, "num_classes": 3, "normalize_embedding": True}
    linear = models.classification_model(small_encoder(), train_encoder=False, **options)
    linear.save(tmp_path / "linear.keras")
    loaded = keras.models.load_model(tmp_path / "linear.keras")
    encoder = models.embedding_model(loaded)
    images = views()[:, 0]
    np.testing.assert_array_equal(encoder(images), models.embedding_model(linear)(images))

    finetuned = models.classification_model(encoder, train_encoder=True, **options)
    found = gradients(finetuned, images, "logits")
    assert len(found) == 4 + 2
    assert all(np.any(gradient) for path, gradient in found.items() if path != "conv/bias")


def test_layers_that_the_user_froze_stay_frozen():
    encoder = small_encoder()
    encoder.get_layer("conv").trainable = False
    model = models.classification_model(encoder, image_shape=SHAPE, num_classes=3)
    assert [variable.path.split("/")[-1] for variable in model.trainable_variables] == [
        *("gamma", "beta", "kernel", "bias")
    ]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("contrastive", marks=pytest.mark.slow),
        "probe",
        pytest.param("trained", marks=pytest.mark.slow),
        "frozen",
    ],
)
def test_trained_models_and_their_parts_survive_a_keras_file(kind, tmp_path):
    if kind in ("contrastive", "probe"):
        model = small_model(num_classes=3 if kind == "probe" else None, batch_norm=True)
        images = views()
    else:
        model = models.classification_model(
            small_encoder(), image_shape=SHAPE, num_classes=3, train_encoder=kind == "trained"
        )
        images = views()[:, 0]
    if kind == "contrastive":
        model.compile("sgd", first_coordinate)
        model.fit(images, LABELS, verbose=0)
    else:
        compile_for_training(model)
        model.fit(images, dict.fromkeys(model.output, LABELS), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    tf.nest.map_structure(np.testing.assert_array_equal, loaded(images), model(images))
    one_view = views()[:, 0]
    np.testing.assert_array_equal(
        models.embedding_model(loaded)(one_view), models.embedding_model(model)(one_view)
    )
    parts, loaded_parts = models.model_parts(model), models.model_parts(loaded)
    assert parts.keys() == loaded_parts.keys()
    assert loaded_parts["encoder"].name == "users_encoder"
    for name, part in parts.items():
        assert [variable.path for variable in loaded_parts[name].trainable_variables] == [
            variable.path for variable in part.trainable_variables
        ]
    np.testing.assert_array_equal(loaded_parts["encoder"](one_view), parts["encoder"](one_view))


@pytest.mark.parametrize("num_classes", [None, 3])
def test_parts_hold_every_trainable_variable_once(num_classes):
    model = small_model(num_classes=num_classes)
    parts = models.model_parts(model)
    assert list(parts) == [
        "encoder",
        "projection_head",
        *["classifier"] * (num_classes is not None),
    ]
    in_parts = [variable for part in parts.values() for variable in part.trainable_variables]
    assert {id(variable) for variable in in_parts} == {
        id(variable) for variable in model.trainable_variables
    }
    assert len(in_parts) == len(model.trainable_variables)


def test_bfloat16_model_gives_float32_projections_logits_and_embeddings():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = small_model(num_classes=3)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert models.model_parts(model)["encoder"].get_layer("conv").compute_dtype == "bfloat16"
    outputs = model(views())
    assert {name: output.dtype for name, output in outputs.items()} == {
        "projection": tf.float32,
        "logits": tf.float32,
    }
    embedding = models.embedding_model(model)(views()[:, 0])
    assert embedding.dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-6)


def test_images_too_small_for_an_encoder_are_rejected():
    first = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 5)])
    encoder = keras.Sequential([first, keras.layers.GlobalAveragePooling2D()], name="large")
    with pytest.raises(UserError, match=r"images of 4x4 px are too small for large: set views\.Pr"):
        models.contrastive_model(encoder, image_shape=(4, 4, 3))


def test_keras_application_is_an_encoder():
    encoder = keras.applications.MobileNetV2(
        weights=None, include_top=False, pooling="avg", alpha=0.35, input_shape=(32, 32, 3)
    )
    model = models.contrastive_model(encoder, image_shape=(32, 32, 3), projection=(4,))
    assert model.output_shape == (None, 2, 4)
    assert models.model_parts(model)["encoder"] is encoder


def encoder_of(shape):
    """A small encoder of images, series or vectors with batch statistics."""
    x = inputs = keras.Input(shape)
    if len(shape) == 3:
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, name="conv")(x))
    elif len(shape) == 2:
        x = layers.GlobalAveragePooling1D()(layers.Conv1D(6, 3, name="conv")(x))
    else:
        x = layers.Dense(6, activation="relu", name="dense")(x)
    return keras.Model(inputs, layers.BatchNormalization(name="norm")(x), name="users_encoder")


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((6, 10, 3), id="not_square", marks=pytest.mark.slow),
        pytest.param((8, 8, 1), id="one_channel", marks=pytest.mark.slow),
        pytest.param((6, 10, 5), id="not_square_five_channels"),
        pytest.param((9, 4), id="series"),
        pytest.param((12,), id="vectors"),
    ],
)
def test_samples_of_any_shape_are_embedded_view_by_view_and_trained(shape, tmp_path):
    model = models.contrastive_model(
        encoder_of(shape), image_shape=list(shape), projection=(7, 4), num_classes=3
    )
    samples = np.random.default_rng(0).normal(size=(6, 2, *shape)).astype("float32")
    embed = models.embedding_model(model)
    head = models.model_parts(model)["projection_head"]
    outputs = model(samples)
    assert outputs["projection"].shape == (6, 2, 4)
    for view in range(2):
        alone = head(embed(samples[:, view]))
        np.testing.assert_allclose(outputs["projection"][:, view], alone, rtol=1e-5, atol=1e-6)

    compile_for_training(model)
    before = [variable.numpy() for variable in model.trainable_variables]
    model.fit(samples, dict.fromkeys(model.output, LABELS), verbose=0)
    assert all(
        np.abs(variable.numpy() - start).max() > 0
        for variable, start in zip(model.trainable_variables, before, strict=True)
        if variable.path.endswith("/kernel")
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(samples)["projection"], model(samples)["projection"])

    classifier = models.classification_model(encoder_of(shape), image_shape=shape, num_classes=3)
    assert classifier(samples[:, 0])["logits"].shape == (6, 3)
    memory = models.momentum_memory_model(
        encoder_of(shape), image_shape=shape, projection=(7, 4), memory_size=8
    )
    assert memory(samples).shape == (6, 2, 4)


@pytest.fixture
def keras_settings():
    """Keras' global settings, as ~/.keras/keras.json for another project may set them."""

    def set_to(*, image_data_format="channels_last", dtype="float32"):
        keras.config.set_image_data_format(image_data_format)
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)

    yield set_to
    set_to()


def test_resnet_ignores_channels_first_in_the_settings_of_keras(keras_settings):
    def outputs():
        keras.utils.set_random_seed(0)
        encoder = models.resnet(18, width=1 / 16, stem="imagenet", zero_init_last_gamma=False)
        model = models.contrastive_model(
            encoder, image_shape=(32, 40, 3), projection=(7, 4), batch_norm=True
        )
        return model(np.random.default_rng(0).normal(size=(2, 2, 32, 40, 3)))

    expected = outputs()
    keras_settings(image_data_format="channels_first")
    np.testing.assert_array_equal(outputs(), expected)


def test_channels_first_encoder_is_rejected_with_the_setting_to_change(keras_settings):
    keras_settings(image_data_format="channels_first")
    encoder = keras.Sequential([layers.Conv2D(6, 3, name="conv"), layers.GlobalMaxPooling2D()])
    with pytest.raises(UserError, match=r"encoder layer 'conv' .*channels_last.*keras\.json"):
        models.contrastive_model(encoder, image_shape=SHAPE)


def test_another_backend_is_rejected_with_the_setting_to_change(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match=r"TensorFlow backend, got 'jax': set KERAS_BACKEND"):
        importlib.reload(models)


def test_models_train_and_return_float32_with_float64_in_the_settings_of_keras(keras_settings):
    keras_settings(dtype="float64")
    model = small_model(num_classes=3, batch_norm=True)
    compile_for_training(model)
    model.fit(views(), dict.fromkeys(model.output, LABELS), verbose=0)
    assert {output.dtype for output in model(views()).values()} == {tf.float32}
    assert models.embedding_model(model)(views()[:, 0]).dtype == tf.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_views": 0}, "num_views must be an integer >= 1, got 0"),
        ({"num_views": -1}, "num_views must be an integer >= 1, got -1"),
        ({"num_views": 2.0}, "num_views must be an integer >= 1, got 2.0"),
        ({"image_shape": (None, 8, 3)}, r"image_shape must be .*, got \(None, 8, 3\)"),
        ({"image_shape": 8}, "image_shape must be .*, got 8"),
        ({"image_shape": ()}, r"image_shape must be .*, got \(\)"),
        ({"image_shape": (2, 8, 8, 3)}, r"image_shape must be .*, got \(2, 8, 8, 3\)"),
        ({"image_shape": (0, 8, 3)}, "image_shape must be an integer >= 1, got 0"),
        ({"image_shape": (8, 8)}, r"images of shape \(8, 8\), got 'users_encoder'"),
        ({"image_shape": (9, 8, 3)}, r"images of shape \(9, 8, 3\), got .* input \(8, 8, 3\)"),
        ({"projection": 128}, "projection must be a sequence .* got 128"),
        ({"projection": ()}, r"projection must be a sequence .* got \(\)"),
        ({"projection": (0,)}, "projection must be an integer >= 1, got 0"),
        *(({"num_classes": 3, name: "False"}, f"{name} must be True or False, got 'False'")
          for name in ("normalize_embedding", "batch_norm", "zero_init_classifier",
                       "stop_classifier_gradient")),
        ({"projection_head": None}, "projection_head must be a function"),
        ({"projection_head": lambda *_, **__: None}, "must return a Keras model, got None"),
        ({"projection_head": lambda *_, **__: layers.Reshape((6, 1))}, r"to vectors, got reshape"),
        ({"num_classes": 1}, "num_classes must be an integer >= 2, got 1"),
        ({"num_classes": 0}, "num_classes must be an integer >= 2, got 0"),
        ({"num_classes": 10.0}, "num_classes must be an integer >= 2, got 10.0"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        models.contrastive_model(small_encoder(), **{"image_shape": SHAPE, **options})


def test_encoder_that_does_not_return_vectors_is_rejected():
    images = keras.Input(SHAPE)
    maps = layers.Conv2D(6, 3)(images)
    for output, shown in ((maps, r"shape=\(None, 6, 6, 6\)"), ({"maps": maps}, "'maps': ")):
        encoder = keras.Model(images, output, name="users_encoder")
        with pytest.raises(UserError, match=f"to vectors .* got users_encoder with .*{shown}"):
            models.classification_model(encoder, image_shape=SHAPE, num_classes=3)


@pytest.mark.parametrize("large_margin", [False, True])
def test_classifier_of_one_class_is_rejected(large_margin):
    with pytest.raises(UserError, match="num_classes must be an integer >= 2, got 1"):
        models.classification_model(
            small_encoder(), image_shape=SHAPE, num_classes=1, large_margin=large_margin
        )


def test_encoder_with_two_inputs_or_of_another_kind_is_rejected():
    inputs = [keras.Input(SHAPE), keras.Input(SHAPE)]
    features = layers.GlobalAveragePooling2D()(layers.Add()(inputs))
    encoder = keras.Model(inputs, features, name="users_encoder")
    with pytest.raises(UserError, match=r"'users_encoder' with inputs \(8, 8, 3\), \(8, 8, 3\)"):
        models.contrastive_model(encoder, image_shape=SHAPE)
    with pytest.raises(UserError, match="encoder must be a Keras model, got 'resnet50'"):
        models.classification_model("resnet50", image_shape=SHAPE, num_classes=3)


@pytest.mark.parametrize("option", ["train_encoder", "zero_init", "large_margin"])
def test_text_is_no_flag_of_a_classification_model(option):
    with pytest.raises(UserError, match=f"{option} must be True or False, got 'False'"):
        models.classification_model(
            small_encoder(), image_shape=SHAPE, num_classes=3, **{option: "False"}
        )


def test_an_encoder_may_not_have_the_name_of_a_layer_beside_it():
    encoder = keras.Sequential([keras.Input(SHAPE), layers.Flatten()], name="normalize")
    with pytest.raises(UserError, match="another name than 'normalize'"):
        models.contrastive_model(encoder, image_shape=SHAPE)


def test_heads_of_any_name_are_parts(tmp_path):
    def head(dim, *, units, batch_norm):
        return keras.Sequential([keras.Input((dim,)), layers.Dense(units[-1])], name="mine")

    model = small_model(projection_head=head, num_classes=3)
    assert model.output["projection"].shape[1:] == (2, 4)
    trainable = {variable.path for variable in model.trainable_variables}
    parts = models.model_parts(model)
    assert parts.keys() == {"encoder", "projection_head", "classifier"}
    assert {v.path for part in parts.values() for v in part.trainable_variables} == trainable
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert models.model_parts(loaded).keys() == parts.keys()
    np.testing.assert_array_equal(model(views())["projection"], loaded(views())["projection"])


def test_embedding_of_another_model_is_rejected():
    with pytest.raises(UserError, match=r"one of supcon_tf\.models, .* got None"):
        models.embedding_model(None)
    with pytest.raises(UserError, match=r"one of supcon_tf\.models, .* got users_encoder"):
        models.embedding_model(small_encoder())


def build_with_heads(kind, **heads):
    """One of the four models, with projections and classes where it has them."""
    encoder = models.resnet(18, width=1 / 16, stem="cifar")
    options = {"image_shape": (8, 8, 3), "num_classes": 3, **heads}
    if kind == "classification":
        del options["projection_head"]
        return models.classification_model(encoder, **options)
    options["projection"] = (6, 4)
    if kind == "swav":
        crops = ((8, 2, (0.3, 1.0)),)
        return models.swav_model(encoder, num_prototypes=5, crops=crops, **options)
    if kind == "momentum":
        return models.momentum_memory_model(encoder, memory_size=8, **options)
    return models.contrastive_model(encoder, **options)


@pytest.mark.parametrize("kind", ["contrastive", "momentum", "swav", "classification"])
def test_every_model_builds_its_heads_with_the_given_functions(kind):
    uniform = models.FanInUniform()
    model = build_with_heads(
        kind,
        projection_head=functools.partial(
            models.projection_head, last_bias=True, bias_initializer=uniform
        ),
        classification_head=functools.partial(models.classification_head, bias_initializer=uniform),
    )
    parts = models.model_parts(model)
    biases = {
        variable.path: np.abs(variable.numpy()).max()
        for name in parts.keys() - {"encoder", "prototypes"}
        for variable in parts[name].variables
        if variable.path.endswith("bias")
    }
    # 32 features of the encoder, and 6 hidden units; SwAV's head has batch normalisation.
    fan_in = {"classifier/bias": 32, "projection_head_dense1/bias": 32}
    fan_in["projection_head_dense2/bias"] = 6
    if kind == "swav":
        del fan_in["projection_head_dense1/bias"]
    if kind == "classification":
        fan_in = {"classifier/bias": 32}
    assert biases.keys() == fan_in.keys()
    for path, largest in biases.items():
        assert 0 < largest <= 1 / np.sqrt(fan_in[path])
