"""Bindings of the wrong kind, and bindings that the program would replace, are rejected."""

import pytest

from supcon_tf import config, run_checks
from supcon_tf.errors import UserError

FILE = "digits/supcon.gin"

WRONG_KIND = {
    "pretrain.run.source = 'digits'": "must be a Source, got 'digits': such as @sources.digits()",
    "pretrain.run.source = @sources.digits": "write @sources.digits() with brackets",
    "SOURCE = 'digits'": "pretrain.run.source must be a Source, got 'digits'",
    "pretrain.run.schedule = 0.1": "no brackets), got 0.1: such as @optimizers.warmup_schedule",
    "pretrain.run.strategy = 'mirrored'": "a Strategy or None, got 'mirrored': such as @distribution",
    "pretrain.run.callbacks = (3,)": "got (3,): such as (@losses.MarginAnnealing, @keras",
    "pretrain.run.callbacks = (@keras.callbacks.CSVLogger,)": "takes no 'steps': such as (@losses.MarginAnnealing, @keras.callbacks.CSVLogger())",
    "finetune.run.callbacks = (@sources.digits(),)": "must be (a Callback or a function",
    "models.contrastive_model.projection = 128": "must be (int, ...), got 128: such as (128, 128)",
    "views.random_resized_crop.area_range = (0.5,)": "must be (float, float), got (0.5,)",
    "models.resnet.kernel_initializer = @keras.initializers.HeNormal": "@keras.initializers.HeNormal() with brackets",
    "models.resnet.shortcut = 'identity'": "one of ('projection', 'identity_where_possible'), got",
    "models.projection_head.last_bias = 1": "must be bool, got 1",
    "models.contrastive_model.projection_head = 3": "got 3: such as @models.projection_head",
    "experiment.run.stages = None": "must be (str, ...), got None: such as ('pretrain', 'linear')",
    "pretrain.run.optimizer = @keras.optimizers.SGD()": "write @keras.optimizers.SGD without brackets",
    "pretrain.run.optimizer = @losses.SupConLoss": "got @losses.SupConLoss: such as @keras.optim",
    "pretrain.run.loss = @losses.SupConLoss": "write @losses.SupConLoss() with brackets",
    "pretrain.run.loss = @sources.digits()": "must be a Loss or {str: a Loss}, got @sources.digits()",
    "pretrain.run.loss = {'projection': 3}": "got {'projection': 3}",
    "pretrain.run.augmentation = 'simclr'": "got 'simclr': such as @views.simclr",
    "models.contrastive_model.encoder = @sources.digits()": "must be a Model, got @sources.digits()",
    "pretrain.run.batches = @losses.SupConLoss": "must take preprocessing, augmentation",
    "pretrain.run.schedule = @keras.optimizers.schedules.CosineDecay": "takes no 'batch_size'",
    "keras.optimizers.SGD.momentum = 'high'": "must be float or None, got 'high'",
    "keras.optimizers.SGD.nesterov = 1": "must be bool, got 1",
    "views.simclr.jitter = 'tf'": "must be one of ('tensorflow', 'torchvision'), got 'tf'",
    "views.Preprocessing.normalization = 'mesure'": "or 'measure' or None, got 'mesure'",
    "finetune.run.learning_rate_multipliers = {'a': 'b'}": "must be {str: float} or None",
    "losses.SupConLoss.temperature = True": "must be float, got True",
    "linear.run.encoder = 3": "must be str or a Model or None, got 3: such as @models.res",
    "include 'digits/simclr.gin'": "a setting is written as name.parameter = value",
    "pretrain.run.epochs 3": "a setting is written as name.parameter = value",
    "losses.SupConLoss = 3": "a setting is written as name.parameter = value",
    "pretrain.run.jit_compile = true": "'true' is not a value: text needs quotes",
    "losses.SupConLoss.summation = inside": "'inside' is not a value: text needs quotes",
}

REPLACED = {
    "keras.optimizers.SGD.learning_rate = 0.1": "set the base_learning_rate of pretrain.run.schedule",
    "linear/keras.optimizers.SGD.learning_rate = 0.1": "the base_learning_rate of linear.run.schedule",
    "optimizers.warmup_schedule.batch_size = 3": "set pretrain.run.batch_size",
    "optimizers.warmup_schedule.steps_per_epoch = 3": "set pretrain.run.batch_size",
    "optimizers.warmup_schedule.epochs = 3": "set pretrain.run.epochs",
    "models.contrastive_model.image_shape = (3, 3, 3)": "set views.Preprocessing.image_px",
    "models.projection_head.units = (3,)": "set models.contrastive_model.projection",
    "models.projection_head.batch_norm = True": "set models.contrastive_model.batch_norm",
    "linear/models.classification_head.zero_init = True": "set linear.run.zero_init",
    "models.contrastive_model.num_classes = 3": "set pretrain.run.source",
    "pipeline.training_batches.split = 3": "set pretrain.run.source",
    "pipeline.training_batches.batch_size = 3": "set pretrain.run.batch_size",
    "pipeline.training_batches.num_views = 2": "set num_views of the model",
    "pipeline.training_batches.num_classes = 2": "set pretrain.run.source",
    "pipeline.training_batches.seed = 3": "set pretrain.run.seed",
    "pipeline.training_batches.shard = (0, 2)": "set distribution.strategy.name",
    "views.simclr.seed = 3": "set pretrain.run.seed",
    "views.random_resized_crop.size_px = 3": "set views.Preprocessing.image_px",
    "views.eval_crop.size_px = 3": "set views.Preprocessing.image_px",
    "corruptions.on_the_fly.seed = 3": "set robustness.run.seed",
    "corruptions.on_the_fly.num_images = 3": "set robustness.run.max_images",
    "classifiers.saved_model.path = '/x'": "set robustness.run.export",
    "pretrain.run.run_dir = '/x'": "give --workdir",
    "experiment.run.configured = 3": "leave it out",
    "liner/optimizers.warmup_schedule.decay = 'none'": "'liner'; did you mean 'linear'?",
}


@pytest.mark.parametrize("binding", WRONG_KIND)
def test_a_value_of_the_wrong_kind_is_rejected_with_the_right_form(binding):
    with pytest.raises(UserError) as refused:
        config.parse([FILE], [binding])
    message = str(refused.value)
    assert WRONG_KIND[binding] in message
    assert "\n" not in message
    if "is not a value" not in message and "is written" not in message and "SOURCE" not in binding:
        assert binding.split(" = ")[0] in message


@pytest.mark.parametrize("binding", REPLACED)
def test_a_binding_that_the_program_replaces_is_rejected_with_the_name_to_set(binding):
    with pytest.raises(UserError) as refused:
        config.parse([FILE], [binding])
    name = binding.split(" = ")[0]
    assert str(refused.value).startswith(name)
    assert REPLACED[binding] in str(refused.value)


@pytest.mark.parametrize(
    ("binding", "missing"),
    [
        ("SOURCE = @sources.tfds()", "sources.tfds.name"),
        ("linear.run.optimizer = @linear/optimizers.LARS", None),
        (
            "linear.run.schedule = @other/optimizers.warmup_schedule",
            "other/optimizers.warmup_schedule.base_learning_rate",
        ),
        (
            "pretrain.run.augmentation = @views.random_resized_crop",
            "views.random_resized_crop.size_px",
        ),
    ],
)
def test_a_missing_argument_is_reported_before_anything_runs(binding, missing):
    settings = config.parse([FILE], [binding])
    if missing is None:
        run_checks.check_stages(settings)
        return
    with pytest.raises(UserError, match=f"^{missing} is not set: add --gin_param="):
        run_checks.check_stages(settings)


def test_a_class_whose_objects_are_called_is_an_augmentation():
    layers = "views.keras_layers.layers = (@keras.layers.RandomFlip(),)"
    settings = config.parse([FILE], ["pretrain.run.augmentation = @views.keras_layers", layers])
    run_checks.check_stages(settings)


def test_a_joint_loss_and_a_stopped_gradient_exclude_each_other():
    stopped = "models.contrastive_model.stop_classifier_gradient = True"
    config.parse([FILE], [stopped])
    with pytest.raises(UserError, match=r"no effect with pretrain\.run\.classification_loss"):
        config.parse(["cifar10/joint_resnet18.gin"], [stopped])
