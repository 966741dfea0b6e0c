"""Fine-tuning: encoder and classifier trained together, from a pretrained encoder."""

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from supcon_tf import models
from supcon_tf.data.pipeline import Batches, training_batches
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.sources import Source
from supcon_tf.run_dir import RunDir
from supcon_tf.stages.linear import load_encoder, with_pretraining_normalization
from supcon_tf.stages.pretrain import Precision, set_precision
from supcon_tf.training.encoder_io import load_parts
from supcon_tf.training.objective import class_loss
from supcon_tf.training.stage import run_stage


def run(
    folder: RunDir,
    *,
    source: Source,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    optimizer: Callable[..., keras.optimizers.Optimizer],
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule],
    epochs: int,
    batch_size: int,
    loss: keras.losses.Loss | None = None,
    encoder: str | None = None,
    classifier: str | None = None,
    learning_rate_multipliers: Mapping[str, float] | None = None,
    zero_init: bool = True,
    weight_decay: float = 0.0,
    seed: int = 0,
    jit_compile: bool = False,
    checkpoints_to_keep: int = 3,
    batches: Callable[..., Batches] = training_batches,
    strategy: tf.distribute.Strategy | None = None,
    precision: Precision = "float32",
    clip_norm: float | None = None,
    gradient_cache_chunk: int | None = None,
) -> None:
    """Trains all weights on one augmented view of each image.

    Args:
      folder, source, preprocessing, augmentation, optimizer, schedule, epochs, batch_size, seed,
        jit_compile, checkpoints_to_keep, batches, strategy: as in `pretrain.run`.
      loss, encoder, zero_init: as in `linear.run`.
      classifier: a run's folder, whose linear stage's classifier is taken if it had one, or a
        `.keras` file to take it from; None starts a fresh one.
      learning_rate_multipliers: of the variables whose paths a regular expression is found in, the
        first that is; of the others 1. {"^stem_|^group[12]_": 0.1} is a tenth for the lower half
        of a `models.resnet`, and 0 keeps weights as they are.
      weight_decay: of encoder and classifier, not of batch normalisation.
      precision: as the encoder's, whose layers keep their own; with "mixed_float16" the loss is
        scaled.
      clip_norm, gradient_cache_chunk: as in `pretrain.run`.
    """
    keras.utils.set_random_seed(seed)
    set_precision(precision, stage="finetune")
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model = models.classification_model(
            load_encoder(encoder or folder.root, image_shape=preprocessing.image_shape),
            image_shape=preprocessing.image_shape,
            num_classes=source.num_classes,
            zero_init=zero_init,
        )
        if classifier is not None:
            load_parts(model, classifier, ("classifier",))
    run_stage(
        folder,
        "finetune",
        model,
        losses={"logits": class_loss(loss, source)},
        decayed=("encoder", "classifier"),
        source=source,
        preprocessing=with_pretraining_normalization(preprocessing, encoder),
        augmentation=augmentation,
        optimizer=optimizer,
        schedule=schedule,
        epochs=epochs,
        batch_size=batch_size,
        weight_decay=weight_decay,
        seed=seed,
        jit_compile=jit_compile,
        checkpoints_to_keep=checkpoints_to_keep,
        batches=batches,
        strategy=strategy,
        clip_norm=clip_norm,
        gradient_cache_chunk=gradient_cache_chunk,
        learning_rate_multipliers=learning_rate_multipliers,
    )
