"""Every shipped gin file parses, builds its model and takes every public name; each kind runs two steps."""

import functools
from pathlib import Path

import gin
import keras
import numpy as np
import pytest

from supcon_tf import config
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import experiment
from supcon_tf.training import results, view_sheet
from tests.models import test_resnet

SHIPPED = Path(__file__).parents[2] / "gin_configs"
# Files to add to an experiment; test_evaluate.py and test_study.py run them.
ADDED = ("robustness", "studies")
FILES = sorted(
    str(path.relative_to(SHIPPED))
    for path in SHIPPED.glob("*/*.gin")
    if path.name != "base.gin" and path.parent.name not in ADDED
)

# Public gin names, each with a valid value.
BINDINGS = [
    'experiment.run.stages = ("pretrain", "linear")',
    *(
        f"{stage}.run.{parameter}"
        for stage in ("pretrain", "linear", "finetune")
        for parameter in (
            "epochs = 3",
            "batch_size = 8",
            "seed = 1",
            "augmentation = @views.identity",
            "optimizer = @optimizers.LARS",
            "source = @sources.digits()",
        )
    ),
    "pretrain.run.model = @models.contrastive_model",
    'pretrain.run.precision = "mixed_bfloat16"',
    "pretrain.run.clip_norm = 1.0",
    "pretrain.run.gradient_cache_chunk = 4",
    "pretrain.run.model = @momentum_memory.momentum_memory_model",
    *(
        f"pretrain.run.loss = @losses.{loss}()"
        for loss in ("SupConLoss", "SimCLRLoss", "NPairsLoss", "TripletLoss", "SuNCEtLoss")
    ),
    'linear.run.encoder = "/some/where"',
    "linear.run.cache_features = True",
    "losses.SupConLoss.temperature = 0.2",
    "losses.SimCLRLoss.temperature = 0.2",
    "losses.NPairsLoss.normalize = False",
    "losses.TripletLoss.margin = 0.5",
    'losses.TripletLoss.mining = "all"',
    "losses.SuNCEtLoss.temperature = 0.2",
    "losses.LargeMarginSoftmaxLoss.margin = 2",
    "models.resnet.depth = 34",
    'models.resnet.kernel_initializer = "he_normal"',
    'models.resnet.shortcut = "identity_where_possible"',
    "models.resnext.depth = 50",
    "models.projection_head.last_bias = True",
    'models.projection_head.kernel_initializer = "he_uniform"',
    "models.classification_head.bias_initializer = @models.FanInUniform()",
    "models.contrastive_model.num_views = 3",
    "momentum_memory.momentum_memory_model.memory_size = 16",
    "momentum_memory.momentum_memory_model.momentum = 0.9",
    'momentum_memory.momentum_memory_model.contrast = "queue"',
    "optimizers.LARS.trust_coefficient = 0.01",
    "optimizers.warmup_schedule.base_learning_rate = 0.3",
    "sources.digits.seed = 1",
    'sources.tfds.name = "cifar10"',
    'sources.tfds.data_dir = "/some/where"',
    'sources.tfds.train_split = "train[:10%]"',
    'sources.tfds.test_split = "test[:10%]"',
    'sources.folder.root = "/some/where"',
    'sources.table.file = "/some/where.csv"',
    "views.random_resized_crop.area_range = (0.5, 1.0)",
    "views.simclr.strength = 0.2",
    'views.autoaugment.policy = "cifar10"',
    "views.randaugment.magnitude = 5",
    "views.stacked_randaugment.magnitude = 5",
    'views.eval_crop.method = "none"',
    "views.augmix.severity = 5",
    'views.Preprocessing.normalization = "measure"',
    'distribution.strategy.name = "one_device"',
    "losses.CrossEntropyLoss.label_smoothing = 0.1",
    'losses.CrossEntropyLoss.log_prior = "source"',
    'losses.BinaryCrossEntropyLoss.name = "mine"',
    "sources.subset.per_class = 5",
    "sources.label_noise.probability = 0.1",
    'sources.tfds.cache = "disk"',
    "mixing.mixup.alpha = 0.4",
    "mixing.cutmix.probability = 0.5",
    "pipeline.training_batches.samples_per_class = 2",
    "pipeline.training_batches.defer_to_device = True",
    "pipeline.training_batches.mixing = @mixing.mixup",
    "robustness.run.batch_size = 8",
    'robustness.run.baseline = "/some/where"',
    "robustness.run.corrupted = @corruptions.arrays",
    'corruptions.folder.root = "/some/where"',
    'corruptions.tfds.name = "cifar10_corrupted"',
    "corruptions.on_the_fly.processes = 1",
    'classifiers.saved_model.scores = "logits"',
    'experiment.run.evaluations = ("robustness",)',
    "robustness.run.seed = 1",
]


# One file of each kind, which is run. Each other file has the DISTINGUISHED settings of one of these.
KINDS = {
    "digits/supcon.gin": ("pretrain", "linear"),
    "digits/supcon_memory.gin": ("pretrain",),
    "cifar10/supcon_resnet18.gin": ("pretrain",),
    "imagenet/simclr_resnet50.gin": ("pretrain",),
    "imagenet/cross_entropy_two_stages_resnet50.gin": ("pretrain", "linear"),
    "imagenet/mixup_resnet50.gin": ("pretrain",),
    "imagenet/cutmix_resnet50.gin": ("pretrain",),
    "imagenet/n_pairs_resnet50.gin": ("pretrain",),
    "cifar10/max_margin_resnet50.gin": ("pretrain",),
    "cifar10_small/triplet.gin": ("pretrain",),
    "cifar10_small/sincere.gin": ("pretrain",),
    "cifar10_small/soft_mixup.gin": ("pretrain", "linear"),
    "cifar10_small/parametric.gin": ("pretrain",),
    "cifar10_long_tail/balanced.gin": ("pretrain",),
    "imagenet/parametric_resnet50.gin": ("pretrain",),
    "cifar10/joint_resnet18.gin": ("pretrain",),
    "folder/finetune.gin": ("pretrain", "linear"),
}
# The others of KINDS run the same stages; the losses and models of these have tests of their own.
SLOW = (
    "cifar10/supcon_resnet18.gin",
    "imagenet/simclr_resnet50.gin",
    "imagenet/cross_entropy_two_stages_resnet50.gin",
    "imagenet/cutmix_resnet50.gin",
    "imagenet/n_pairs_resnet50.gin",
    "cifar10_small/triplet.gin",
    "cifar10_small/sincere.gin",
    "cifar10_small/parametric.gin",
    "cifar10_long_tail/balanced.gin",
    "cifar10/joint_resnet18.gin",
)
DISTINGUISHED = (
    "pretrain.run.model",
    "models.contrastive_model.classification_head",
    "pretrain.run.loss",
    "pretrain.run.classification_loss",
    "pretrain.run.callbacks",
    "pipeline.training_batches.mixing",
)
OPTIMIZERS = ("pretrain.run.optimizer", "linear.run.optimizer")


@functools.cache
def values_of(file):
    return config.parameter_values(config.parse([file], []))


def test_there_are_files_to_test():
    assert {"digits/supcon.gin", "cifar10/supcon_resnet18.gin", "folder/supcon.gin"} <= set(FILES)


@pytest.mark.parametrize("binding", BINDINGS)
def test_every_public_name_binds(binding):
    resolved = config.parse(["folder/supcon.gin"], [binding])
    name, value = binding.split(" = ")
    assert f"{name} =" in resolved
    assert gin.query_parameter(name) is not None, value


@pytest.mark.parametrize("file", FILES)
def test_every_public_name_binds_on_top_of_every_file(file):
    config.parse([file], BINDINGS)
    # The last loss of the list overrides the others.
    held = dict(binding.split(" = ") for binding in BINDINGS)
    for name, value in held.items():
        bound = gin.query_parameter(name)
        assert str(bound).replace("'", '"') == value or bound == eval(value), name


def test_the_resolved_text_has_no_unused_macro(tmp_path):
    crops = "crops = ((32, 2, (0.3, 1.0)),)"
    resolved = config.parse(
        ["semi/swav_cifar10_resnet18.gin"],
        [f"swav.swav_model.{crops}", f"multi_crop.batches.{crops}"],
    )
    assert "CROPS" not in resolved
    (tmp_path / "config.gin").write_text(resolved)
    assert config.parse([str(tmp_path / "config.gin")], []) == resolved


@pytest.mark.parametrize("file", FILES)
def test_the_header_says_the_command(file):
    header = (SHIPPED / file).read_text().split("\n\n")[0]
    assert f"--gin_file=gin_configs/{file}" in header


@pytest.fixture(scope="module")
def built():
    """The settings of the models that were built so far, without the encoder."""
    return []


@pytest.mark.parametrize("file", FILES)
def test_the_model_of_each_file_is_built(file, built):
    """Encoders are built and counted in test_resnet.py; here, the heads are built on a small one."""
    settings = values_of(file)
    if "models.resnet.depth" in settings:  # Not a pretrained encoder.
        architecture = settings["models.resnet.depth"], settings["models.resnet.stem"]
        assert architecture in [(str(depth), repr(stem)) for depth, _, stem in test_resnet.BUILT]
    around = {
        name: value
        for name, value in settings.items()
        if name.startswith(("models.", "pretrain.run.model", "views.Preprocessing.image_px"))
        and "resnet" not in name
    }
    if around in built:
        return
    built.append(around)
    config.parse([file], [])
    model = gin.query_parameter("pretrain.run.model").configurable.wrapper
    size = config.bound_value("views.Preprocessing.image_px")
    encoder = keras.Sequential([keras.layers.Conv2D(8, 3), keras.layers.GlobalMaxPooling2D()])
    whole = model(encoder=encoder, image_shape=(size, size, 3), num_classes=10)
    assert isinstance(whole, keras.Model)
    # SwAV's model takes crops of several sizes; the first size is used in evaluation.
    assert (size, size, 3) in [images.shape[-3:] for images in whole.inputs]


# test_semi_supervised.py and test_swav.py test the files that semi-supervised runs write.
@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith("semi/")])
def test_each_file_has_the_settings_of_a_file_that_is_run(file):
    """Its distinguishing settings equal those of a file that is run for two steps below."""

    def kind(name):
        return tuple(values_of(name).get(setting) for setting in DISTINGUISHED)

    assert kind(file) in map(kind, KINDS)
    for setting in OPTIMIZERS:
        assert values_of(file)[setting] in [values_of(name)[setting] for name in KINDS]


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("semi/")])
def test_neighbors_use_only_the_labels_of_training(file):
    for name in ("pretrain.run.support", "finetune.run.source"):
        assert values_of(file)[name] == "%LABELLED", name


PARAMETRIC = (
    "models.parametric_model.encoder = @keras.Sequential()",
    "models.parametric_model.projection = (16, 16)",
    "losses.ParametricSupConLoss.num_classes = 2",
)


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=pytest.mark.slow) if file in SLOW else file for file in KINDS],
)
def test_each_kind_runs_two_steps(file, tmp_path, image_folder, monkeypatch):
    stages = KINDS[file]
    config.parse(
        [file],
        [
            # Twenty training images, and an encoder of three layers.
            "SOURCE = @sources.folder()",
            f"sources.folder.root = '{image_folder}'",
            "models.contrastive_model.encoder = @keras.Sequential()",
            "models.classification_model.encoder = @keras.Sequential()",
            "momentum_memory.momentum_memory_model.encoder = @keras.Sequential()",
            "keras.Sequential.layers = [@keras.layers.Conv2D(), @keras.layers.BatchNormalization(), "
            "@keras.layers.GlobalAveragePooling2D()]",
            "keras.layers.Conv2D.filters = 4",
            "keras.layers.Conv2D.kernel_size = 3",
            "models.contrastive_model.projection = (16, 16)",
            "models.balanced_classifier.projection = (16, 16)",
            "momentum_memory.momentum_memory_model.projection = (16, 16)",
            "views.Preprocessing.image_px = 16",
            *(PARAMETRIC if "parametric" in file else ()),
            *(
                f"{name}.run.{binding}"
                for name in ("pretrain", "linear")
                for binding in ("epochs = 1", "batch_size = 8", "augmentation = @views.identity")
            ),
            "optimizers.warmup_schedule.warmup_epochs = 0",
            "linear/optimizers.warmup_schedule.warmup_epochs = 0",
            f"experiment.run.stages = {stages}",
        ],
    )
    if file != "cifar10/max_margin_resnet50.gin":
        # Pictures and export are the same for the other kinds, and have their own tests.
        monkeypatch.setattr(view_sheet, "view_sheet", lambda *_, **__: b"")
        monkeypatch.setattr(results, "save_serving_model", lambda *_, **__: None)
    folder = RunDir(tmp_path / "run")
    folder.root.mkdir()
    gin.get_configurable(experiment.run)(folder, configured=gin.get_configurable)
    assert set(folder.metrics()) == set(stages)
    for name in stages:
        # Logistic regression is one step.
        is_solved = file == "folder/finetune.gin" and name == "linear"
        assert folder.curve(name)[-1]["step"] == (1 if is_solved else 2)
        assert np.isfinite(folder.metrics()[name]["loss"])
