"""What the report says of a stage's encoder, and how good its features are before training."""

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from supcon_tf.data.preprocessing import Preprocessing
from supcon_tf.evaluation.logistic_regression import logistic_regression
from supcon_tf.files import expanded
from supcon_tf.models import InputScaling, embedding_model
from supcon_tf.models.origin import Origin, origin_of
from supcon_tf.run_dir import RunDir
from supcon_tf.training.encoder_io import encoder_digest
from supcon_tf.training.logistic import unit_length, validation_features
from supcon_tf.training.results import EpochMeasures

# Logistic regression on more images would take longer than a minute.
MAX_FITTED = 5_000


def record_encoder(
    measures: EpochMeasures,
    *,
    path: str | Path | None,
    given: object = None,
    compare_with_frozen: bool = False,
) -> None:
    """Writes what the initial encoder of a stage is, once; a resumed stage keeps the record.

    With `compare_with_frozen`, a pretrained encoder is also measured: the test accuracies of kNN
    and, for at most 5,000 training images with one label each, of a logistic regression. The images
    are those of the accuracies after training. A worker that is not the chief does nothing.

    Args:
      measures: the measures of the stage, whose network has its initial weights.
      path: where the encoder was loaded from; None for one that the stage has built.
      given: the encoder that the stage was given as an object, if it was.
      compare_with_frozen: whether a pretrained encoder is measured.
    """
    run_dir, stage = measures.run_dir, measures.config.stage
    is_resumed = stage in run_dir.encoders() and run_dir.checkpoints(stage).exists()
    if not run_dir.is_chief or is_resumed or path == run_dir.root:
        return  # The last one: what this run has pretrained.
    encoder = _encoder_of(measures.network)
    known = origin_of(encoder if path is None else given)
    is_ours = path is None or isinstance(given, keras.Model)
    weights = (
        "random, unless its constructor loads others"
        if is_ours
        else _source_of(expanded(path or ""))
    )
    origin = known or Origin(encoder.name, weights)
    resizing = [each for each in encoder.layers if isinstance(each, keras.layers.Resizing)]
    record: dict[str, Any] = {
        "name": origin.name,
        "weights": origin.weights,
        "inputs": input_range(encoder, measures.data.preprocessing),
        "image_px": measures.data.preprocessing.image_px,
        "resized_px": resizing[0].height if resizing else None,
        "parameters": encoder.count_params(),
        # A subclass of keras.Model has no output_shape of its own.
        "dimensions": embedding_model(measures.network).output_shape[-1],
    }
    if path is not None and not is_ours:
        record["digest"] = encoder_digest(path)
    print(
        f"{stage}: encoder {origin.name}, weights: {origin.weights}, "
        f"{record['parameters']:,} parameters",
        flush=True,
    )
    has_labels = measures.data.source.has_labels
    if compare_with_frozen and known is not None and known.is_pretrained and has_labels:
        start = time.perf_counter()
        record["frozen"] = _frozen_accuracies(measures)
        record["frozen_seconds"] = time.perf_counter() - start
        names = {"knn": "kNN", "linear": "logistic regression"}
        shown = [f"{names[k.split('_')[1]]} {value:.3f}" for k, value in record["frozen"].items()]
        print(f"{stage}: frozen encoder, before training: {', '.join(shown)}", flush=True)
    run_dir.set_encoder(stage, record)


def _frozen_accuracies(measures: EpochMeasures) -> dict[str, float]:
    source = measures.data.source
    scores = measures.scorer.score(source.test, "test")
    references = measures.scorer.references(source, measures.support)
    accuracies = {
        f"frozen_{name}": value
        for name, value in scores.by_neighbors(references).items()
        if name.startswith("knn_")
    }
    labels = references.labels
    if labels.ndim == 1 and len(labels) <= MAX_FITTED and len(np.unique(labels)) > 1:
        fitted = logistic_regression(
            unit_length(references.embeddings),
            labels,
            num_classes=scores.probabilities.shape[1],
            validation=validation_features(measures.scorer, source),
            seed=measures.config.seed,
        )
        logits = unit_length(scores.embeddings) @ fitted.kernel + fitted.bias
        accuracies["frozen_linear_top_1"] = float((logits.argmax(axis=1) == scores.labels).mean())
    return accuracies


def input_range(encoder: keras.Model, preprocessing: Preprocessing) -> str:
    """The range of an encoder's inputs in words, after the scaling layer that it starts with.

    Example:
      >>> from supcon_tf import models
      >>> from supcon_tf.data import views
      >>> from supcon_tf.training.encoder_record import input_range
      >>> encoder = models.pretrained("ResNet50", weights=None)
      >>> input_range(encoder, views.Preprocessing(32))
      '[-124, 151], scaled by channel, blue first'
    """
    ends = np.array([[-1.0] * 3, [1.0] * 3])
    if isinstance(preprocessing.normalization, tuple):
        means, deviations = map(np.array, preprocessing.normalization)
        ends = (ends - means) / deviations
    is_bgr = False
    for layer in encoder._flatten_layers():
        if isinstance(layer, InputScaling | keras.layers.Rescaling):
            ends = ends * np.array(layer.scale) + np.array(layer.offset)
            is_bgr = getattr(layer, "bgr", False)
            break
        if layer.weights and not isinstance(layer, keras.Model):
            break
    is_by_channel = not np.allclose(ends, ends[:, :1])
    return (
        f"[{ends.min():.3g}, {ends.max():.3g}]"
        + ", scaled by channel" * is_by_channel
        + ", blue first" * is_bgr
    )


def _encoder_of(network: keras.Model) -> keras.Model:
    """The encoder of a stage's network, without the wrapping of a loaded model."""
    _, encoder, _ = embedding_model(network).layers
    is_wrapped = encoder.name == "embedding" and len(encoder.layers) == 3
    return encoder.layers[1] if is_wrapped else encoder


def _source_of(path: Path) -> str:
    """Where weights were loaded from: a run, or a file."""
    for root in (path, *path.parents[:3]):
        if RunDir(root).config.is_file():
            return f"run {root.resolve().name}"
    return f"file {path.name}"
