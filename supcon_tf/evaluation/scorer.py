"""What a stage measures on its own splits, and the arrays that the report is drawn from."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from supcon_tf.data.pipeline import evaluation_batches
from supcon_tf.data.preprocessing import Preprocessing
from supcon_tf.data.sources import Source
from supcon_tf.data.splits import IndexedSplit, Split
from supcon_tf.evaluation import (
    average_precisions,
    knn_probabilities,
    mean_average_precision,
    mean_per_class_accuracy,
    predict,
    prototype_probabilities,
    soft_neighbor_probabilities,
    top_k_accuracy,
)
from supcon_tf.evaluation.cached_features import Features, cached_features
from supcon_tf.evaluation.saved_model import save_serving_model, serving_model
from supcon_tf.evaluation.thumbnails import thumbnails
from supcon_tf.models import class_scores, embedding_model, model_parts
from supcon_tf.models.distributed import ReplicatedModel
from supcon_tf.run_dir import RunDir

# More do not change a neighbour vote much, and their embeddings must fit into memory.
MAX_REFERENCES = 50_000
MAX_THUMBNAILS = 1_000


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model says of n images: embeddings [n, D], probabilities [n, C], labels.

    The labels are [n], or [n, C] of 0 and 1 where an image may have several.
    """

    embeddings: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2

    @property
    def accuracy(self) -> float:
        """The number to choose by: mean average precision for several labels, top-1 for one."""
        if self.is_multi_label:
            return mean_average_precision(self.probabilities, self.labels)
        return self.top_k(1)

    def top_k(self, k: int) -> float:
        """Share of images whose class is among the k likeliest."""
        return top_k_accuracy(self.probabilities, self.labels, k=k)

    def mean_per_class(self) -> float:
        """Mean over the classes of the share of their images that are classified right."""
        return mean_per_class_accuracy(self.probabilities, self.labels)

    def by_neighbors(self, references: "Scores") -> dict[str, float]:
        """Accuracies of the classifiers that need labelled references and no training."""
        if self.is_multi_label:
            # Prototypes are of classes that shut each other out.
            votes = knn_probabilities(
                self.embeddings,
                references.embeddings,
                references.labels,
                num_classes=self.labels.shape[1],
            )
            return {"knn_mean_average_precision": mean_average_precision(votes, self.labels)}
        classifiers = {
            "knn_top_1": knn_probabilities,
            "prototype_top_1": prototype_probabilities,
            "soft_neighbor_top_1": soft_neighbor_probabilities,
        }
        num_classes = self.probabilities.shape[1]
        return {
            name: top_k_accuracy(
                classify(
                    self.embeddings,
                    references.embeddings,
                    references.labels,
                    num_classes=num_classes,
                ),
                self.labels,
            )
            for name, classify in classifiers.items()
        }


class Scorer:
    """Runs the embedding and the classifier of a model over evaluation crops.

    Args:
      trained: from `contrastive_model` with a probe or from `classification_model`; its weights
        are shared, so that later training is seen.
      preprocessing: crop and scale.
      batch_size: images at a time.
      stage: for the progress bar.
      multi_label: whether the classes are independent, so that each has a sigmoid of its own; the
        probabilities of an image add up to one otherwise.
    """

    def __init__(
        self,
        trained: keras.Model,
        *,
        preprocessing: Preprocessing,
        batch_size: int,
        stage: str,
        multi_label: bool = False,
    ):
        images = keras.Input(preprocessing.image_shape, name="images")
        self._encoder, self._classifier = (
            embedding_model(trained),
            model_parts(trained)["classifier"],
        )
        embedding = self._encoder(images)
        scores = class_scores(self._classifier(embedding))
        self._probabilities = keras.ops.sigmoid if multi_label else keras.ops.softmax
        self.model = keras.Model(
            images, {"embedding": embedding, "probabilities": self._probabilities(scores)}
        )
        self._preprocessing = preprocessing
        self._batch_size = batch_size
        self._stage = stage
        self._features: dict[str, Features] = {}

    def cache_features(
        self, folder: RunDir, source: Source, encoder_file: Path
    ) -> dict[str, Features]:
        """Computes what the encoder says of the images to train on and to choose by, or reads it.

        From then on the scores of these images come from it. Asks that the encoder does not train.

        Returns:
          The features of "training" and, where there are such images, "validation".
        """
        for name, split in (("training", source.train), ("validation", source.validation)):
            if split is not None:
                self._features[name] = cached_features(
                    folder.features,
                    name,
                    split,
                    self._encoder,
                    encoder_file=encoder_file,
                    preprocessing=self._preprocessing,
                    batch_size=self._batch_size,
                    description=f"{self._stage}: features of {name} images",
                )
        return self._features

    def model_on_features(self) -> keras.Model:
        """The classifier alone: features [B, D] -> {"logits": [B, C]}."""
        rows = keras.Input(self._encoder.output_shape[1:], name="features")
        return ReplicatedModel(rows, {"logits": self._classifier(rows)})

    def score(self, split: Split, name: str, *, limit: int | None = None) -> Scores:
        """The images of the split, or up to `limit` of them, in an unchanging random order."""
        count = min(split.num_examples, limit or split.num_examples)
        if name in self._features:
            features = self._features[name]
            chosen = features.as_split().shuffled_numbers(seed=0, start=0, stop=count)
            embeddings = features.embeddings[chosen]
            logits = self._classifier(embeddings, training=False)
            probabilities = self._probabilities(logits).numpy()
            return Scores(embeddings, probabilities, features.labels[chosen])
        outputs, labels = predict(
            self.model,
            evaluation_batches(
                in_random_order(split, count),
                preprocessing=self._preprocessing,
                batch_size=self._batch_size,
            ),
            num_batches=-(-count // self._batch_size),
            description=f"{self._stage}: {name} images",
        )
        return Scores(outputs["embedding"], outputs["probabilities"], labels)

    def references(self, source: Source, support: Source | None) -> Scores:
        """The labelled images that neighbours are looked for in: the support's, if there is one."""
        if support is None:
            return self.score(source.train, "training", limit=MAX_REFERENCES)
        return self.score(support.train, "support")


def in_random_order(split: Split, count: int) -> tf.data.Dataset:
    """The same `count` (image, label) of a split each time; a folder's own order is by class."""
    return split.shuffled(seed=0, start=0, stop=count)


def measure_and_save(
    folder: RunDir,
    stage: str,
    model: keras.Model,
    scorer: Scorer,
    *,
    source: Source,
    support: Source | None,
    preprocessing: Preprocessing,
    classifies: bool,
    seconds_of_features: float,
) -> None:
    """Measures the trained model of a stage and saves it: metrics, arrays, model, export.

    Args:
      folder: the run's.
      stage: its name.
      model: trained.
      scorer: of that model.
      source: its test images are measured, up to `MAX_REFERENCES` of its training images are the
        references of neighbours.
      support: None, or whose training images are the references instead, all of them.
      preprocessing: crop and scale of the export.
      classifies: whether the stage trained the classifier, which is a probe otherwise.
      seconds_of_features: that went by before the epochs of the curve.
    """
    end_of_training = time.perf_counter()
    model.save(folder.model(stage))
    held_out = scorer.score(source.test, "held-out")
    metrics = {
        "loss": folder.curve(stage)[-1]["loss"],
        **held_out.by_neighbors(scorer.references(source, support)),
        **_class_metrics(held_out, source, classifies),
    }
    save_scored_split(folder, held_out, source, with_probabilities=classifies)
    folder.remove_metrics("robustness")  # It was measured of another classifier.
    save_serving_model(
        folder.export,
        serving_model(model, multi_label=source.is_multi_label),
        preprocessing=preprocessing,
        class_names=source.class_names if classifies else None,
        multi_label=source.is_multi_label,
    )
    curve = folder.curve(stage)
    seconds_training = seconds_of_features + sum(record["seconds"] for record in curve)
    metrics["seconds"] = seconds_training + time.perf_counter() - end_of_training
    metrics["images_per_second"] = float(
        np.median([record["images_per_second"] for record in curve])
    )
    folder.set_metrics(stage, metrics)


def _class_metrics(scores: Scores, source: Source, classifies: bool) -> dict[str, Any]:
    """What the classifier's scores are worth; of a probe one number."""
    if not classifies:
        name = "mean_average_precision" if scores.is_multi_label else "top_1"
        return {f"probe_{name}": scores.accuracy}
    if not scores.is_multi_label:
        return {
            "top_1": scores.top_k(1),
            "top_5": scores.top_k(5),
            "mean_per_class": scores.mean_per_class(),
        }
    of_classes = average_precisions(scores.probabilities, scores.labels)
    named = zip(source.class_names, of_classes.tolist(), strict=True)
    return {
        "mean_average_precision": scores.accuracy,
        # The area under the steps of precision over recall, as in scikit-learn.
        "mean_average_precision_area": mean_average_precision(
            scores.probabilities, scores.labels, interpolation="none"
        ),
        "average_precisions": {name: value for name, value in named if not math.isnan(value)},
    }


def save_scored_split(
    folder: RunDir, scores: Scores, source: Source, *, with_probabilities: bool
) -> None:
    """Writes what the report shows of the held-out split: see `RunDir.save_scored_split`."""
    pictured = in_random_order(source.test, min(source.test.num_examples, MAX_THUMBNAILS))
    arrays = {
        "embeddings": scores.embeddings,
        "labels": scores.labels,
        "class_names": np.array(source.class_names),
        "thumbnails": thumbnails(image for image, _ in pictured),
    }
    if isinstance(source.test, IndexedSplit) and source.test.paths:
        numbers = source.test.shuffled_numbers(seed=0, start=0, stop=source.test.num_examples)
        arrays["paths"] = np.array([source.test.paths[number] for number in numbers])
    if with_probabilities:
        arrays["probabilities"] = scores.probabilities
    folder.save_scored_split(**arrays)
