"""Embeddings and class probabilities of a model on whole splits, and their accuracies."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from supcon_tf.data.pipeline import evaluation_batches
from supcon_tf.data.preprocessing import Preprocessing
from supcon_tf.data.sources import Source
from supcon_tf.data.splits import Split
from supcon_tf.evaluation.cached_features import Features, cached_features
from supcon_tf.evaluation.features import predict
from supcon_tf.evaluation.knn import (
    knn_probabilities,
    prototype_probabilities,
    soft_neighbor_probabilities,
)
from supcon_tf.evaluation.metrics import (
    mean_average_precision,
    mean_per_class_accuracy,
    top_k_accuracy,
    worst_class_accuracy,
)
from supcon_tf.models import ReplicatedModel, class_scores, embedding_model, model_parts
from supcon_tf.run_dir import RunDir

# More do not change a neighbour vote much, and their embeddings must fit into memory.
MAX_REFERENCES = 50_000


@dataclasses.dataclass(frozen=True)
class Scores:
    """A model's outputs for n images: embeddings [n, D], probabilities [n, C], and the labels.

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
        """Top-1 accuracy; mean average precision for several labels per image."""
        if self.is_multi_label:
            return mean_average_precision(self.probabilities, self.labels)
        return self.top_k(1)

    def top_k(self, k: int) -> float:
        """Share of images whose class is among the k likeliest."""
        return top_k_accuracy(self.probabilities, self.labels, k=k)

    def mean_per_class(self) -> float:
        """Mean over the classes of the share of their images that are classified correctly."""
        return mean_per_class_accuracy(self.probabilities, self.labels)

    def worst_class(self) -> float:
        """Lowest share of a class's images that are classified correctly."""
        return worst_class_accuracy(self.probabilities, self.labels)

    def by_neighbors(self, references: "Scores") -> dict[str, float]:
        """Accuracies of the classifiers that need labelled references and no training."""
        num_classes = self.probabilities.shape[1]
        if self.is_multi_label:
            # Prototypes need mutually exclusive classes.
            votes = knn_probabilities(
                self.embeddings,
                references.embeddings,
                references.labels,
                num_classes=num_classes,
            )
            return {"knn_mean_average_precision": mean_average_precision(votes, self.labels)}
        classifiers = {
            "knn_top_1": knn_probabilities,
            "prototype_top_1": prototype_probabilities,
            "soft_neighbor_top_1": soft_neighbor_probabilities,
        }
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
        are shared, so later training changes the scores.
      preprocessing: crop and scale.
      batch_size: images at a time.
      stage: for the progress bar.
      multi_label: whether an image may have several labels: each class has a sigmoid then, where
        otherwise a softmax makes the probabilities of an image sum to one.

    The attribute `model` maps images to {"embedding", "probabilities"}.
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
        self._encoder = embedding_model(trained)
        self._classifier = model_parts(trained)["classifier"]
        embedding = self._encoder(images)
        scores = class_scores(self._classifier(embedding))
        self._probabilities = keras.ops.sigmoid if multi_label else keras.ops.softmax
        self.model = keras.Model(
            images, {"embedding": embedding, "probabilities": self._probabilities(scores)}
        )
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self._stage = stage
        self._features: dict[str, Features] = {}

    def cache_features(
        self, run_dir: RunDir, source: Source, encoder_file: Path
    ) -> dict[str, Features]:
        """Computes the features of training and validation images, or reads them from files.

        Later scores of these images come from the features. Requires a frozen encoder.

        Returns:
          The features of "training" and, if there is such a split, "validation".
        """
        for name, split in (("training", source.train), ("validation", source.validation)):
            if split is not None:
                self._features[name] = cached_features(
                    run_dir.features,
                    name,
                    split,
                    self._encoder,
                    encoder_file=encoder_file,
                    preprocessing=self.preprocessing,
                    batch_size=self.batch_size,
                    description=f"{self._stage}: features of {name} images",
                )
        return self._features

    def model_on_features(self) -> keras.Model:
        """The classifier alone: features [B, D] -> {"logits": [B, C]}."""
        rows = keras.Input(self._encoder.output_shape[1:], name="features")
        return ReplicatedModel(rows, {"logits": self._classifier(rows)})

    def score(self, split: Split, name: str, *, limit: int | None = None) -> Scores:
        """Scores the images of a split, or `limit` of them, in a fixed random order."""
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
                preprocessing=self.preprocessing,
                batch_size=self.batch_size,
            ),
            num_batches=-(-count // self.batch_size),
            description=f"{self._stage}: {name} images",
        )
        return Scores(outputs["embedding"], outputs["probabilities"], labels)

    def references(self, source: Source, support: Source | None) -> Scores:
        """The labelled references of the neighbour classifiers: the support's, if there is one."""
        if support is None:
            return self.score(source.train, "training", limit=MAX_REFERENCES)
        return self.score(support.train, "support")


def in_random_order(split: Split, count: int) -> tf.data.Dataset:
    """(image, label) of `count` images in a fixed random order; a folder's order is by class."""
    return split.shuffled(seed=0, start=0, stop=count)
