"""Every shipped gin file: parsed, built as written, run for two steps, and open to every name."""

from pathlib import Path

import gin
import keras
import numpy as np
import pytest

from supcon_tf import configuration
from supcon_tf.stages import experiment
from supcon_tf.stages.run_folder import RunFolder

SHIPPED = Path(__file__).parent.parent / "gin_configs"
FILES = sorted(
    str(path.relative_to(SHIPPED)) for path in SHIPPED.glob("*/*.gin") if path.name != "base.gin"
)

# interface.md's names, each with a value that it takes.
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
    *(
        f"pretrain.run.loss = @losses.{loss}()"
        for loss in ("SupConLoss", "SimCLRLoss", "NPairsLoss", "SuNCEtLoss")
    ),
    'linear.run.encoder = "/some/where"',
    "losses.SupConLoss.temperature = 0.2",
    "losses.SimCLRLoss.temperature = 0.2",
    "losses.NPairsLoss.normalize = False",
    "losses.SuNCEtLoss.temperature = 0.2",
    "losses.LargeMarginSoftmaxLoss.margin = 2",
    "models.resnet.depth = 34",
    "models.resnext.depth = 50",
    "models.contrastive_model.num_views = 3",
    "optimizers.LARS.trust_coefficient = 0.01",
    "optimizers.warmup_schedule.base_learning_rate = 0.3",
    "sources.digits.seed = 1",
    'sources.tfds.name = "cifar10"',
    'sources.tfds.data_dir = "/some/where"',
    'sources.tfds.train_split = "train[:10%]"',
    'sources.tfds.test_split = "test[:10%]"',
    'sources.folder.root = "/some/where"',
    "views.random_resized_crop.area_range = (0.5, 1.0)",
    "views.simclr.strength = 0.2",
    'views.autoaugment.policy = "cifar10"',
    "views.randaugment.magnitude = 5",
    "views.stacked_randaugment.magnitude = 5",
    'views.eval_crop.method = "none"',
    "views.augmix.severity = 5",
    'views.Preprocessing.whitening = "measure"',
    'distribution.strategy.name = "one_device"',
    "losses.CrossEntropyLoss.label_smoothing = 0.1",
    "sources.subset.per_class = 5",
    "sources.label_noise.probability = 0.1",
    'sources.tfds.cache = "disk"',
    "mixing.mixup.alpha = 0.4",
    "mixing.cutmix.probability = 0.5",
    "batches.training_batches.samples_per_class = 2",
    "batches.training_batches.defer_to_device = True",
    "batches.training_batches.mixing = @mixing.mixup",
    "robustness.run.batch_size = 8",
    "robustness.run.seed = 1",
]


def test_there_are_files_to_test():
    assert {"digits/supcon.gin", "cifar10/supcon_resnet18.gin", "folder/supcon.gin"} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_every_public_name_binds(file):
    for binding in BINDINGS:
        resolved = configuration.parse([file], [binding])
        name, value = binding.split(" = ")
        assert f"{name} =" in resolved
        assert gin.query_parameter(name) is not None, value


@pytest.mark.parametrize("file", FILES)
def test_the_header_says_the_command(file):
    header = (SHIPPED / file).read_text().split("\n\n")[0]
    assert f"--gin_file=gin_configs/{file}" in header


@pytest.mark.parametrize("file", FILES)
def test_the_model_is_built_as_written(file):
    configuration.parse([file], ["sources.folder.root = '/nowhere'"])
    model = gin.query_parameter("pretrain.run.model").configurable.wrapper
    preprocessing = gin.query_parameter("views.Preprocessing.image_px")
    built = model(image_shape=(preprocessing, preprocessing, 3), num_classes=10)
    assert isinstance(built, keras.Model)
    assert built.input_shape[-3:] == (preprocessing, preprocessing, 3)


@pytest.mark.parametrize("file", FILES)
def test_every_stage_runs_two_steps(file, tmp_path, image_folder):
    # The linear stages differ in numbers only: one on top of each kind of file is enough.
    is_like_another = file in ("digits/simclr.gin", "cifar10/supcon_resnet18.gin")
    configuration.parse(
        [file],
        [
            # Twenty training images.
            "SOURCE = @sources.folder()",
            f"sources.folder.root = '{image_folder}'",
            "models.resnet.width = 0.125",
            "views.Preprocessing.image_px = 16",
            *(
                f"{stage}.run.{binding}"
                for stage in ("pretrain", "linear")
                for binding in ("epochs = 1", "batch_size = 8")
            ),
            "optimizers.warmup_schedule.warmup_epochs = 0",
            *(["experiment.run.stages = ('pretrain',)"] if is_like_another else []),
        ],
    )
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    stages = gin.query_parameter("experiment.run.stages")
    gin.get_configurable(experiment.run)(folder, configured=gin.get_configurable)
    assert set(folder.metrics()) == set(stages)
    for stage in stages:
        assert folder.curve(stage)[-1]["step"] == 2
        assert np.isfinite(folder.metrics()[stage]["loss"])
