"""An index of embeddings: nearest neighbours with their paths and labels."""

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from supcon_tf.errors import UserError, check_choice, check_flag, check_integer
from supcon_tf.search import calibration as calibrations
from supcon_tf.search.calibration import Calibration, References, UnknownScore
from supcon_tf.search.graph import Graph
from supcon_tf.search.index_files import Contents, read_index, write_index
from supcon_tf.search.nearest import distances, nearest, unit_rows

# Above this number of images the search is approximate, unless asked otherwise.
EXACT_LIMIT = 100_000


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """The nearest neighbours of q images, the most similar first.

    Args:
      similarities: float32 [q, k], cosine similarities.
      paths: str [q, k] (object array).
      labels: str [q, k] (object array); "" for no label.
    """

    similarities: np.ndarray
    paths: np.ndarray
    labels: np.ndarray

    @property
    def distances(self) -> np.ndarray:
        """Euclidean distances of the unit-length embeddings, float32 [q, k]."""
        return distances(self.similarities)


class Index:
    """Embeddings of images with their paths and labels, searched by cosine similarity.

    The search is exact, by matrix products, up to 100,000 images. Above, it is approximate and
    needs usearch (`pip install '.[search]'`): see `search.graph`.

    Args:
      embeddings: numbers [n, D]; they are scaled to unit length.
      paths: [n], no two equal: names of the images.
      labels: [n] of text, "" for no label. None for no labels.
      approximate: True or False chooses for any number of images; None by the number.

    Raises:
      UserError: arguments of other kinds or lengths, a path twice, or usearch is needed and not
        installed.

    Example:
      >>> from supcon_tf.index import Index
      >>> index = Index([[1.0, 0.0], [0.0, 2.0]], ["cat.jpg", "dog.jpg"], ["cat", "dog"])
      >>> index.add([[0.8, 0.6]], ["cat_2.jpg"], ["cat"])
      >>> neighbors = index.search([[3.0, 1.0]], k=2)
      >>> neighbors.paths.tolist(), neighbors.labels.tolist()
      ([['cat.jpg', 'cat_2.jpg']], [['cat', 'cat']])
      >>> index.remove(["cat.jpg"])
      >>> index.search([[3.0, 1.0]], k=1).paths.tolist()
      [['cat_2.jpg']]
    """

    def __init__(
        self,
        embeddings: Any,
        paths: Sequence[str | os.PathLike[str]],
        labels: Sequence[str] | None = None,
        *,
        approximate: bool | None = None,
    ):
        check_flag("approximate", approximate, optional=True)
        rows = unit_rows(embeddings)
        self.approximate = approximate
        self.calibration: Calibration | None = None
        # `index_files.model_checksum` of the model; `predict` compares it with its own model.
        self.model_checksum: str | None = None
        self._rows = rows[:0]
        self._paths = self._labels = np.empty(0, object)
        # Ascending, and never used again for another image.
        self._keys = np.empty(0, np.int64)
        self._next_key = 0
        self._graph: Graph | None = None
        self.add(rows, paths, labels)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._rows)

    @property
    def embeddings(self) -> np.ndarray:
        """float32 [n, D] of unit length."""
        return self._rows

    @property
    def paths(self) -> tuple[str, ...]:
        """The path of each image."""
        return tuple(self._paths)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each image; "" for no label."""
        return tuple(self._labels)

    def add(
        self,
        embeddings: Any,
        paths: Sequence[str | os.PathLike[str]],
        labels: Sequence[str] | None = None,
    ) -> None:
        """Adds images; the calibration stays as it is: see `changed_classes`.

        Args:
          embeddings: numbers [n, D] of the index's model.
          paths: [n], none of which is in the index.
          labels: [n]; None for no labels.

        Raises:
          UserError: as the constructor.
        """
        rows = unit_rows(embeddings, dimension=self._rows.shape[1])
        new_paths = _texts("paths", [os.fspath(path) for path in _listed("paths", paths)], rows)
        new_labels = _texts("labels", [""] * len(rows) if labels is None else labels, rows)
        known = set(self._paths)
        for path in new_paths:
            if path in known:
                raise UserError(f"paths must differ, got {path!r} twice: remove it first")
            known.add(path)
        keys = self._next_key + np.arange(len(rows))
        all_rows = np.concatenate([self._rows, rows])
        # The graph first: it raises an error if usearch is missing.
        wants_graph = self.approximate
        if wants_graph is None:
            wants_graph = len(all_rows) > EXACT_LIMIT
        if self._graph is not None:
            self._graph.add(keys, rows)
        elif wants_graph:
            self._graph = Graph(rows.shape[1])
            self._graph.add(np.concatenate([self._keys, keys]), all_rows)
        self._rows = all_rows
        self._paths = np.concatenate([self._paths, new_paths])
        self._labels = np.concatenate([self._labels, new_labels])
        self._keys = np.concatenate([self._keys, keys])
        self._next_key += len(rows)

    def remove(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        """Removes the images of these paths; the calibration stays as it is: see `changed_classes`.

        Raises:
          UserError: a path that is not in the index.
        """
        removed = {os.fspath(path) for path in _listed("paths", paths)}
        is_removed = np.array([path in removed for path in self._paths], bool)
        if is_removed.sum() < len(removed):
            missing = sorted(removed - set(self._paths))[0]
            raise UserError(f"the index has no image {missing!r}")
        if self._graph is not None:
            self._graph.remove(self._keys[is_removed])
        self._rows, self._paths = self._rows[~is_removed], self._paths[~is_removed]
        self._labels, self._keys = self._labels[~is_removed], self._keys[~is_removed]

    def search(self, embeddings: Any, k: int = 5) -> Neighbors:
        """The k nearest neighbours of each embedding.

        Args:
          embeddings: numbers [q, D] of the index's model. An image of the index finds itself.
          k: number of neighbours; all images if there are fewer.

        Raises:
          UserError: k < 1, or embeddings of another shape.
        """
        check_integer("k", k, at_least=1)
        rows = unit_rows(embeddings, dimension=self._rows.shape[1])
        if self._graph is None:
            similarities, positions = nearest(rows, self._rows, k)
        else:
            similarities, positions = self._graph.nearest(rows, self._rows, self._keys, k)
        return Neighbors(similarities, self._paths[positions], self._labels[positions])

    def calibrate(
        self,
        *,
        precision: float | None = None,
        known_share: float | None = None,
        unknown_score: UnknownScore | None = None,
        num_neighbors: int | None = None,
        images: tuple[Any, Sequence[str]] | None = None,
        unknown: Any = None,
        seed: int = 0,
    ) -> Calibration:
        """Finds the thresholds of matches and of unknown images, and keeps them.

        Args:
          precision: wanted share of right labels among the matches: see `match_threshold`. None
            is that of the last match threshold, or 0.95.
          known_share: share of known images that are not called unknown. None is that of the last
            calibration, or 0.95.
          unknown_score: "knn", the distance to the k-th neighbour (Sun et al. 2022,
            "Out-of-Distribution Detection with Deep Nearest Neighbors"), or "mahalanobis": see
            `class_statistics`. None is that of the last calibration, or "knn".
          num_neighbors: k of "knn"; all images if there are fewer. None for 10, or less if classes
            are small: see `calibration.default_neighbors`.
          images: embeddings [m, D] and labels [m] of calibration images of the index's classes that
            are not in the index, best those that the encoder was not trained on. None compares a
            fifth of each class with the other images, each fifth in turn (only one with more than
            20,000 images).
          unknown: embeddings [u, D] of images of other classes, to measure the detection.
          seed: of the fifths.

        Raises:
          UserError: an option out of range, an empty index, `images` of a class that the index
            does not have, or no class has two images.
        """
        if (last := self.calibration) is not None:
            known_share = last.known_share if known_share is None else known_share
            unknown_score = last.unknown_score if unknown_score is None else unknown_score
            if precision is None and last.match is not None:
                precision = last.match.wanted_precision
        precision = 0.95 if precision is None else precision
        known_share = 0.95 if known_share is None else known_share
        unknown_score = "knn" if unknown_score is None else unknown_score
        check_choice("unknown_score", unknown_score, get_args(UnknownScore))
        if num_neighbors is not None:
            check_integer("num_neighbors", num_neighbors, at_least=1)
        check_integer("seed", seed, at_least=0)
        if not len(self):
            raise UserError("an index without images cannot be calibrated")
        numbers = {label: i for i, label in enumerate(sorted(set(self._labels) - {""}))} | {"": -1}
        labels = np.array([numbers[label] for label in self._labels])
        num_neighbors = num_neighbors or calibrations.default_neighbors(labels)
        references = References.fit(self._rows, labels, num_neighbors)
        if images is None:
            positions, known = calibrations.cross_validated(
                self._rows, labels, num_neighbors=num_neighbors, seed=seed
            )
            known_labels = labels[positions]
        else:
            rows = self._other_rows("images", images[0])
            texts = _texts("labels of images", images[1], rows)
            for label in texts:
                if label not in numbers:
                    raise UserError(
                        f"images have the class {label!r}, which the index does not have: leave "
                        "it out, or give its images as unknown"
                    )
            known_labels = np.array([numbers[label] for label in texts])
            known = calibrations.score(rows, references)
        self.calibration = calibrations.calibration(
            known,
            known_labels,
            unknown=None
            if unknown is None
            else calibrations.score(self._other_rows("unknown", unknown), references),
            precision=precision,
            known_share=known_share,
            unknown_score=unknown_score,
            references=references,
            classes=tuple(label for label in numbers if label),
        )
        return self.calibration

    @property
    def changed_classes(self) -> list[str]:
        """Labels that were added or removed since `calibrate`, which does not know of it.

        Images of an added class may be called unknown, those of a removed class known.
        """
        if self.calibration is None:
            return []
        return sorted(set(self._labels) - {""} ^ set(self.calibration.classes))

    @property
    def small_classes(self) -> list[str]:
        """Labels of at most k images, for the k of the calibrated "knn" score.

        Their k-th neighbour is of another class, so their new images may be called unknown.
        """
        calibration = self.calibration
        if calibration is None or calibration.unknown_score != "knn":
            return []
        counts = Counter(label for label in self._labels if label)
        return sorted(
            label for label, count in counts.items() if count <= calibration.num_neighbors
        )

    def _other_rows(self, name: str, embeddings: Any) -> np.ndarray:
        rows = unit_rows(embeddings, dimension=self._rows.shape[1])
        if not len(rows):
            raise UserError(f"{name} must have at least one embedding, got none")
        return rows

    def unknown_scores(self, embeddings: Any) -> np.ndarray:
        """The score that the calibration chose, [q]; higher for images of no known class.

        Raises:
          UserError: an index without calibration, or embeddings of another shape.
        """
        if self.calibration is None:
            raise UserError("the index has no calibration: call calibrate first")
        if self.calibration.unknown_score == "knn":
            return self.search(embeddings, self.calibration.num_neighbors).distances[:, -1]
        rows = unit_rows(embeddings, dimension=self._rows.shape[1])
        return self.calibration.statistics.distances(rows)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the index to a directory, replacing an index there: see `search.index_files`.

        Raises:
          UserError: the directory has other files.
        """
        contents = Contents(
            rows=self._rows,
            paths=list(self._paths),
            labels=list(self._labels),
            keys=self._keys,
            next_key=self._next_key,
            approximate=self.approximate,
            model_checksum=self.model_checksum,
            calibration=self.calibration,
        )
        write_index(Path(folder), contents, self._graph)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Index":
        """Reads an index.

        Raises:
          UserError: no index, a damaged one, or one that has changed since it was written.
        """
        contents, graph = read_index(Path(folder))
        index = cls(contents.rows[:0], [], approximate=False)
        index.approximate = contents.approximate
        index.calibration = contents.calibration
        index.model_checksum = contents.model_checksum
        index._rows = contents.rows
        index._paths = _objects(contents.paths)
        index._labels = _objects(contents.labels)
        index._keys, index._next_key = contents.keys, contents.next_key
        index._graph = graph
        return index


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, str | bytes | os.PathLike):
        raise UserError(f"{name} must be a list, got {values!r}: put it into [ ]")
    return list(values)


def _texts(name: str, values: Any, rows: np.ndarray) -> np.ndarray:
    """One text for each row, as an object array."""
    texts = _listed(name, values)
    if len(texts) != len(rows):
        raise UserError(
            f"{name} must have one entry for each of {len(rows)} embeddings, got {len(texts)}"
        )
    for text in texts:
        if not isinstance(text, str) or "\0" in text:
            raise UserError(f"{name} must be text without NUL characters, got {text!r}")
    return _objects([str(text) for text in texts])


def _objects(texts: list[str]) -> np.ndarray:
    array = np.empty(len(texts), object)
    array[:] = texts
    return array
