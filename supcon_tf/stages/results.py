"""What a stage measures on its own splits, and the arrays that the report is drawn from."""

import dataclasses
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from supcon_tf.data.batches import evaluation_batches
from supcon_tf.data.sources import Source
from supcon_tf.data.splits import IndexedSplit, Split
from supcon_tf.data.views import Preprocessing, decode
from supcon_tf.evaluation import (
    knn_probabilities,
    mean_per_class_accuracy,
    predict,
    prototype_probabilities,
    soft_neighbor_probabilities,
    top_k_accuracy,
)
from supcon_tf.models import class_scores, embedding_model, parts_of
from supcon_tf.stages.cached_features import Features, cached_features
from supcon_tf.stages.run_folder import RunFolder
from supcon_tf.stages.serving import save_serving_model

# More do not change a neighbour vote much, and their embeddings must fit into memory.
MAX_REFERENCES = 50_000
MAX_THUMBNAILS = 1_000
MAX_THUMBNAIL_PX = 48


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model says of n images: embeddings [n, D], probabilities [n, C], labels [n]."""

    embeddings: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray

    def top_k(self, k: int) -> float:
        """Share of images whose class is among the k likeliest."""
        return top_k_accuracy(self.probabilities, self.labels, k=k)

    def mean_per_class(self) -> float:
        """Mean over the classes of the share of their images that are classified right."""
        return mean_per_class_accuracy(self.probabilities, self.labels)

    def top_1_by_neighbors(self, references: "Scores") -> dict[str, float]:
        """Accuracies of the classifiers that need labelled references and no training."""
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
    """

    def __init__(
        self, trained: keras.Model, *, preprocessing: Preprocessing, batch_size: int, stage: str
    ):
        images = keras.Input(preprocessing.image_shape, name="images")
        self._encoder, self._classifier = embedding_model(trained), parts_of(trained)["classifier"]
        embedding = self._encoder(images)
        scores = class_scores(self._classifier(embedding))
        self.model = keras.Model(
            images, {"embedding": embedding, "probabilities": keras.ops.softmax(scores)}
        )
        self._preprocessing = preprocessing
        self._batch_size = batch_size
        self._stage = stage
        self._features: dict[str, Features] = {}

    def cache_features(
        self, folder: RunFolder, source: Source, encoder_file: Path
    ) -> tuple[keras.Model, dict[str, Features]]:
        """Computes what the encoder says of the images to train on and to choose by, or reads it.

        From then on the scores of these images come from it. Asks that the encoder does not train.

        Returns:
          The classifier alone, features [B, D] -> {"logits": [B, C]}, and the features of
          "training" and, where there are such images, "validation".
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
        rows = keras.Input(self._encoder.output_shape[1:], name="features")
        return keras.Model(rows, {"logits": self._classifier(rows)}), self._features

    def score(self, split: Split, name: str, *, limit: int | None = None) -> Scores:
        """The images of the split, or up to `limit` of them, in an unchanging random order."""
        count = min(split.num_examples, limit or split.num_examples)
        if name in self._features:
            features = self._features[name]
            chosen = features.as_split().shuffled_numbers(seed=0, start=0, stop=count)
            embeddings = features.embeddings[chosen]
            logits = self._classifier(embeddings, training=False)
            return Scores(embeddings, tf.nn.softmax(logits).numpy(), features.labels[chosen])
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


def in_random_order(split: Split, count: int) -> tf.data.Dataset:
    """The same `count` (image, label) of a split each time; a folder's own order is by class."""
    return split.shuffled(seed=0, start=0, stop=count)


def measure_and_save(
    folder: RunFolder,
    stage: str,
    model: keras.Model,
    scorer: Scorer,
    *,
    source: Source,
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
      source: its training images are the references of neighbours.
      preprocessing: crop and scale of the export.
      classifies: whether the stage trained the classifier, which is a probe otherwise.
      seconds_of_features: that went by before the epochs of the curve.
    """
    end_of_training = time.perf_counter()
    held_out = scorer.score(source.test, "held-out")
    references = scorer.score(source.train, "training", limit=MAX_REFERENCES)
    metrics = {
        "loss": folder.curve(stage)[-1]["loss"],
        **held_out.top_1_by_neighbors(references),
    }
    if classifies:
        metrics |= {
            "top_1": held_out.top_k(1),
            "top_5": held_out.top_k(5),
            "mean_per_class": held_out.mean_per_class(),
        }
    else:
        metrics["probe_top_1"] = held_out.top_k(1)
    save_held_out(folder, held_out, source, with_probabilities=classifies)
    model.save(folder.model(stage))
    save_serving_model(
        folder.export,
        scorer.model,
        preprocessing=preprocessing,
        class_names=source.class_names if classifies else None,
    )
    curve = folder.curve(stage)
    seconds_training = seconds_of_features + sum(record["seconds"] for record in curve)
    metrics["seconds"] = seconds_training + time.perf_counter() - end_of_training
    metrics["images_per_second"] = float(
        np.median([record["images_per_second"] for record in curve])
    )
    folder.set_metrics(stage, metrics)


def save_held_out(
    folder: RunFolder, scores: Scores, source: Source, *, with_probabilities: bool
) -> None:
    """Writes what the report shows of the held-out split: see `RunFolder.save_held_out`."""
    pictured = in_random_order(source.test, min(source.test.num_examples, MAX_THUMBNAILS))
    arrays = {
        "embeddings": scores.embeddings,
        "labels": scores.labels,
        "class_names": np.array(source.class_names),
        "thumbnails": np.stack([_thumbnail(image) for image, _ in pictured]),
    }
    if isinstance(source.test, IndexedSplit) and source.test.paths:
        numbers = source.test.shuffled_numbers(seed=0, start=0, stop=source.test.num_examples)
        arrays["paths"] = np.array([source.test.paths[number] for number in numbers])
    if with_probabilities:
        arrays["probabilities"] = scores.probabilities
    folder.save_held_out(**arrays)


def _thumbnail(image: tf.Tensor) -> np.ndarray:
    """A square uint8 picture that keeps the aspect of the image."""
    small = tf.image.resize_with_pad(
        tf.cast(decode(image), tf.float32), MAX_THUMBNAIL_PX, MAX_THUMBNAIL_PX, antialias=True
    )
    return tf.cast(tf.clip_by_value(tf.round(small), 0, 255), tf.uint8).numpy()
