"""Measures a stage after its epochs and at its end, and saves the results."""

import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from supcon_tf.data.sources import Source
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.evaluation import (
    average_precisions,
    classification_intervals,
    expected_calibration_error,
    fit_temperature,
    mean_average_precision,
    negative_log_likelihood,
    retrieval_intervals,
    scale_probabilities,
)
from supcon_tf.evaluation.intervals import as_metrics
from supcon_tf.evaluation.saved_model import save_serving_model, serving_model
from supcon_tf.evaluation.scorer import Scorer, Scores, in_random_order
from supcon_tf.evaluation.thumbnails import thumbnails
from supcon_tf.files import replacing
from supcon_tf.run_dir import RunDir
from supcon_tf.training.batches import TrainingData
from supcon_tf.training.config import TrainingConfig
from supcon_tf.training.contrastive_test_loss import contrastive_test_loss
from supcon_tf.training.objective import Objective
from supcon_tf.training.projection_watch import ProjectionWatch

# Evaluation batch size per device.
MAX_SCORED_PER_DEVICE = 256
MAX_THUMBNAILS = 1_000
# More images do not change one temperature much.
MAX_CALIBRATION_IMAGES = 10_000


def stage_scorer(network: keras.Model, data: TrainingData, config: TrainingConfig) -> Scorer:
    """The scorer of a stage's model; a device scores no more images at a time than it trains on."""
    per_device = config.gradient_cache_chunk or config.batch_size // config.replicas
    return Scorer(
        network,
        preprocessing=data.preprocessing,
        batch_size=min(per_device, MAX_SCORED_PER_DEVICE),
        stage=config.stage,
        multi_label=data.source.is_multi_label,
    )


@dataclasses.dataclass(frozen=True)
class EpochMeasures:
    """Measures a model at the end of an epoch, and keeps snapshots of it.

    Args:
      run_dir: the run directory.
      network: the model that trains.
      scorer: scorer of that model.
      data: the images.
      config: settings of the stage.
      objective: the losses that are trained.
      support: references of the neighbour classifiers; None for the training images.
    """

    run_dir: RunDir
    network: keras.Model
    scorer: Scorer
    data: TrainingData
    config: TrainingConfig
    objective: Objective
    support: Source | None = None

    @property
    def best_by(self) -> str | None:
        """The measure by which the best epoch is chosen; None without a validation split."""
        source = self.data.source
        if source.validation is None or not source.has_labels:
            return None
        kind = "mean_average_precision" if source.is_multi_label else "accuracy"
        return f"validation_{kind}"

    @functools.cached_property
    def watch(self) -> ProjectionWatch:
        """The projections of a few training images."""
        return ProjectionWatch(self.network, self.objective, self.data, self.config)

    def __call__(self, epoch: int) -> dict[str, float]:
        """The measures of an epoch."""
        measures = self.watch.measures() if self.watch.is_possible else {}
        source = self.data.source
        if self.best_by is not None and source.validation is not None:
            measures[self.best_by] = self.scorer.score(source.validation, "validation").accuracy
        every, stage = self.config.snapshot_every, self.config.stage
        if every is None or epoch % every:
            return measures
        self.run_dir.checkpoints(stage).mkdir(parents=True, exist_ok=True)
        with replacing(self.run_dir.model(stage, epoch)) as partial:
            self.network.save(partial)
        return measures | self.test_measures(self.scorer.score(source.test, "test"))

    def advise(self, record: Mapping[str, Any]) -> str | None:
        """One line of advice on the record of an epoch, if it needs any."""
        return self.watch.advise(record) if self.watch.is_possible else None

    def test_measures(self, scores: Scores) -> dict[str, float]:
        """The contrastive loss on the test split, and its neighbour accuracies if it has labels."""
        test_loss = contrastive_test_loss(
            self.network,
            self.objective,
            self.data,
            self.config,
            rows_at_a_time=self.scorer.batch_size,
        )
        measures = {} if test_loss is None else {"test_loss": test_loss}
        if self.data.source.has_labels:
            references = self.scorer.references(self.data.source, self.support)
            measures |= scores.by_neighbors(references)
        return measures


def evaluate_and_save(measures: EpochMeasures) -> None:
    """Evaluates a trained model on the test split; saves model, metrics, arrays and export.

    A worker that is not the chief does nothing. A run of metrics only saves no arrays and export.

    Args:
      measures: the measures of the finished stage.
    """
    run_dir, data, scorer = measures.run_dir, measures.data, measures.scorer
    if not run_dir.is_chief:
        return
    source, stage = data.source, measures.config.stage
    classifies = measures.objective.classifies
    start = time.perf_counter()
    with replacing(run_dir.model(stage)) as partial:
        measures.network.save(partial)
    scores = scorer.score(source.test, "test")
    metrics = measures.test_measures(scores)
    metrics |= run_dir.encoders().get(stage, {}).get("frozen", {})
    temperature = _temperature(scorer, source) if classifies else None
    if source.has_labels:
        metrics |= _classifier_metrics(scores, source, classifies)
        if not scores.is_multi_label:
            metrics |= _measures_with_intervals(scores, classifies)
            metrics |= _calibration_metrics(scores, temperature) if classifies else {}
    else:
        print(f"{stage}: no neighbour classifiers and no probe, the images have no labels")
    _write_scalars(run_dir, stage, metrics)
    for evaluation in ("robustness", "shifts"):
        run_dir.remove_metrics(evaluation)  # They belong to the previous classifier.
    if not run_dir.metrics_only:
        save_scored_split(run_dir, scores, source, with_probabilities=classifies)
        save_serving_model(
            run_dir.export,
            serving_model(measures.network, multi_label=source.is_multi_label),
            preprocessing=data.preprocessing,
            class_names=source.class_names if classifies else None,
            multi_label=source.is_multi_label,
            temperature=temperature,
        )
    curve = run_dir.curve(stage)
    metrics = {"loss": curve[-1]["loss"], **metrics}
    seconds = data.seconds_of_features + sum(record["seconds"] for record in curve)
    metrics["seconds"] = seconds + time.perf_counter() - start
    metrics["images_per_second"] = float(
        np.median([record["images_per_second"] for record in curve])
    )
    run_dir.set_metrics(stage, metrics)


def _write_scalars(run_dir: RunDir, stage: str, measures: Mapping[str, Any]) -> None:
    """Adds numbers to the TensorBoard scalars of a stage, at its last step."""
    writer = tf.summary.create_file_writer(str(run_dir.tensorboard(stage)))
    with writer.as_default(step=run_dir.curve(stage)[-1]["step"]):
        for name, value in measures.items():
            if isinstance(value, float):
                tf.summary.scalar(name, value)
    writer.close()


def _classifier_metrics(scores: Scores, source: Source, classifies: bool) -> dict[str, Any]:
    """Accuracies of the classifier; one number for a probe."""
    if not classifies:
        name = "mean_average_precision" if scores.is_multi_label else "top_1"
        return {f"probe_{name}": scores.accuracy}
    if not scores.is_multi_label:
        return {
            "top_1": scores.top_k(1),
            "top_5": scores.top_k(5),
            "mean_per_class": scores.mean_per_class(),
            "worst_class": scores.worst_class(),
        }
    by_class = average_precisions(scores.probabilities, scores.labels)
    named = zip(source.class_names, by_class.tolist(), strict=True)
    return {
        "mean_average_precision": scores.accuracy,
        # The area under the steps of precision over recall, as in scikit-learn.
        "mean_average_precision_area": mean_average_precision(
            scores.probabilities, scores.labels, interpolation="none"
        ),
        "average_precisions": {name: value for name, value in named if not math.isnan(value)},
    }


def _temperature(scorer: Scorer, source: Source) -> float | None:
    """The temperature of the validation split; None without one, or for several labels."""
    if source.validation is None or source.is_multi_label:
        return None
    validation = scorer.score(source.validation, "validation", limit=MAX_CALIBRATION_IMAGES)
    return fit_temperature(validation.probabilities, validation.labels)


def _measures_with_intervals(scores: Scores, classifies: bool) -> dict[str, Any]:
    """Retrieval by the embedding, and if it is trained the classifier, with bootstrap intervals."""
    intervals = retrieval_intervals(scores.embeddings, scores.labels)
    if classifies:
        intervals |= classification_intervals(scores.probabilities, scores.labels)
    return as_metrics(intervals)


def _calibration_metrics(scores: Scores, temperature: float | None) -> dict[str, float]:
    """Calibration error on the test split; likelihood and error with the temperature, if any."""
    metrics = {
        "expected_calibration_error": expected_calibration_error(
            scores.probabilities, scores.labels
        )
    }
    if temperature is not None:
        scaled = scale_probabilities(scores.probabilities, temperature)
        metrics |= {
            "temperature": temperature,
            "calibrated_negative_log_likelihood": negative_log_likelihood(scaled, scores.labels),
            "calibrated_expected_calibration_error": expected_calibration_error(
                scaled, scores.labels
            ),
        }
    return metrics


def save_scored_split(
    run_dir: RunDir, scores: Scores, source: Source, *, with_probabilities: bool
) -> None:
    """Saves what the report shows of the test split, as `RunDir.scored_split`."""
    test = source.test
    pictured = in_random_order(test, min(test.num_examples, MAX_THUMBNAILS))
    arrays = {
        "embeddings": scores.embeddings,
        "labels": scores.labels,
        "class_names": np.array(source.class_names, str),
        "thumbnails": thumbnails(image for image, _ in pictured),
    }
    if isinstance(test, IndexedSplit) and test.paths:
        numbers = test.shuffled_numbers(seed=0, start=0, stop=test.num_examples)
        arrays["paths"] = np.array([test.paths[number] for number in numbers])
    if with_probabilities:
        arrays["probabilities"] = scores.probabilities
    run_dir.save_scored_split(**arrays)
