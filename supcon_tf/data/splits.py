"""Labelled images in an order that is a function of a seed and a position, never of a state."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from supcon_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class IndexedSplit:
    """Images that can be read by number, so that any batch can be made without the ones before.

    Args:
      labels: int64, [n] class numbers, or [n, C] of 0 and 1 where an image may have several.
      read: number (int64 scalar tensor) -> image, either uint8 [H, W, 3] or encoded (string), by
        TensorFlow's operations: a Python `if` of a tensor is not converted.
      paths: the files, in the same order, where there are any.
      reads_batches: `read` also takes numbers [B] and gives pixels uint8 [B, H, W, 3], so that
        a batch of views is made in one go.
      in_memory: `read` never waits for a disk.
    """

    labels: np.ndarray
    read: Callable[[tf.Tensor], tf.Tensor]
    paths: tuple[str, ...] = ()
    reads_batches: bool = False
    in_memory: bool = False

    @property
    def num_examples(self) -> int:
        """How many images there are."""
        return len(self.labels)

    @property
    def is_multi_label(self) -> bool:
        """Whether labels are rows of 0 and 1 [C] in the place of class numbers."""
        return self.labels.ndim == 2

    def shuffled(self, *, seed: int, start: int, stop: int) -> tf.data.Dataset:
        """Positions start ... stop - 1 of an endless sequence of (image, label)."""
        numbers = self.shuffled_numbers(seed=seed, start=start, stop=stop)
        return tf.data.Dataset.from_tensor_slices(numbers).map(
            self.example, num_parallel_calls=tf.data.AUTOTUNE
        )

    def shuffled_numbers(self, *, seed: int, start: int, stop: int) -> np.ndarray:
        """The images' numbers at these positions.

        Every stretch of n positions is a permutation of its own, drawn from the seed, so that
        starting late costs nothing.
        """
        size = self.num_examples
        first = start // size
        epochs = range(first, -(-stop // size))
        orders = [np.random.default_rng([seed, epoch]).permutation(size) for epoch in epochs]
        return np.concatenate(orders)[start - first * size : stop - first * size]

    def balanced_numbers(
        self, *, seed: int, start: int, stop: int, num_classes: int, samples_per_class: int
    ) -> np.ndarray:
        """The images' numbers in batches start ... stop - 1 of so many classes, K images of each.

        The classes come in rounds, each round all of them in an order of its own and as many whole
        batches as it gives. A class has an endless shuffled order of its own too, of which each
        round takes the next K; those that are left at the end of a shuffle are passed over, so
        that no image is twice in a batch.

        Returns:
          int64 [stop - start, num_classes * K], class by class.

        Raises:
          UserError: more classes than there are, or fewer images of one than K.
        """
        classes, counts = np.unique(self.labels, return_counts=True)
        if num_classes > len(classes):
            raise UserError(
                f"a batch of {samples_per_class} images of each of {num_classes} classes needs so "
                f"many classes, got {len(classes)}: raise samples_per_class or lower batch_size"
            )
        if counts.min() < samples_per_class:
            raise UserError(
                f"samples_per_class must be at most {counts.min()}, the images of class number "
                f"{classes[counts.argmin()]}, got {samples_per_class}"
            )
        members = [np.flatnonzero(self.labels == label) for label in classes]
        batches_per_round = len(classes) // num_classes

        @functools.lru_cache(maxsize=2 * len(classes))
        def order_of(number: int, epoch: int) -> np.ndarray:
            return np.random.default_rng([seed, 1, number, epoch]).permutation(members[number])

        def images(number: int, turn: int) -> np.ndarray:
            epoch, place = divmod(turn, int(counts[number]) // samples_per_class)
            return order_of(number, epoch)[place * samples_per_class :][:samples_per_class]

        batches = []
        for step in range(start, stop):
            turn, batch = divmod(step, batches_per_round)
            order = np.random.default_rng([seed, 0, turn]).permutation(len(classes))
            chosen = order[batch * num_classes : (batch + 1) * num_classes]
            batches.append(np.concatenate([images(number, turn) for number in chosen]))
        return np.array(batches, np.int64)

    def in_order(self) -> tf.data.Dataset:
        """Every (image, label) once."""
        numbers = tf.data.Dataset.range(self.num_examples)
        return numbers.map(self.example, num_parallel_calls=tf.data.AUTOTUNE)

    def take(self, numbers: np.ndarray) -> "IndexedSplit":
        """The split of these images only, in this order."""
        chosen = tf.constant(numbers, tf.int64)
        paths = tuple(self.paths[number] for number in numbers) if self.paths else ()
        return dataclasses.replace(
            self,
            labels=self.labels[numbers],
            read=lambda number: self.read(tf.gather(chosen, number)),
            paths=paths,
        )

    def example(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The image and the label of this number, or of all of these where `reads_batches`."""
        return self.read(number), tf.gather(tf.constant(self.labels, tf.int64), number)


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """Images that only come one after the other, as from a TFDS set too large for memory.

    Args:
      num_examples: how many images one pass gives.
      one_pass: seed, or None for the stored order -> one pass over (image, label).
    """

    num_examples: int
    one_pass: Callable[[int | None], tf.data.Dataset]

    @property
    def is_multi_label(self) -> bool:
        """As in `IndexedSplit`."""
        _, label = self.in_order().element_spec
        return label.shape.rank == 1

    def shuffled(self, *, seed: int, start: int, stop: int) -> tf.data.Dataset:
        """As `IndexedSplit.shuffled`; starting late reads over the part of the epoch before."""
        return self.batched(seed=seed, start=start, stop=stop, batch_size=1)

    def batched(self, *, seed: int, start: int, stop: int, batch_size: int) -> tf.data.Dataset:
        """The (image, label) of batches start ... stop - 1, one after the other.

        Every epoch begins with a pass of its own, epoch e with batch e n // batch_size; the less
        than batch_size images that the pass before has left by then are not used. Otherwise nearly
        all of that pass would have to be read over to reach them.
        """
        parts = []
        while start < stop:
            epoch = ((start + 1) * batch_size - 1) // self.num_examples
            begin, end = (e * self.num_examples // batch_size for e in (epoch, epoch + 1))
            end = min(end, stop)
            # The last batch of an epoch may reach beyond the pass.
            images = self._pass(seed, epoch).concatenate(self._pass(seed, epoch + 1))
            images = images.skip((start - begin) * batch_size)
            parts.append(images.take((end - start) * batch_size))
            start = end
        return functools.reduce(tf.data.Dataset.concatenate, parts)

    def _pass(self, seed: int, epoch: int) -> tf.data.Dataset:
        pass_seed = np.random.SeedSequence([seed, epoch]).generate_state(1)[0] // 2
        return self.one_pass(int(pass_seed))

    def in_order(self) -> tf.data.Dataset:
        """Every (image, label) once."""
        return self.one_pass(None)


Split = IndexedSplit | StreamedSplit


def hold_out(labels: np.ndarray, share: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the kept and the held-out examples: the same share of every class, at least one.

    Where images may have several labels, the rarest class is served first, as in Sechidis et al.
    2011, "On the Stratification of Multi-Label Data". One image of every class is kept; the share
    of a class may become larger, by what rarer ones take, or smaller, by what they have to keep.

    Args:
      labels: int64, [n] class numbers or [n, C] of 0 and 1.
      share: of each class to hold out, within (0, 1).
      seed: the same seed, the same choice.

    Returns:
      Two sorted int64 arrays that together are 0 ... n - 1.

    Raises:
      UserError: the share is not within (0, 1), or a class has fewer than two examples.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.data.splits import hold_out
      >>> kept, held_out = hold_out(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, seed=0)
      >>> len(kept), len(held_out)
      (6, 2)
    """
    if not 0 < share < 1:
        raise UserError(
            f"a share to hold out (test_share, validation_share) must be within (0, 1), got {share}"
        )
    if labels.ndim == 2:
        return _hold_out_multi_label(labels, share, seed)
    held_out = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(
                f"class number {label} has {len(members)} image: two are needed, one to train on "
                "and one to hold out"
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        order = np.random.default_rng([seed, int(label)]).permutation(len(members))
        held_out.append(members[order[:count]])
    chosen = np.sort(np.concatenate(held_out)).astype(np.int64)
    return np.setdiff1d(np.arange(len(labels), dtype=np.int64), chosen), chosen


def _hold_out_multi_label(
    labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    # Images without a label are a class like the others.
    rows = np.column_stack([labels, ~labels.any(axis=1)]).astype(bool)
    counts = rows.sum(axis=0)
    if (counts[:-1] == 1).any():
        raise UserError(
            f"class number {counts.tolist().index(1)} has 1 image: two are needed, one to train on "
            "and one to hold out"
        )
    kept, is_held_out = counts.copy(), np.zeros(len(rows), bool)
    order = np.random.default_rng(seed).permutation(len(rows))
    is_served = np.zeros(len(counts), bool)
    for label in np.argsort(counts, kind="stable"):
        wanted = min(max(1, round(share * counts[label])), counts[label] - 1)
        members = order[rows[order, label] & ~is_held_out[order]]
        # Those of rarer classes last, as these have their share already.
        last = rows[members][:, is_served].any(axis=1)
        for number in (*members[~last], *members[last]):
            if counts[label] - kept[label] >= wanted:
                break
            if (kept[rows[number]] > 1).all():
                kept -= rows[number]
                is_held_out[number] = True
        is_served[label] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
