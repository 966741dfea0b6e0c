"""The numbers of the semi-supervised recipes, against a table copied by hand from the papers' code."""

import ast
from pathlib import Path

import gin
import numpy as np
import pytest

from supcon_tf import config
from supcon_tf.optimizers import warmup_schedule
from tests.commands.test_configs import FILES, values_of

SEMI = [file for file in FILES if file.startswith("semi/")]
PRETRAINED = [file for file in SEMI if "supervised" not in file]
IMAGES = 1_281_167

LARS = {
    "pretrain.run.weight_decay": 1e-6,
    "pretrain.run.optimizer": "@optimizers.LARS",
    "optimizers.LARS.momentum": 0.9,
    "optimizers.warmup_schedule.scale_by_batch": False,
    "optimizers.warmup_schedule.warmup_epochs": 10,
}
# SuNCEt's released code, with SimCLR alone: https://arxiv.org/abs/2006.10803.
SIMCLR = LARS | {
    "models.resnet.depth": 50,
    "models.resnet.zero_init_last_gamma": False,
    "models.contrastive_model.projection": (2048, 2048, 2048),
    "models.contrastive_model.batch_norm": True,
    "models.contrastive_model.normalize_embedding": False,
    "models.projection_head.last_bias": True,
    "losses.SimCLRLoss.temperature": 0.1,
    "losses.SimCLRLoss.contrast_gradient": False,
    "optimizers.LARS.exclude": ("/(gamma|beta|bias)$",),
    "pretrain.run.epochs": 500,
    "pretrain.run.batch_size": 4096,
    "views.Preprocessing.image_px": 224,
    "views.Preprocessing.normalization": ((-0.03, -0.088, -0.188), (0.458, 0.448, 0.45)),
    "views.random_resized_crop.area_range": (0.08, 1.0),
    "views.simclr.strength": 1.0,
    "views.simclr.jitter": "torchvision",
    "views.simclr.grey_probability": 0.2,
    "views.simclr.blur_probability": 0.5,
    "sources.subset.fraction": 0.1,
}
SUNCET = SIMCLR | {
    "pretrain.run.batch_size": 64 * 44,
    "semi_supervised.batches.labelled_classes": 20,
    "semi_supervised.batches.samples_per_class": 2 * 64,
    "semi_supervised.batches.views_per_labelled_image": 1,
    "semi_supervised.batches.repeat_images": True,
    "semi_supervised.batches.labelled_epochs": 250,
    "losses.SuNCEtLoss.temperature": 0.1,
    "losses.SemiSupervisedLoss.weight": 1.0,
}
# SwAV's released code: https://arxiv.org/abs/2006.09882.
SWAV = LARS | {
    "models.resnet.depth": 50,
    "swav.swav_model.projection": (2048, 128),
    "swav.swav_model.batch_norm": True,
    "swav.swav_model.num_prototypes": 3000,
    "swav.swav_model.epsilon": 0.05,
    "swav.swav_model.rounds": 3,
    "swav.swav_model.frozen_steps": 313,
    "losses.SwAVLoss.temperature": 0.1,
    "optimizers.LARS.exclude": (),
    "pretrain.run.epochs": 800,
    "pretrain.run.batch_size": 4096,
    "multi_crop.batches.crops": ((224, 2, (0.14, 1.0)), (96, 6, (0.05, 0.14))),
    "views.simclr.strength": 1.0,
    "views.simclr.blur_probability": 0.5,
}
SUNCET_FINE_TUNING = {
    "finetune.run.epochs": 50,
    "finetune.run.batch_size": 256,
    "finetune.run.weight_decay": 0.0,
    "finetune.run.zero_init": True,
    "finetune.run.learning_rate_multipliers": None,
    "finetune/keras.optimizers.SGD.momentum": 0.9,
    "finetune/keras.optimizers.SGD.nesterov": True,
    "finetune/optimizers.warmup_schedule.scale_by_batch": False,
}
SWAV_FINE_TUNING = SUNCET_FINE_TUNING | {
    "finetune.run.epochs": 20,
    "finetune.run.zero_init": False,
    "finetune.run.learning_rate_multipliers": {"classifier": 20.0},
    "finetune/keras.optimizers.SGD.nesterov": False,
}
# SuNCEt's released code on CIFAR-10.
CIFAR10 = {
    "views.random_resized_crop.area_range": (0.5, 1.0),
    "views.simclr.strength": 0.5,
    "views.simclr.jitter": "torchvision",
    "views.simclr.grey_probability": 0.0,
    "views.simclr.solarize_probability": 0.2,
    "views.simclr.equalize_probability": 0.2,
    "views.simclr.blur_probability": 0.0,
    "views.Preprocessing.normalization": ((-0.0172, -0.0356, -0.107), (0.4046, 0.3988, 0.402)),
    "losses.SimCLRLoss.contrast_gradient": False,
    "models.resnet.zero_init_last_gamma": False,
    "models.projection_head.last_bias": True,
}
PUBLISHED = {
    "simclr_imagenet_resnet50": SIMCLR | SUNCET_FINE_TUNING,
    "simclr_suncet_imagenet_resnet50": SUNCET | SUNCET_FINE_TUNING,
    "swav_imagenet_resnet50": SWAV | SWAV_FINE_TUNING,
    "swav_suncet_imagenet_resnet50": SWAV | SWAV_FINE_TUNING | {
        "pretrain.run.epochs": 400,
        "pretrain.run.batch_size": 2816,
    },
    "supervised_imagenet_resnet50": {"pretrain.run.epochs": 200, "sources.subset.fraction": 0.1},
    "simclr_cifar10_resnet18": CIFAR10 | SUNCET_FINE_TUNING,
    "simclr_cifar10_resnet50": CIFAR10 | SUNCET_FINE_TUNING | {"models.resnet.depth": 50},
    "simclr_suncet_cifar10_resnet18": CIFAR10 | SUNCET_FINE_TUNING,
    "simclr_suncet_cifar10_resnet50": CIFAR10 | SUNCET_FINE_TUNING | {"models.resnet.depth": 50},
    "suncet_cifar10_resnet18": CIFAR10 | SUNCET_FINE_TUNING,
    "swav_cifar10_resnet18": SWAV_FINE_TUNING,
    "swav_suncet_cifar10_resnet18": SWAV_FINE_TUNING,
}  # fmt: skip


def value(text):
    return text if text.startswith("@") else ast.literal_eval(text)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_numbers(name):
    values = config.parameter_values(config.parse([f"semi/{name}.gin"], []), macros=True)
    expected = PUBLISHED[name]
    assert {key: value(values[key]) for key in expected} == expected


def views_of_a_step(*files):
    """Images that a step puts through the encoder; all crops count."""
    values = config.parameter_values(config.parse(files, []), macros=True)

    def number(name, default=0):
        return value(values[name]) if values.get(name, "None") != "None" else default

    crops = number("multi_crop.batches.crops") if "swav" in files[0] else ((32, 2, (0, 1)),)
    views_of_image = sum(count for _, count, _ in crops)
    name = "semi_supervised.batches"
    labelled = number(f"{name}.labelled_classes") * number(f"{name}.samples_per_class")
    views_of_labelled = number(f"{name}.views_per_labelled_image", views_of_image)
    unlabelled = number("pretrain.run.batch_size")
    return unlabelled * views_of_image + labelled * views_of_labelled


@pytest.mark.parametrize(
    ("recipe", "added", "views"),
    [
        ("simclr{}_imagenet_resnet50", (), 64 * 64 * 2),
        ("simclr{}_cifar10_resnet18", (), 256 * 2),
        ("simclr{}_cifar10_resnet50", (), 256 * 2),
        ("simclr{}_cifar10_resnet18", ("studies/cifar10_semi_small{}.gin",), 128 * 2),
        ("swav{}_imagenet_resnet50", (), 4096 * 8),
        ("swav{}_cifar10_resnet18", (), 256 * 6),
        ("swav{}_cifar10_resnet18", ("studies/cifar10_semi_small{}.gin",), 128 * 4),
    ],
)
def test_a_step_with_suncet_has_as_many_views_as_one_without(recipe, added, views):
    for with_suncet in ("", "_suncet"):
        files = [file.format(with_suncet) for file in (f"semi/{recipe}.gin", *added)]
        assert views_of_a_step(*files) == views


def rates(scope, epochs, batch_size, at):
    """The learning rates at these epochs of a parsed file, which count from the first step."""
    with gin.config_scope(scope):
        schedule = gin.get_configurable(warmup_schedule)(
            batch_size=batch_size, steps_per_epoch=IMAGES / batch_size, epochs=epochs
        )
    return [float(schedule(int(epoch * IMAGES / batch_size))) for epoch in at]


def test_learning_rates_of_pretraining_are_the_published_ones():
    for file, start, end in (("simclr", 0.6, 0.048), ("swav", 0.3, 0.0048)):
        config.parse([f"semi/{file}_imagenet_resnet50.gin"], [])
        epochs = config.bound_value("pretrain.run.epochs")
        # Linear to 4.8 in 10 epochs; half of the way down in the middle of the rest.
        at = (0, 5, 10, (10 + epochs) / 2, epochs)
        expected = [start, (start + 4.8) / 2, 4.8, (4.8 + end) / 2, end]
        assert rates(None, epochs, 4096, at) == pytest.approx(expected, rel=2e-3)


def test_learning_rates_of_fine_tuning_are_the_published_ones():
    config.parse(["semi/simclr_imagenet_resnet50.gin"], [])
    assert rates("finetune", 50, 256, (0, 25, 50)) == pytest.approx([0.02, 0.01, 0], abs=1e-6)
    config.parse(["semi/swav_imagenet_resnet50.gin"], [])
    expected = 0.01 * 0.2 ** np.array([0, 0, 1, 1, 2, 2])
    at = (0, 11.9, 12.1, 15.9, 16.1, 19.9)
    assert rates("finetune", 20, 256, at) == pytest.approx(list(expected))


@pytest.mark.parametrize("file", PRETRAINED)
def test_fine_tuning_only_crops_and_flips(file):
    assert values_of(file)["finetune.run.augmentation"] == "@finetune/views.identity"
    config.parse([file], [])
    crop = gin.query_parameter("finetune.run.preprocessing").scoped_configurable_fn().crop
    shown = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    results = {
        np.rint(crop(shown, seed=seed, size_px=32).numpy() * 255).astype(np.uint8).tobytes()
        for seed in range(20)
    }
    # CIFAR-10: flips only.
    whole = {shown.tobytes(), shown[:, ::-1].tobytes()}
    assert results == whole if "cifar10" in file else len(results) == 20


def test_labels_can_be_a_published_list_or_set():
    line = "sources.subset.list_file = 'labelled.txt'"
    for file in ("semi/simclr_imagenet_resnet50.gin", "semi/simclr_cifar10_resnet18.gin"):
        config.parse([file], [line, "sources.subset.fraction = None"])
    documented = (Path(__file__).parents[2] / "docs/semi_supervised.md").read_text()
    block = next(part for part in documented.split("```") if "imagenet2012_subset" in part)
    config.parse(["semi/simclr_imagenet_resnet50.gin"], block.strip().splitlines())
    with gin.config_scope("labelled"):
        assert gin.query_parameter("labelled/sources.tfds.cache") == "disk"


def test_the_supervised_baseline_sees_the_labelled_images_only():
    files = [file for file in SEMI if "supervised" in file]
    assert len(files) == 2
    for file in files:
        values = values_of(file)
        assert values["pretrain.run.source"] == "%LABELLED"
        assert values["pretrain.run.loss"] == "@losses.CrossEntropyLoss()"
        assert values["experiment.run.stages"] == "('pretrain',)"
