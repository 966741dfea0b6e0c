"""Logistic regression as the training of a linear classifier on cached features."""

import time

import keras
import numpy as np

from supcon_tf.data.sources import Source
from supcon_tf.errors import UserError
from supcon_tf.evaluation.logistic_regression import logistic_regression
from supcon_tf.evaluation.scorer import Scorer
from supcon_tf.models import L2Normalization
from supcon_tf.run_dir import RunDir
from supcon_tf.training.batches import TrainingData
from supcon_tf.training.checkpoint import Progress
from supcon_tf.training.config import TrainingConfig
from supcon_tf.training.objective import classification_loss


def fit_logistic_regression(
    model: keras.Model,
    data: TrainingData,
    scorer: Scorer,
    *,
    config: TrainingConfig,
    run_dir: RunDir,
) -> None:
    """Sets the classifier to the logistic regression of the features: one step, one epoch.

    Args:
      model: the compiled `models.normalizing_head` of one dense layer: features ->
        {"logits": [B, C]}.
      data: with cached features.
      scorer: scores the validation split, if there is one, by cached features.
      config: settings of the stage; the seed chooses the validation shares.
      run_dir: where the checkpoint and the record go.

    Raises:
      UserError: a classifier of other weights, or labels of another kind.
    """
    features, source = data.features, data.source
    assert features is not None
    progress = Progress(model, run_dir, config.stage, config.checkpoints_to_keep)
    if progress.curve:
        return
    start = time.perf_counter()
    fitted = logistic_regression(
        unit_length(features.embeddings),
        features.labels,
        num_classes=source.num_classes,
        validation=validation_features(scorer, source),
        seed=config.seed,
    )
    values = [fitted.kernel, fitted.bias]
    variables = model.trainable_variables
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise UserError(
            'linear.run.solver = "lbfgs" is for a classifier of one dense layer, got variables '
            f"{', '.join(variable.path for variable in variables)}"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    progress.step.assign(np.asarray(1, np.int64))
    logits = model(features.embeddings, training=False)["logits"]
    losses = classification_loss(None, source).call(features.labels, logits)
    record = {
        "epoch": 1,
        "step": 1,
        "loss": float(np.mean(losses)),
        "validation_loss": fitted.validation_loss,
        "inverse_strength": fitted.strength,
    }
    if not source.is_multi_label:
        record["accuracy"] = scorer.score(source.train, "training").accuracy
    record["seconds"] = time.perf_counter() - start
    record["images_per_second"] = source.train.num_examples / record["seconds"]
    progress.end_epoch(record, best_by=None)
    print(
        f"{config.stage}: logistic regression on {source.train.num_examples:,} images, C = "
        f"{fitted.strength:.3g} by the validation loss {fitted.validation_loss:.4f}",
        flush=True,
    )


def validation_features(scorer: Scorer, source: Source) -> tuple[np.ndarray, np.ndarray] | None:
    """Features of unit length and labels of the validation split; None without one."""
    if source.validation is None:
        return None
    scores = scorer.score(source.validation, "validation")
    return unit_length(scores.embeddings), scores.labels


def unit_length(embeddings: np.ndarray) -> np.ndarray:
    """float32 [n, D], scaled as the embeddings of the classifier."""
    return L2Normalization()(embeddings).numpy()
