"""The numbers of the semi-supervised recipes: those of the papers' code and, where there are none, ours."""

import ast
from pathlib import Path

import gin
import numpy as np
import pytest

from supcon_tf import config
from supcon_tf.data import sources, views
from supcon_tf.optimizers import warmup_schedule
from tests.commands.test_configs import FILES, values_of

SEMI = [file for file in FILES if file.startswith("semi/")]
PRETRAINED = [file for file in SEMI if "supervised" not in file]
IMAGES = 1_281_167

# Where a number was not published, the row has our choice, which the file marks.
LARS = {
    "pretrain.run.weight_decay": 1e-6,
    "pretrain.run.optimizer": "@optimizers.LARS",
    "optimizers.LARS.momentum": 0.9,
    "optimizers.warmup_schedule.scale_by_batch": False,
}
# What both papers' code has on ImageNet.
IMAGENET = {
    "models.resnet.depth": 50,
    "models.resnet.zero_init_last_gamma": False,
    "views.Preprocessing.image_px": 224,
    "views.simclr.strength": 1.0,
    "views.simclr.jitter": "torchvision",
    "views.simclr.grey_probability": 0.2,
    "views.simclr.solarize_probability": 0.0,
    "views.simclr.equalize_probability": 0.0,
    "views.simclr.blur_probability": 0.5,
    "sources.subset.fraction": 0.1,
    # Of SimCLR's views and of fine-tuning; SwAV's views have areas of their own.
    "views.Preprocessing.crop": "@views.random_resized_crop",
    "views.random_resized_crop.area_range": (0.08, 1.0),
    "views.random_resized_crop.aspect_range": (3 / 4, 4 / 3),
    "views.random_resized_crop.flip_probability": 0.5,
    # 256 -> 224.
    "views.eval_crop.method": "resize_then_crop",
    "views.eval_crop.padding_px": None,
}
# SuNCEt's released code: https://arxiv.org/abs/2006.10803.
SUNCET_CODE = IMAGENET | {
    "views.Preprocessing.normalization": ((-0.03, -0.088, -0.188), (0.458, 0.448, 0.45)),
}
SUNCET_PRETRAINING = SUNCET_CODE | LARS | {
    "pretrain.run.augmentation": "@views.simclr",
    "pretrain.run.epochs": 500,
    "models.contrastive_model.projection": (2048, 2048, 2048),
    "models.contrastive_model.batch_norm": True,
    "models.contrastive_model.normalize_embedding": False,
    "models.projection_head.last_bias": True,
    "optimizers.LARS.exclude": ("/(gamma|beta|bias)$",),
}  # fmt: skip
SIMCLR = SUNCET_PRETRAINING | {
    "losses.SimCLRLoss.temperature": 0.1,
    "losses.SimCLRLoss.contrast_gradient": False,
    "pretrain.run.batch_size": 4096,
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
SUNCET_ALONE = {
    "pretrain.run.source": "@sources.subset()",
    "pretrain.run.loss": "@losses.SuNCEtLoss()",
    "losses.SuNCEtLoss.temperature": 0.1,
    "finetune/pipeline.training_batches.samples_per_class": None,
}
# SwAV's released code: https://arxiv.org/abs/2006.09882.
SWAV_METHOD = LARS | {
    "pretrain.run.augmentation": "@views.simclr",
    "swav.swav_model.projection": (2048, 128),
    "swav.swav_model.batch_norm": True,
    "swav.swav_model.epsilon": 0.05,
    "swav.swav_model.rounds": 3,
    "swav.swav_model.queue_length": 0,
    "losses.SwAVLoss.temperature": 0.1,
    "optimizers.LARS.exclude": (),
}
SWAV = SWAV_METHOD | IMAGENET | {
    # Deviations 0.228, 0.224, 0.225 on the scale [0, 1].
    "views.Preprocessing.normalization": ((-0.03, -0.088, -0.188), (0.456, 0.448, 0.45)),
    "swav.swav_model.num_prototypes": 3000,
    "swav.swav_model.frozen_steps": 313,
    "pretrain.run.epochs": 800,
    "pretrain.run.batch_size": 4096,
    "multi_crop.batches.crops": ((224, 2, (0.14, 1.0)), (96, 6, (0.05, 0.14))),
    "swav.swav_model.crops": ((224, 2, (0.14, 1.0)), (96, 6, (0.05, 0.14))),
}  # fmt: skip
BOTH = {
    "losses.SuNCEtLoss.temperature": 0.1,
    "losses.SemiSupervisedLoss.weight": 1.0,
    "losses.SemiSupervisedLoss.unlabelled": None,
}
SUNCET_FINE_TUNING = {
    "finetune.run.source": "@sources.subset()",
    "finetune.run.preprocessing": "@views.Preprocessing()",
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
    "views.Preprocessing.image_px": 32,
    "views.Preprocessing.normalization": ((-0.0172, -0.0356, -0.107), (0.4046, 0.3988, 0.402)),
    "views.random_resized_crop.area_range": (0.5, 1.0),
    "views.eval_crop.method": "none",
    "views.simclr.strength": 0.5,
    "views.simclr.jitter": "torchvision",
    "views.simclr.grey_probability": 0.0,
    "views.simclr.solarize_probability": 0.2,
    "views.simclr.equalize_probability": 0.2,
    "views.simclr.blur_probability": 0.0,
    "models.resnet.depth": 18,
    "models.resnet.zero_init_last_gamma": False,
    "sources.subset.fraction": 0.1,
}
# Flips only.
CIFAR10_FINE_TUNING = {
    "finetune.run.preprocessing": "@finetune/views.Preprocessing()",
    "finetune/views.Preprocessing.image_px": 32,
    "finetune/views.Preprocessing.normalization": CIFAR10["views.Preprocessing.normalization"],
    "finetune/views.Preprocessing.crop": "@finetune/views.random_resized_crop",
    "finetune/views.random_resized_crop.area_range": (1.0, 1.0),
    "finetune/views.random_resized_crop.aspect_range": (1.0, 1.0),
    "finetune/views.random_resized_crop.flip_probability": 0.5,
    "finetune/views.Preprocessing.eval_crop": "@finetune/views.eval_crop",
    "finetune/views.eval_crop.method": "none",
}
CIFAR10_PRETRAINING = CIFAR10 | SUNCET_FINE_TUNING | CIFAR10_FINE_TUNING | LARS | {
    "models.projection_head.last_bias": True,
    "models.contrastive_model.projection": (2048, 2048, 128),
    "models.contrastive_model.batch_norm": True,
    "models.contrastive_model.normalize_embedding": False,
    "optimizers.LARS.exclude": ("/(gamma|beta|bias)$",),
    "pretrain.run.epochs": 200,
}  # fmt: skip
CIFAR10_SIMCLR = CIFAR10_PRETRAINING | {
    "losses.SimCLRLoss.contrast_gradient": False,
    "losses.SimCLRLoss.temperature": 0.5,
    "pretrain.run.batch_size": 256,
}
CIFAR10_SUNCET = CIFAR10_SIMCLR | {
    "pretrain.run.batch_size": 176,
    "semi_supervised.batches.labelled_classes": 10,
    "semi_supervised.batches.samples_per_class": 16,
    "semi_supervised.batches.views_per_labelled_image": 1,
    "semi_supervised.batches.labelled_epochs": 100,
    "losses.SuNCEtLoss.temperature": 0.1,
    "losses.SemiSupervisedLoss.weight": 1.0,
}
CIFAR10_SWAV = CIFAR10 | SWAV_METHOD | SWAV_FINE_TUNING | CIFAR10_FINE_TUNING | {
    "views.simclr.grey_probability": 0.2,
    "views.simclr.solarize_probability": 0.0,
    "views.simclr.equalize_probability": 0.0,
    "swav.swav_model.num_prototypes": 300,
    "multi_crop.batches.crops": ((32, 2, (0.3, 1.0)), (16, 4, (0.1, 0.3))),
    "swav.swav_model.crops": ((32, 2, (0.3, 1.0)), (16, 4, (0.1, 0.3))),
    "pretrain.run.epochs": 200,
    "pretrain.run.batch_size": 256,
}  # fmt: skip
SUPERVISED = {
    "experiment.run.stages": ("pretrain",),
    "pretrain.run.source": "@sources.subset()",
    "pretrain.run.loss": "@losses.CrossEntropyLoss()",
    "losses.CrossEntropyLoss.label_smoothing": 0.0,
    "pretrain.run.optimizer": "@keras.optimizers.SGD",
    "keras.optimizers.SGD.momentum": 0.9,
    "keras.optimizers.SGD.nesterov": True,
    "pretrain.run.epochs": 200,
}
NUMBERS = {
    "simclr_imagenet_resnet50": SIMCLR | SUNCET_FINE_TUNING,
    "simclr_suncet_imagenet_resnet50": SUNCET | SUNCET_FINE_TUNING,
    "suncet_imagenet_resnet50": SUNCET_PRETRAINING | SUNCET_ALONE | SUNCET_FINE_TUNING | {
        "pretrain.run.batch_size": 40 * 64,
        "pipeline.training_batches.samples_per_class": 64,
    },
    "swav_imagenet_resnet50": SWAV | SWAV_FINE_TUNING,
    "swav_suncet_imagenet_resnet50": SWAV | BOTH | SWAV_FINE_TUNING | {
        "pretrain.run.epochs": 400,
        "pretrain.run.batch_size": 2816,
        "semi_supervised.batches.labelled_classes": 20,
        "semi_supervised.batches.samples_per_class": 64,
        "semi_supervised.batches.labelled_epochs": 200,
        "swav.swav_model.frozen_steps": 455,
    },
    "supervised_imagenet_resnet50": SUNCET_CODE | SUPERVISED | {
        "pretrain.run.augmentation": "@views.identity",
        "pretrain.run.batch_size": 1024,
        "pretrain.run.weight_decay": 1e-4,
    },
    "simclr_cifar10_resnet18": CIFAR10_SIMCLR,
    "simclr_cifar10_resnet50": CIFAR10_SIMCLR | {"models.resnet.depth": 50},
    "simclr_suncet_cifar10_resnet18": CIFAR10_SUNCET,
    "simclr_suncet_cifar10_resnet50": CIFAR10_SUNCET | {"models.resnet.depth": 50},
    "suncet_cifar10_resnet18": CIFAR10_PRETRAINING | SUNCET_ALONE | {
        "pretrain.run.epochs": 1000,
        "pretrain.run.batch_size": 250,
        "pipeline.training_batches.samples_per_class": 25,
    },
    "swav_cifar10_resnet18": CIFAR10_SWAV | {"swav.swav_model.frozen_steps": 195},
    "swav_suncet_cifar10_resnet18": CIFAR10_SWAV | BOTH | {
        "pretrain.run.batch_size": 176,
        "semi_supervised.batches.labelled_classes": 5,
        "semi_supervised.batches.samples_per_class": 16,
        "semi_supervised.batches.labelled_epochs": 100,
        "swav.swav_model.frozen_steps": 284,
    },
    "supervised_cifar10_resnet18": CIFAR10 | SUPERVISED | {
        "pretrain.run.augmentation": "@views.simclr",
        "pretrain.run.batch_size": 256,
        "pretrain.run.weight_decay": 5e-4,
    },
}  # fmt: skip


def value(text):
    return text if text.startswith("@") else ast.literal_eval(text)


@pytest.mark.parametrize("name", [Path(file).stem for file in SEMI])
def test_a_recipe_has_its_numbers(name):
    values = config.parameter_values(config.parse([f"semi/{name}.gin"], []), macros=True)
    expected = NUMBERS[name]
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


@pytest.mark.parametrize(
    ("recipe", "added", "images"),
    [
        ("swav{}_imagenet_resnet50", (), IMAGES),
        ("swav{}_cifar10_resnet18", (), 50_000),
        ("swav{}_cifar10_resnet18", ("studies/cifar10_semi_small{}.gin",), 10_000),
    ],
)
def test_prototypes_are_frozen_for_one_epoch(recipe, added, images):
    for with_suncet in ("", "_suncet"):
        files = [file.format(with_suncet) for file in (f"semi/{recipe}.gin", *added)]
        config.parse(files, [])
        steps = images / config.bound_value("pretrain.run.batch_size")
        assert abs(config.bound_value("swav.swav_model.frozen_steps") - steps) < 1


def rates(scope, epochs, batch_size, at):
    """The learning rates at these epochs of a parsed file, which count from the first step."""
    with gin.config_scope(scope):
        schedule = gin.get_configurable(warmup_schedule)(
            batch_size=batch_size, steps_per_epoch=IMAGES / batch_size, epochs=epochs
        )
    return [float(schedule(int(epoch * IMAGES / batch_size))) for epoch in at]


def test_learning_rates_of_pretraining_are_the_published_ones():
    for file, start, peak, end, warmup in (
        ("simclr_imagenet_resnet50", 0.6, 4.8, 0.048, 10),
        ("swav_imagenet_resnet50", 0.3, 4.8, 0.0048, 10),
        # Our choice.
        ("simclr_cifar10_resnet18", 0.0, 1.0, 0.0, 10),
        # SwAV's for small batches.
        ("swav_cifar10_resnet18", 0.6, 0.6, 0.0006, 0),
    ):
        config.parse([f"semi/{file}.gin"], [])
        epochs, batch_size = (
            config.bound_value(f"pretrain.run.{name}") for name in ("epochs", "batch_size")
        )
        # Linear to the peak; half of the way down in the middle of the rest.
        at = (0, warmup / 2, warmup, (warmup + epochs) / 2, epochs)
        expected = [start, (start + peak) / 2, peak, (peak + end) / 2, end]
        assert rates(None, epochs, batch_size, at) == pytest.approx(expected, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize("file", PRETRAINED)
def test_learning_rates_of_fine_tuning_are_the_published_ones(file):
    config.parse([file], [])
    if "swav" in file:
        at = (0, 11.9, 12.1, 15.9, 16.1, 19.9)
        expected = list(0.01 * 0.2 ** np.array([0, 0, 1, 1, 2, 2]))
    else:
        at, expected = (0, 25, 50), [0.02, 0.01, 0]
    epochs = config.bound_value("finetune.run.epochs")
    assert rates("finetune", epochs, 256, at) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("file", PRETRAINED)
def test_fine_tuning_only_crops_and_flips(file):
    assert values_of(file)["finetune.run.augmentation"] == "@finetune/views.identity"
    config.parse([file], [])
    crop = gin.query_parameter("finetune.run.preprocessing").scoped_configurable_fn().crop
    shown = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    seeds = np.arange(20)
    crops = np.stack([crop(shown, seed=seed, size_px=32) for seed in seeds])
    if "cifar10" in file:
        pixels = np.rint(crops * 255).astype(np.uint8)
        mirrored = [np.array_equal(one, shown[:, ::-1]) for one in pixels]
        assert 0 < sum(mirrored) < 20
        for one, is_mirrored in zip(pixels, mirrored, strict=True):
            np.testing.assert_array_equal(one, shown[:, ::-1] if is_mirrored else shown)
        return
    for one, seed in zip(crops, seeds, strict=True):
        published = views.random_resized_crop(
            shown, seed=seed, size_px=32, area_range=(0.08, 1.0), aspect_range=(3 / 4, 4 / 3)
        )
        np.testing.assert_array_equal(one, published)


def test_size_and_normalization_of_cifar10_are_set_for_both_stages_by_a_macro():
    file = "semi/simclr_cifar10_resnet18.gin"
    constants = ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
    config.parse([file], ["IMAGE_PX = 16", f"NORMALIZATION = {constants}"])
    for stage in ("pretrain", "finetune"):
        made = gin.query_parameter(f"{stage}.run.preprocessing").scoped_configurable_fn()
        assert (made.image_px, made.normalization) == (16, constants), stage


LABELLED = ("finetune.run.source", "pretrain.run.support", "semi_supervised.batches.labelled")


def test_labels_can_be_a_published_list(tmp_path):
    listed = tmp_path / "labelled.txt"
    listed.write_text("7\n3\n")
    bindings = ("SOURCE = @sources.digits()", "sources.subset.fraction = None")
    for name in ("simclr_suncet_imagenet_resnet50", "swav_suncet_cifar10_resnet18"):
        config.parse([f"semi/{name}.gin"], [*bindings, f"sources.subset.list_file = '{listed}'"])
        expected = sources.digits().train.take(np.array([3, 7])).labels
        for setting in LABELLED:
            labelled = config.bound_value(setting).scoped_configurable_fn()
            np.testing.assert_array_equal(labelled.train.labels, expected, err_msg=setting)


def test_labels_can_be_a_published_set():
    documented = (Path(__file__).parents[2] / "docs/semi_supervised.md").read_text()
    block = next(part for part in documented.split("```") if "imagenet2012_subset" in part)
    file = "semi/simclr_suncet_imagenet_resnet50.gin"
    resolved = config.parse([file], block.strip().splitlines())
    values = config.parameter_values(resolved, macros=True)
    assert {values[name] for name in LABELLED} == {"@labelled/sources.tfds()"}
    assert values["labelled/sources.tfds.name"] == "'imagenet2012_subset/10pct'"
    assert values["labelled/sources.tfds.test_split"] == "'validation'"
    assert values["labelled/sources.tfds.cache"] == "'disk'"
    # All images are still those of pretraining.
    assert values["pretrain.run.source"] == "@sources.tfds()"
    assert values["sources.tfds.name"] == "'imagenet2012'"
