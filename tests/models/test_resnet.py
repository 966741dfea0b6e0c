import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import models
from supcon_tf.errors import UserError
from supcon_tf.models.resnet import _Conv, _convolve

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
# Keras saves a variable by np.array, which NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def trainable_parameters(
    depth, *, width=1.0, stem="imagenet", resnext=False, shortcut="projection"
):
    """Sum of k*k*in*out/groups per convolution and two per batch-normalised channel."""

    def conv_bn(kernel, inputs, outputs, groups=1):
        return kernel * kernel * inputs * outputs // groups + 2 * outputs

    channels = int(64 * width)
    total = conv_bn(7 if stem == "imagenet" else 3, 3, channels)
    for group, blocks in enumerate(BLOCKS[depth]):
        filters = int(64 * 2**group * width)
        outputs = filters if depth < 50 else 4 * filters
        if shortcut == "projection" or group > 0 or channels != outputs:
            total += conv_bn(1, channels, outputs)
        for _ in range(blocks):
            if depth < 50:
                total += conv_bn(3, channels, filters) + conv_bn(3, filters, filters)
            else:
                inner, groups = (2 * filters, 64) if resnext else (filters, 1)
                total += conv_bn(1, channels, inner)
                total += conv_bn(3, inner, inner, groups)
                total += conv_bn(1, inner, outputs)
            channels = outputs
    return total


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


@functools.cache
def untrained(build, depth, width, stem="imagenet"):
    return build(depth, width=width, stem=stem)


def tiny(**options):
    return models.resnet(18, **{"width": 1 / 16, "stem": "cifar", **options})


def two_blocks():
    """The stem, a block and one with stride 2: the same weights at every call."""
    keras.utils.set_random_seed(1)
    model = tiny(zero_init_last_gamma=False)
    return keras.Model(
        model.input, model.get_layer("pool")(model.get_layer("group2_block1_out").output)
    )


def bn_layers(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def train_one_step(model, images):
    model.compile("sgd", "mse", jit_compile=False)
    targets = np.ones((len(images), model.output_shape[-1]), "float32")
    model.fit(images, targets, batch_size=len(images), verbose=0)


def test_parameter_formula_gives_the_published_counts():
    # torchvision's ResNet-18 (11,689,512) and ResNet-50 (25,557,032) less their classifiers; its
    # ResNet-18 has no projection in the first group.
    assert trainable_parameters(18) == 11_689_512 - 513 * 1000 + (64 * 64 + 2 * 64) == 11_180_736
    assert trainable_parameters(50) == 25_557_032 - 2049 * 1000 == 23_508_032


BUILT = [
    (18, 1.0, "imagenet"),
    (18, 0.25, "cifar"),
    (34, 0.25, "imagenet"),
    (50, 1.0, "imagenet"),
    (50, 0.125, "cifar"),
    (101, 0.125, "imagenet"),
    (152, 0.125, "imagenet"),
    (200, 0.125, "imagenet"),
]


@pytest.mark.parametrize(
    ("depth", "width", "stem"),
    [pytest.param(*case, marks=pytest.mark.slow if case[0] == 152 else ()) for case in BUILT],
)
def test_resnet_has_the_trainable_parameters_of_the_formula(depth, width, stem):
    model = untrained(models.resnet, depth, width, stem)
    assert count(model.trainable_variables) == trainable_parameters(depth, width=width, stem=stem)


@pytest.mark.parametrize(("depth", "convs"), [(18, 1 + 16 + 3), (50, 1 + 48 + 4)])
def test_identity_shortcut_drops_the_projection_where_shapes_agree(depth, convs):
    options = {"stem": "cifar", "shortcut": "identity_where_possible"}
    model = models.resnet(depth, **options)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(layers) == convs
    assert count(model.trainable_variables) == trainable_parameters(depth, **options)
    # The SupCon authors' PyTorch models: torchvision's with a 3x3 stem.
    published = {18: 11_689_512 - 513 * 1000, 50: 25_557_032 - 2049 * 1000}[depth]
    assert count(model.trainable_variables) == published - (49 - 9) * 3 * 64


def test_first_block_with_an_identity_shortcut_starts_as_the_identity():
    model = tiny(shortcut="identity_where_possible")
    outputs = [model.get_layer(name).output for name in ("stem_relu", "group1_block1_out")]
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    # Last gammas are zero.
    np.testing.assert_array_equal(*keras.Model(model.input, outputs)(x))


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_resnext_has_the_trainable_parameters_of_the_formula(width):
    model = untrained(models.resnext, 50, width)
    expected = trainable_parameters(50, width=width, resnext=True)
    assert count(model.trainable_variables) == expected


@pytest.mark.parametrize(
    ("stem", "size"),
    [("cifar", 32), ("cifar", 33), ("imagenet", 64), ("imagenet", 75), ("imagenet", 224)],
)
def test_feature_maps_halve_rounding_up(stem, size):
    model = tiny(stem=stem, input_shape=(size, size, 3))
    halvings = 2 if stem == "imagenet" else 0
    for group in range(4):
        side = -(-size // 2 ** (halvings + group))
        channels = 4 * 2**group
        output = model.get_layer(f"group{group + 1}_block2_out").output
        assert output.shape == (None, side, side, channels)
    assert model.output_shape == (None, 32)


@pytest.mark.parametrize(("depth", "dim"), [(18, 512), (50, 2048)])
def test_any_image_size_gives_one_vector_per_image(depth, dim):
    model = untrained(models.resnet, depth, 1.0)
    for size in (32, 224):
        assert model.compute_output_shape((5, size, size, 3)) == (5, dim)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_strided_convolution_is_every_second_output_of_an_unstrided_one(size, kernel_size):
    image = keras.Input((size, size, 3))
    conv = _Conv(5, kernel_size, strides=2)
    model = keras.Model(image, _convolve(image, conv, name="conv"))
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    kernel = model.get_layer("conv").kernel
    unstrided = keras.ops.conv(x, kernel, padding="same")
    np.testing.assert_allclose(model(x), unstrided[:, ::2, ::2], atol=1e-5)
    if size % 2 == 0:
        keras_same = keras.ops.conv(x, kernel, strides=2, padding="same")
        assert np.abs(keras_same - model(x)).max() > 0.1


@pytest.mark.parametrize("build", [models.resnet, models.resnext])
def test_bottlenecks_stride_on_their_3x3_convolution_and_project_in_first_blocks(build):
    model = untrained(build, 50, 1.0)
    names = {layer.name for layer in model.layers}
    for group, blocks in enumerate(BLOCKS[50], start=1):
        for block in range(1, blocks + 1):
            prefix = f"group{group}_block{block}"
            stride = 2 if group > 1 and block == 1 else 1
            convs = [model.get_layer(f"{prefix}_conv{i}") for i in (1, 2, 3)]
            assert [conv.kernel_size[0] for conv in convs] == [1, 3, 1]
            assert [conv.strides[0] for conv in convs] == [1, stride, 1]
            assert (f"{prefix}_shortcut_conv" in names) == (block == 1)


def test_convolutions_have_no_bias_and_variance_scaling_initialization():
    model = untrained(models.resnet, 18, 1.0)
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convs) == 1 + 16 + 4
    assert not any(conv.use_bias for conv in convs)
    for conv in convs:
        scaled = conv.kernel.numpy() * np.sqrt(np.prod(conv.kernel.shape[:3]))
        assert scaled.std() == pytest.approx(1, rel=5 / np.sqrt(scaled.size))
        # A unit normal cut at two deviations has deviation 0.8796.
        assert np.abs(scaled).max() <= 2 / 0.8796 + 1e-3


def test_a_given_initializer_draws_every_kernel_anew():
    he_normal = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    model = models.resnet(18, width=0.5, stem="cifar", kernel_initializer=he_normal)
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    assert len(kernels) == 1 + 16 + 4
    for kernel in kernels:
        fan_out = kernel.shape[0] * kernel.shape[1] * kernel.shape[3]
        scaled = kernel * np.sqrt(fan_out / 2)
        assert scaled.std() == pytest.approx(1, rel=5 / np.sqrt(scaled.size))
    # Not truncated: one of 33 million draws of 2.8 million is beyond five deviations.
    largest = max(np.abs(kernel / kernel.std()).max() for kernel in kernels)
    assert largest > 4
    same_shape = [kernel for kernel in kernels if kernel.shape == (3, 3, 256, 256)]
    assert len(same_shape) == 3
    assert len(np.unique([kernel[0, 0, 0, 0] for kernel in same_shape])) == 3


def test_default_initializer_draws_what_its_name_draws():
    def stem(**options):
        keras.utils.set_random_seed(3)
        return tiny(**options).get_layer("stem_conv").kernel.numpy()

    np.testing.assert_array_equal(stem(), stem(kernel_initializer="variance_scaling"))
    assert (stem() != stem(kernel_initializer="he_normal")).any()


def test_zero_last_gamma_makes_blocks_without_projection_the_identity():
    model = tiny()
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    for group in range(1, 5):
        first, second = (
            keras.Model(model.input, model.get_layer(f"group{group}_block{block}_out").output)
            for block in (1, 2)
        )
        np.testing.assert_array_equal(first(x), second(x))


def test_only_last_gammas_of_resnet_are_initialized_with_zeros():
    assert {layer.name for layer in bn_layers(tiny()) if not layer.gamma.numpy().any()} == {
        f"group{group}_block{block}_bn2" for group in range(1, 5) for block in (1, 2)
    }
    for model in (untrained(models.resnext, 50, 1.0), tiny(zero_init_last_gamma=False)):
        assert all((layer.gamma.numpy() == 1).all() for layer in bn_layers(model))


def test_moving_statistics_take_a_tenth_of_the_batch():
    model = tiny()
    x = np.random.default_rng(0).normal(3, 2, size=(4, 8, 8, 3)).astype("float32")
    stem = keras.ops.conv(x, model.get_layer("stem_conv").kernel, padding="same").numpy()
    model(x, training=True)
    bn = model.get_layer("stem_bn")
    np.testing.assert_allclose(bn.moving_mean, 0.1 * stem.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bn.moving_variance, 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-4)
    assert {layer.epsilon for layer in bn_layers(model)} == {1e-5}


def test_variable_paths_are_layer_name_and_kind():
    paths = {variable.path for variable in tiny().variables}
    assert {"stem_conv/kernel", "group1_block1_conv1/kernel", "group4_block2_bn2/gamma"} <= paths
    assert {path.rsplit("/")[-1] for path in paths} == {
        *("kernel", "gamma", "beta", "moving_mean", "moving_variance")
    }


def test_eager_graph_and_xla_gradients_agree():
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")

    def update(run):
        model = two_blocks()
        weights = [variable.value for variable in model.trainable_variables]

        def gradients():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(x, training=True) ** 3)
            return tape.gradient(loss, weights)

        return [*run(gradients)(), *model.non_trainable_variables]

    eager = update(lambda function: function)
    graph = update(tf.function)
    xla = update(lambda function: tf.function(function, jit_compile=True))
    for one, two, three in zip(eager, graph, xla, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one, three, rtol=1e-4, atol=1e-4)


def test_saved_and_exported_models_compute_the_same(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    model = two_blocks()
    train_one_step(model, x)
    expected = model(x)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), expected)
    assert all(layer.synchronized for layer in bn_layers(loaded))

    model.export(tmp_path / "export", verbose=False)
    exported = tf.saved_model.load(tmp_path / "export")
    np.testing.assert_allclose(exported.serve(x), expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_network_gives_float32_vectors():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = tiny()
        features = model(np.ones((1, 8, 8, 3), "float32"))
        assert model.get_layer("stem_conv").compute_dtype == "bfloat16"
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert features.dtype == tf.float32


@pytest.mark.parametrize("size", [8, 9])
def test_shortcut_of_few_channels_has_the_gradient_of_a_strided_product(size):
    image = keras.Input((size, size, 4))
    conv = keras.Model(image, _convolve(image, _Conv(6, 1, strides=2), name="conv"))
    random = np.random.default_rng(0)
    x = random.normal(size=(3, size, size, 4)).astype("float32")
    target = random.normal(size=conv(x).shape).astype("float32")
    kernel = conv.get_layer("conv").kernel.value
    with tf.GradientTape() as tape:
        output = conv(x)
        loss = tf.reduce_sum(output * target)

    pixels = x[:, ::2, ::2].astype("float64")
    np.testing.assert_allclose(output, pixels @ kernel.numpy()[0, 0], rtol=1e-4, atol=1e-5)
    expected = np.einsum("nhwc,nhwd->cd", pixels, target)
    np.testing.assert_allclose(tape.gradient(loss, kernel)[0, 0], expected, rtol=1e-4, atol=1e-4)


def test_grouped_convolution_trains_in_a_graph_like_one_convolution_per_group():
    image = keras.Input((9, 9, 8))
    conv = keras.Model(image, _convolve(image, _Conv(12, 3, strides=2, groups=4), name="conv"))
    kernel = conv.get_layer("conv").kernel.value  # [3, 3, 8 / 4, 12]
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 8)).astype("float32")

    def per_group(x):
        padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        inputs, kernels = tf.split(padded, 4, axis=-1), tf.split(kernel, 4, axis=-1)
        parts = [tf.nn.conv2d(*pair, 2, "VALID") for pair in zip(inputs, kernels, strict=True)]
        return tf.concat(parts, axis=-1)

    def gradient(function):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(function(x) ** 3)
        return tape.gradient(loss, kernel)

    expected = gradient(per_group)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(tf.function(gradient)(conv), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: models.resnet(20), r"depth must be one of \[18, 34, .*, 200\], got 20"),
        (lambda: models.resnext(18), r"depth must be one of \[50, 101, 152, 200\], got 18"),
        (lambda: models.resnet(18, width=0), "width must be a number > 0, got 0"),
        (lambda: models.resnet(18, width=-1.0), "width must be a number > 0, got -1.0"),
        (lambda: models.resnet(18, width=1 / 65), "width must be >= 1/64"),
        (lambda: models.resnet(18, width=float("nan")), "width must be a number > 0, got nan"),
        (lambda: models.resnext(50, width="1"), "width must be a number > 0, got '1'"),
        (lambda: models.resnet(18, input_shape=(8, 8)), r"input_shape must be .* got \(8, 8\)"),
        (lambda: models.resnet(18, input_shape=(8, 8, None)), "input_shape must be .* known"),
        (lambda: models.resnet(18, input_shape=(0, 8, 3)), "input_shape must be .* >= 1, got 0"),
        (lambda: models.resnext(50, width=0.25), r"width must be .* multiple of 0.5, got 0.25"),
        (lambda: tiny(shortcut="identity"), r"shortcut must be .*possible'\), got 'identity'"),
        (lambda: tiny(kernel_initializer="he"), 'initializer or its name, .*"he_normal", got .he.'),
        (lambda: tiny(kernel_initializer=0.1), "kernel_initializer must be .*, got 0.1"),
        (
            lambda: tiny(kernel_initializer=keras.initializers.HeNormal(seed=1)),
            "kernel_initializer must have no seed, .* got 1: set pretrain.run.seed",
        ),
        (lambda: models.resnet(18, stem="mnist"), r"stem must be .*'cifar'.*, got 'mnist'"),
    ],
)
def test_options_out_of_range_are_rejected(build, message):
    with pytest.raises(UserError, match=message):
        build()
