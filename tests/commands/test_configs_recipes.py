"""The settings that each published recipe trains with, against a table copied by hand from the papers' code."""

import dataclasses
import re
from types import SimpleNamespace

import gin
import keras
import numpy as np
import pytest

from supcon_tf import config, models
from supcon_tf.optimizers import LARS, apply_weight_decay
from supcon_tf.stages import linear, pretrain
from tests.commands.test_configs import FILES

IMAGES = {"imagenet": 1_281_167, "cifar10": 50_000, "cifar100": 50_000}

# Batch, augmentation, epochs, warm-up, optimizer, base rate, weight decay, decay of the rate; first
# for the stage that trains the encoder, then for the linear stage.
STAGES = {
    "imagenet/supcon_resnet50": [
        (6144, "autoaugment", 350, 12, "LARS", 0.4, 1e-3, "cosine"),
        (6144, "autoaugment", 90, 12, "RMSProp", 0.05, 1e-6, "exponential"),
    ],
    "imagenet/supcon_resnet101": [
        (4096, "autoaugment", 350, 12, "LARS", 0.4, 1e-4, "cosine"),
        (4096, "autoaugment", 90, 12, "RMSProp", 0.05, 1e-6, "exponential"),
    ],
    "imagenet/supcon_paper_head_resnet50": [
        (6144, "autoaugment", 350, 12, "LARS", 0.4, 1e-3, "cosine"),
        (6144, "autoaugment", 90, 12, "RMSProp", 0.05, 1e-6, "exponential"),
    ],
    "imagenet/supcon_stacked_randaugment_resnet101": [
        (4096, "stacked_randaugment", 350, 12, "LARS", 0.4, 1e-4, "cosine"),
        (4096, "stacked_randaugment", 90, 12, "RMSProp", 0.05, 1e-6, "exponential"),
    ],
    "imagenet/supcon_resnet200": [
        (4096, "stacked_randaugment", 700, 12, "LARS", 0.2, 1e-4, "cosine"),
        (4096, "stacked_randaugment", 90, 12, "RMSProp", 0.05, 1e-6, "exponential"),
    ],
    "imagenet/simclr_resnet50": [
        (6144, "simclr", 100, 12, "LARS", 0.3, 1e-4, "cosine"),
        (6144, "simclr", 90, 12, "Nesterov", 0.1, 1e-6, "cosine"),
    ],
    "imagenet/cross_entropy_resnet50": [
        (6144, "autoaugment", 200, 12, "Nesterov", 0.1, 1e-4, "cosine"),
    ],
    "imagenet/cross_entropy_resnet200": [
        (4096, "stacked_randaugment", 700, 12, "Nesterov", 0.1, 1e-4, "cosine"),
    ],
    "cifar10/supcon_resnet50": [
        (4096, "simclr", 1000, 10, "Momentum", 0.5, 1e-4, "cosine"),
        (4096, "simclr", 100, 0, "Momentum", 2.5, 0.0, "piecewise"),
    ],
    "cifar10/simclr_resnet50": [
        (1024, "simclr", 400, 10, "Momentum", 0.5, 1e-4, "cosine"),
        (1024, "simclr", 90, 0, "Momentum", 0.25, 0.0, "cosine"),
    ],
    "cifar10/cross_entropy_resnet50": [
        (1024, "simclr", 1000, 12, "Nesterov", 0.1, 5e-4, "cosine"),
    ],
}  # fmt: skip

# Loss, its options, projection head, and whether the heads take an embedding of unit length.
HEADS = {
    "imagenet/supcon_resnet50": ("SupConLoss", 0.1, True, [128], True),
    "imagenet/supcon_resnet101": ("SupConLoss", 0.1, True, [128], True),
    "imagenet/supcon_paper_head_resnet50": ("SupConLoss", 0.1, True, [2048, 128], True),
    "imagenet/supcon_stacked_randaugment_resnet101": ("SupConLoss", 0.1, True, [128], True),
    "imagenet/supcon_resnet200": ("SupConLoss", 0.1, True, [128], True),
    "imagenet/simclr_resnet50": ("SimCLRLoss", 0.1, False, [2048, 2048, 128], False),
    "cifar10/supcon_resnet50": ("SupConLoss", 0.1, True, [2048, 128], False),
    "cifar10/simclr_resnet50": ("SimCLRLoss", 0.5, False, [2048, 2048, 128], False),
}

TINY = [
    "SOURCE = @sources.digits()",
    "models.contrastive_model.encoder = @keras.Sequential()",
    "models.classification_model.encoder = @keras.Sequential()",
    "keras.Sequential.layers = [@keras.layers.Conv2D(), @keras.layers.BatchNormalization(), "
    "@keras.layers.GlobalAveragePooling2D()]",
    "keras.layers.Conv2D.filters = 4",
    "keras.layers.Conv2D.kernel_size = 3",
]


def handed_to_training(file, monkeypatch, *bindings):
    """The settings that a file's stages train with, by stage.

    Everything is as in the file, except a tiny encoder and images that need no download.
    """
    handed = {}

    def record(network, parts, objective, data, batches, settings):
        del parts, batches
        handed[settings.stage] = SimpleNamespace(
            model=network,
            losses=objective.losses,
            loss_weights=objective.weights,
            decayed=objective.trained_parts,
            preprocessing=data.preprocessing,
            augmentation=data.augmentation,
            **{field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)},
        )
        # Read here, because the linear stage freezes the encoder of the previous stage.
        handed[settings.stage].decaying = decaying(handed[settings.stage])

    def encoder(path, *, image_shape):
        return models.embedding_model(handed["pretrain"].model)

    for module in (pretrain, linear):
        monkeypatch.setattr(module, "compile_model", record)
        for name in (
            "StepBatches",
            "save_view_sheet",
            "record_encoder",
            "rehearse",
            "fit",
            "evaluate_and_save",
        ):
            monkeypatch.setattr(module, name, lambda *_, **__: None)
        monkeypatch.setattr(module, "run_images", lambda run_dir, stage, source, *_, **__: source)
    monkeypatch.setattr(linear, "load_encoder", encoder)
    config.parse([f"{file}.gin"], [*TINY, *bindings])
    runs = {"pretrain": pretrain.run, "linear": linear.run}
    for stage in gin.query_parameter("experiment.run.stages"):
        gin.get_configurable(runs[stage])(SimpleNamespace(root="/nowhere"))
    return handed


def schedule_of(file, settings):
    images = IMAGES[file.split("/")[0]]
    return settings.schedule(
        batch_size=settings.batch_size,
        steps_per_epoch=images / settings.batch_size,
        epochs=settings.epochs,
    )


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def decaying(settings):
    """The variables with weight decay, by the optimizer or the regularizers."""
    optimizer = settings.optimizer(learning_rate=0.1)
    parts = {
        name: part.trainable_variables for name, part in models.model_parts(settings.model).items()
    }
    variables = settings.model.trainable_variables
    apply_weight_decay(
        optimizer,
        settings.weight_decay,
        decayed=[variable for name in settings.decayed for variable in parts.pop(name)],
        others=[variable for part in parts.values() for variable in part],
    )
    if isinstance(optimizer, LARS):
        assert optimizer.get_config()["weight_decay"] == settings.weight_decay
        paths = [variable.path for variable in variables]
        return {
            path
            for path in paths
            if not any(re.search(pattern, path) for pattern in optimizer.exclude)
        }
    for variable in variables:
        if variable.regularizer is not None:
            # wd ||w||^2 / 2
            assert variable.regularizer.l2 == pytest.approx(settings.weight_decay / 2)
    return {variable.path for variable in variables if variable.regularizer is not None}


def check_optimizer(optimizer, name):
    kind, expected = {
        "LARS": (LARS, {"momentum": 0.9, "trust_coefficient": 0.001, "nesterov": False}),
        "RMSProp": (
            keras.optimizers.RMSprop,
            {"rho": 0.9, "momentum": 0.9, "epsilon": 0.001, "centered": False},
        ),
        "Momentum": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": False}),
        "Nesterov": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    }[name]
    assert type(optimizer) is kind
    assert expected.items() <= optimizer.get_config().items()


def check_rates(file, settings, row):
    batch, _, epochs, warmup, _, base, _, decay = row
    schedule = schedule_of(file, settings)
    images = IMAGES[file.split("/")[0]]

    def step_at(epoch):
        return int(epoch * images / batch)

    peak = base * batch / 256
    start = step_at(warmup)
    if warmup:
        assert rates(schedule, (0, start // 2)) == pytest.approx([0, peak * (start // 2) / start])
    assert float(schedule(start)) == pytest.approx(peak)
    middle = (warmup + epochs) / 2
    last = step_at(epochs) - 1
    if decay == "cosine":
        # Half a cosine from the end of the warm-up to the end: half of the peak, and nothing.
        assert float(schedule(step_at(middle))) == pytest.approx(peak / 2, rel=1e-2)
        assert float(schedule(last)) == pytest.approx(0, abs=1e-5 * peak)
    elif decay == "exponential":
        # Every half epoch a drop: 78 of them in 39.25 epochs, 155 just before epoch 78.
        at = [step_at(warmup + 39.25), last]
        assert rates(schedule, at) == pytest.approx([peak * 0.97**78, peak * 0.97**155], rel=1e-5)
    else:
        at = [step_at(epoch) for epoch in (59.5, 60.5, 74.5, 75.5, 89.5, 90.5)] + [last]
        drops = np.array([0, 1, 1, 2, 2, 3, 3])
        assert rates(schedule, at) == pytest.approx(list(peak * 0.2**drops))


def check_input(file, settings):
    """The views that the paper's code uses on the data set."""
    is_imagenet = file.startswith("imagenet/")
    preprocessing = settings.preprocessing
    assert preprocessing.image_px == (224 if is_imagenet else 32)
    if is_imagenet:
        assert preprocessing.normalization is None
    elif file.startswith("cifar10/"):
        means, deviations = preprocessing.normalization
        assert means == (-0.0172, -0.0356, -0.107)
        assert deviations == (0.4046, 0.3988, 0.402)
    expected = {
        "views.random_resized_crop.area_range": (0.08 if is_imagenet else 0.2, 1.0),
        "views.eval_crop.method": "resize_then_crop" if is_imagenet else "none",
        "views.simclr.strength": 1.0 if is_imagenet else 0.5,
        "views.simclr.jitter": "tensorflow" if is_imagenet else "torchvision",
        "views.simclr.blur_probability": 0.5 if is_imagenet else 0.0,
        "models.resnet.stem": "imagenet" if is_imagenet else "cifar",
    }
    if is_imagenet:
        options = {"strength": 1.0, "jitter": "tensorflow", "blur_probability": 0.5}
        expected |= {f"views.stacked_randaugment.{name}": value for name, value in options.items()}
    assert {name: config.bound_value(name) for name in expected} == expected


def head_of(model):
    """Units of the projection head's layers, whether the last one has a bias, whether there is batch norm."""
    layers = models.model_parts(model)["projection_head"].layers
    dense = [layer for layer in layers if isinstance(layer, keras.layers.Dense)]
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [layer.units for layer in dense], dense[-1].use_bias, len(norms)


@pytest.mark.parametrize("file", STAGES)
def test_a_recipe_trains_with_the_published_settings(file, monkeypatch):
    handed = handed_to_training(file, monkeypatch)
    rows = dict(zip(("pretrain", "linear"), STAGES[file], strict=False))
    assert list(handed) == list(rows)
    assert gin.query_parameter("models.resnet.depth") == int(file.rpartition("resnet")[2])
    for stage, row in rows.items():
        settings = handed[stage]
        batch, augmentation, epochs, _, optimizer, _, weight_decay, _ = row
        assert (settings.batch_size, settings.epochs) == (batch, epochs)
        assert settings.augmentation.__name__ == augmentation
        assert settings.weight_decay == weight_decay
        check_optimizer(settings.optimizer(learning_rate=0.1), optimizer)
        check_rates(file, settings, row)
        check_input(file, settings)
        classification = settings.losses["logits"]
        if "classifier" in settings.decayed:
            smoothing = 0.05 if file.startswith("imagenet/") else 0.0
            assert classification.get_config()["label_smoothing"] == smoothing
    # Biases decay too; normalisation and the probe do not.
    encoder = {"conv2d/kernel", "conv2d/bias"}
    classifier = {"classifier/kernel", "classifier/bias"}
    decayed = {
        re.sub(r"_\d+/", "/", path).removeprefix("sequential/")
        for path in handed["pretrain"].decaying
    }
    if file in HEADS:
        head = {path for path in decayed if path.startswith("projection_head_dense")}
        assert decayed == encoder | head
        _, _, _, units, _ = HEADS[file]
        hidden_biases = 0 if "simclr" in file else len(units) - 1
        assert len(head) == len(units) + hidden_biases
        assert handed["linear"].decaying == (classifier if handed["linear"].weight_decay else set())
    else:
        assert decayed == encoder | classifier


@pytest.mark.parametrize("file", HEADS)
def test_a_contrastive_recipe_has_the_published_loss_and_heads(file, monkeypatch):
    handed = handed_to_training(file, monkeypatch)
    loss_name, temperature, scaled, units, normalized = HEADS[file]
    model, loss = handed["pretrain"].model, handed["pretrain"].losses["projection"]
    assert type(loss).__name__ == loss_name
    options = loss.get_config()
    assert options["temperature"] == temperature
    assert options["scale_by_temperature"] == scaled
    if loss_name == "SupConLoss":
        assert (options["summation"], options["denominator"]) == ("outside", "all")
        assert options["positives_cap"] is None
    assert handed["pretrain"].loss_weights["projection"] == 1
    is_simclr = "simclr" in file
    assert head_of(model) == (units, False, len(units) - 1 if is_simclr else 0)
    assert model.output["projection"].shape == (None, 2, 128)
    last = models.embedding_model(model).layers[-1]
    assert isinstance(last, models.L2Normalization) == normalized
    for settings in handed.values():
        kernel = models.model_parts(settings.model)["classifier"].get_weights()[0]
        assert (not kernel.any()) == is_simclr


@pytest.mark.parametrize(
    ("file", "lr", "batch", "epochs", "linear_lr", "tau"),
    [
        ("cifar10/pytorch_supcon_resnet50", 0.5, 1024, 1000, 5.0, 0.1),
        ("cifar10/pytorch_simclr_resnet50", 0.5, 1024, 1000, 1.0, 0.5),
        ("cifar10/pytorch_cross_entropy_resnet50", 0.8, 1024, 500, None, None),
        ("cifar100/pytorch_supcon_resnet50", 0.5, 1024, 1000, 5.0, 0.1),
        ("cifar100/pytorch_simclr_resnet50", 0.5, 1024, 1000, 1.0, 0.5),
        ("cifar100/pytorch_cross_entropy_resnet50", 0.8, 1024, 500, None, None),
    ],
)
def test_the_pytorch_settings_are_absolute(file, lr, batch, epochs, linear_lr, tau, monkeypatch):
    handed = handed_to_training(file, monkeypatch)
    settings = handed["pretrain"]
    assert (settings.batch_size, settings.epochs, settings.weight_decay) == (batch, epochs, 1e-4)
    check_optimizer(settings.optimizer(learning_rate=0.1), "Momentum")
    check_input(file, settings)
    schedule = schedule_of(file, settings)
    start, end = int(10 * 50_000 / batch), int(epochs * 50_000 / batch)
    assert rates(schedule, (0, start)) == pytest.approx([0.01, lr])
    assert float(schedule(end)) == pytest.approx(1e-3 * lr)
    # Their cosine starts at epoch 0, ours at the end of the warm-up, as the headers say.
    for epoch in (0.1 * epochs, 0.3 * epochs, 0.5 * epochs, 0.8 * epochs):
        theirs = 1e-3 * lr + 0.999 * lr * (1 + np.cos(np.pi * epoch / epochs)) / 2
        limit = 0.01 * lr if epochs == 1000 else 0.02 * lr
        assert float(schedule(int(epoch * 50_000 / batch))) == pytest.approx(theirs, abs=limit)
    name = gin.query_parameter("sources.tfds.name")
    assert name == file.split("/")[0]
    if name == "cifar100":
        means, deviations = settings.preprocessing.normalization
        on_unit_scale = np.array([0.5071, 0.4867, 0.4408]), np.array([0.2675, 0.2565, 0.2761])
        np.testing.assert_allclose(means, 2 * on_unit_scale[0] - 1, atol=1e-7)
        np.testing.assert_allclose(deviations, 2 * on_unit_scale[1], atol=1e-7)
    if tau is None:
        assert list(handed) == ["pretrain"]
        assert settings.augmentation.__name__ == "identity"
        return
    assert settings.augmentation.__name__ == "simclr"
    options = settings.losses["projection"].get_config()
    assert (options["temperature"], options["scale_by_temperature"]) == (tau, True)
    assert tau * settings.loss_weights["projection"] == pytest.approx(tau / 0.07)
    assert head_of(settings.model) == ([2048, 128], True, 0)
    after = handed["linear"]
    assert (after.batch_size, after.epochs, after.weight_decay) == (512, 100, 0)
    assert after.augmentation.__name__ == "identity"
    at = [int(epoch * 50_000 / 512) for epoch in (0, 59.5, 60.5, 75.5, 90.5)]
    expected = linear_lr * 0.2 ** np.array([0, 0, 1, 2, 3])
    assert rates(schedule_of(file, after), at) == pytest.approx(list(expected))


LAYOUT = re.compile(
    r"(models\.resnet\.(zero|kernel|shortcut)|(linear/)?models\.\w+_head\.(last|kernel|bias))\w*|"
    r"keras\.initializers\..*"
)


def layout_of(*files):
    """The settings of initial weights, biases and shortcuts that a file sets."""
    values = config.parameter_values(config.parse(files, []), defaults=False)
    return {name: value for name, value in values.items() if LAYOUT.fullmatch(name)}


# Recipes from PyTorch code, and our own that learn faster with its layout.
PYTORCH_LAYOUT = re.compile(
    r"cifar100?/pytorch_.*|semi/.*|digits/(supcon|supcon_keras_cv|simclr)\.gin"
)


@pytest.mark.parametrize("file", FILES)
def test_a_recipe_has_the_layout_of_pytorch_or_the_released_one(file):
    pytorch = layout_of("digits/base.gin", "pytorch_layout.gin")
    assert len(pytorch) == 13
    assert layout_of(file) == (pytorch if PYTORCH_LAYOUT.fullmatch(file) else {})


def drawn(file):
    """Encoder, head and linear classifier that a file builds, at depth 18 and half the width."""
    keras.utils.set_random_seed(0)
    config.parse([file], ["models.resnet.depth = 18", "models.resnet.width = 0.5"])
    head = gin.get_configurable(models.projection_head)(256, units=(256, 128))
    with gin.config_scope("linear"):
        classifier = gin.get_configurable(models.classification_head)(256, 100)
    return gin.get_configurable(models.resnet)(), head, classifier


def largest_and_deviation(weights, scale):
    scaled = weights.numpy() * np.sqrt(scale)
    return np.abs(scaled).max(), scaled.std()


def test_the_released_layout_is_drawn():
    encoder, head, classifier = drawn("cifar10/supcon_resnet50.gin")
    kernels = [layer.kernel for layer in encoder.layers if hasattr(layer, "kernel")]
    assert len(kernels) == 1 + 16 + 4
    for kernel in kernels:
        largest, deviation = largest_and_deviation(kernel, np.prod(kernel.shape[:3]))
        assert largest <= 2 / 0.8796 + 1e-3  # Truncated at two deviations.
        assert deviation == pytest.approx(1, rel=5 / np.sqrt(np.prod(kernel.shape)))
    gammas = [layer.gamma.numpy() for layer in encoder.layers if hasattr(layer, "gamma")]
    assert sum(not gamma.any() for gamma in gammas) == 8
    kernel_1, bias_1, kernel_2 = head.weights
    for kernel in (kernel_1, kernel_2):
        assert largest_and_deviation(kernel, 1)[1] == pytest.approx(0.01, rel=0.02)
    assert not bias_1.numpy().any()
    kernel, bias = classifier.weights
    largest, _ = largest_and_deviation(kernel, (256 + 100) / 6)
    assert 0.99 < largest <= 1
    assert not bias.numpy().any()


@pytest.mark.parametrize(
    "file", ["cifar10/pytorch_supcon_resnet50.gin", "semi/swav_imagenet_resnet50.gin"]
)
def test_the_layout_of_pytorch_is_drawn(file):
    encoder, head, classifier = drawn(file)
    kernels = [layer.kernel for layer in encoder.layers if hasattr(layer, "kernel")]
    assert len(kernels) == 1 + 16 + 3
    for kernel in kernels:
        height, width, _, filters = kernel.shape
        # He et al.: deviation sqrt(2 / fan-out).
        largest, deviation = largest_and_deviation(kernel, height * width * filters / 2)
        assert deviation == pytest.approx(1, rel=5 / np.sqrt(np.prod(kernel.shape)))
        assert np.prod(kernel.shape) < 1e4 or largest > 3  # Not truncated.
    gammas = [layer.gamma.numpy() for layer in encoder.layers if hasattr(layer, "gamma")]
    assert all((gamma == 1).all() for gamma in gammas)
    assert head.layers[-2].use_bias
    for weights in (*head.weights, *classifier.weights):
        if weights.path.endswith(("kernel", "bias")):
            largest, deviation = largest_and_deviation(weights, 256)
            assert largest <= 1
            spread = 5 / np.sqrt(np.prod(weights.shape))
            assert deviation == pytest.approx(np.sqrt(1 / 3), rel=spread)


@pytest.mark.parametrize(
    ("file", "option", "value"),
    [
        ("supcon_inside", "summation", "inside"),
        ("supcon_one_positive", "denominator", "one_positive"),
        ("supcon_only_negatives", "denominator", "only_negatives"),
        ("supcon_positives_cap", "positives_cap", 2),
    ],
)
def test_an_ablation_is_the_recipe_with_one_other_option(file, option, value):
    recipe = config.parse(["imagenet/supcon_resnet50.gin"], [])
    ablation = config.parse([f"imagenet/{file}_resnet50.gin"], [])
    before = config.parameter_values(recipe)
    after = config.parameter_values(ablation)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {f"losses.SupConLoss.{option}"}
    assert gin.query_parameter(f"losses.SupConLoss.{option}") == value


def test_a_second_file_wins_over_the_first():
    both = config.parse(["cifar10/pytorch_supcon_resnet50.gin", "cifar100/base.gin"], [])
    assert both == config.parse(["cifar100/pytorch_supcon_resnet50.gin"], [])


def test_n_pairs_trains_on_one_view(monkeypatch):
    handed = handed_to_training("imagenet/n_pairs_resnet50", monkeypatch)
    assert handed["pretrain"].model.output["projection"].shape == (None, 1, 128)
    assert type(handed["pretrain"].losses["projection"]).__name__ == "NPairsLoss"


def test_triplet_has_the_budget_of_n_pairs():
    before, after = (
        config.parameter_values(config.parse([f"cifar10_small/{name}.gin"], []))
        for name in ("n_pairs", "triplet")
    )
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in changed if not name.startswith("losses.")} == {"pretrain.run.loss"}
    assert after["losses.TripletLoss.mining"] == "'semi_hard'"
    assert after["losses.TripletLoss.margin"] == "0.2"


def test_max_margin_on_cifar100_differs_in_the_data_only():
    before, after = (
        config.parameter_values(config.parse([f"{name}/max_margin_resnet50.gin"], []))
        for name in ("cifar10", "cifar100")
    )
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"sources.tfds.name", "views.Preprocessing.normalization"}
    assert after["sources.tfds.name"] == "'cifar100'"


@pytest.mark.parametrize(
    ("file", "augmentation", "mixing"),
    [
        ("mixup", "identity", {"mixing.mixup.alpha": 0.2}),
        ("cutmix", "identity", {"mixing.cutmix.alpha": 1.0, "mixing.cutmix.probability": 1.0}),
        ("randaugment", "randaugment", {"views.randaugment.layers": 2, "views.randaugment.magnitude": 10}),
    ],
)  # fmt: skip
def test_a_cross_entropy_baseline_is_the_recipe_with_another_input(
    file, augmentation, mixing, monkeypatch
):
    settings = handed_to_training(f"imagenet/{file}_resnet50", monkeypatch)["pretrain"]
    assert settings.augmentation.__name__ == augmentation
    assert {name: gin.query_parameter(name) for name in mixing} == mixing
    check_rates(
        "imagenet/cross_entropy_resnet50", settings, STAGES["imagenet/cross_entropy_resnet50"][0]
    )


def test_two_stage_cross_entropy_trains_a_new_classifier(monkeypatch):
    file = "imagenet/cross_entropy_two_stages_resnet50"
    handed = handed_to_training(file, monkeypatch)
    assert list(handed) == ["pretrain", "linear"]
    first, second = (models.model_parts(handed[stage].model) for stage in handed)
    assert second["classifier"] is not first["classifier"]
    assert second["encoder"].name == models.embedding_model(handed["pretrain"].model).name
    check_rates(file, handed["pretrain"], STAGES["imagenet/cross_entropy_resnet50"][0])
    check_rates(file, handed["linear"], STAGES["imagenet/supcon_resnet50"][1])


@pytest.mark.parametrize("folder", ["imagenet", "cifar10"])
def test_the_linear_files_are_the_second_stage_of_supcon(folder):
    recipe = config.parse([f"{folder}/supcon_resnet50.gin"], [])
    alone = config.parse([f"{folder}/linear.gin"], ["linear.run.encoder = '/some/run'"])
    before, after = map(config.parameter_values, (recipe, alone))
    assert after["experiment.run.stages"] == "('linear',)"
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"experiment.run.stages", "linear.run.encoder"}
