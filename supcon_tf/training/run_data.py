"""The images of a run: recorded when a stage starts, compared when it or a later stage starts."""

import dataclasses
import gzip
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from supcon_tf.data.image_files import read_image
from supcon_tf.data.path_split import names_below
from supcon_tf.data.sources import Source
from supcon_tf.data.splits import IndexedSplit, Split
from supcon_tf.errors import UserError
from supcon_tf.files import replacing
from supcon_tf.run_dir import RunDir

STAGES = ("pretrain", "linear", "finetune")
_CHANGES = ("added", "removed", "relabelled")


@dataclasses.dataclass(frozen=True)
class _Record:
    """The images of a stage.

    Args:
      source: name, root and class names of the source.
      splits: split -> its labels, or the number of images of a streamed split.
      names: split -> relative paths of its images; [] without files.
    """

    source: dict[str, Any]
    splits: dict[str, Any]
    names: dict[str, list[str]]

    @property
    def has_names(self) -> bool:
        """Whether all images are files."""
        return all(self.names.values())

    def images(self) -> dict[str, tuple[str, Any]]:
        """Name -> split and label."""
        return {
            name: (split, label)
            for split, names in self.names.items()
            for name, label in zip(names, self.splits[split], strict=True)
        }


def run_images(run_dir: RunDir, stage: str, source: Source) -> Source:
    """The images of a stage, in the splits that the run has had from its start.

    The first start of a stage records its images. When it is started again, images may not have
    been added, removed or relabelled, and every later stage tests on the images that the earlier
    one tested on. With `run_dir.keep_test_split` images may change: new ones are trained on.

    Args:
      run_dir: the run directory.
      stage: the stage's name; "robustness" takes the recorded test split and records nothing.
      source: the current images.

    Raises:
      UserError: says what has changed.
    """
    now = _described(source)
    own = _read(run_dir, stage) if _has_checkpoints(run_dir, stage) else None
    before = own or _first_of_same_source(run_dir, now)
    if before is None:
        _check_version(run_dir, source)
    elif before.has_names and now.has_names:
        source = _with_recorded_split(run_dir, stage, source, before, is_own=own is not None)
    elif (own is not None and own != now) or before.splits.get("test") != now.splits.get("test"):
        raise UserError(
            f"the images of {source.name!r} are not those that this run was started with: "
            f"{_sizes(before)} before, {_sizes(now)} now; restore them, or give another --workdir"
        )
    if stage in STAGES and run_dir.is_chief:
        validation = source.validation
        print(
            f"{stage}: {source.train.num_examples:,} training, "
            + (f"{validation.num_examples:,} validation, " if validation is not None else "")
            + f"{source.test.num_examples:,} test images of {source.num_classes or 'no'} classes"
        )
        _write(run_dir, stage, _described(source))
    return source


def _with_recorded_split(
    run_dir: RunDir, stage: str, source: Source, before: _Record, *, is_own: bool
) -> Source:
    if before.source != _described(source).source:
        raise UserError(
            f"the classes of {source.name!r} have changed since {stage} started: restore them, or "
            "give another --workdir"
        )
    old, new = before.images(), _described(source).images()
    if not is_own:
        # Another stage may train on other images, but has to test on the same ones.
        old = {name: image for name, image in old.items() if image[0] == "test"}
    is_new = {name for name in new.keys() - old.keys() if is_own or new[name][0] == "test"}
    known = before.images()
    changes = {
        "added": sorted(is_new - known.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "relabelled": sorted(n for n in old.keys() & new.keys() if old[n][1] != new[n][1]),
    }
    found = _listed(changes)
    is_evaluation = stage not in STAGES and not changes["removed"] and not changes["relabelled"]
    if found and not run_dir.keep_test_split and not is_evaluation:
        raise UserError(
            f"the images of {source.name!r} have changed since this run started: {found}; restore "
            "them, give another --workdir, or add --keep_test_split to test on the same images and "
            "train on new ones"
        )
    if found:
        print(f"{stage}: {found}; the test split stays")
    return _resplit(source, {name: split for name, (split, _) in old.items()})


def recorded_images(run_dir: RunDir, stage: str, source: Source) -> Source:
    """The images of a stage, in the splits that it recorded; changes since then are no error.

    Args:
      run_dir: the run directory.
      stage: the stage's name.
      source: the current images. Those without a record are training or validation images.

    Raises:
      UserError: no training or test image is left.
    """
    record = _read(run_dir, stage)
    if record is None or not record.has_names or not _described(source).has_names:
        return source
    return _resplit(source, {name: split for name, (split, _) in record.images().items()})


def spoiled_images(run_dir: RunDir, stage: str, *, since: float) -> list[str]:
    """The files of a stage's images that are gone, or that were changed and cannot be read.

    Args:
      run_dir: the run directory, with the record of the stage.
      stage: the stage's name.
      since: time of the first change, in seconds since 1970.
    """
    record = _read(run_dir, stage)
    found: list[str] = []
    if record is None:
        return found
    for name in record.images():
        path = os.path.join(record.source["root"], name)
        try:
            if os.stat(path).st_mtime >= since:
                read_image(path)
        except (OSError, UserError):
            found.append(path)
    return found


def _listed(changes: Mapping[str, list[str]]) -> str:
    return ", ".join(
        f"{len(names)} {change} (first {names[0]!r})" for change, names in changes.items() if names
    )


def _resplit(source: Source, wanted: Mapping[str, str]) -> Source:
    """Moves images to the wanted splits; other test images are moved to the training images."""
    splits = _splits(source)
    names = [name for names in _described(source).names.values() for name in names]
    current = [split for split in splits for _ in range(splits[split].num_examples)]
    chosen = np.array(
        [
            wanted.get(name, "train" if split == "test" else split)
            for name, split in zip(names, current, strict=True)
        ]
    )
    if (chosen == current).all():
        return source
    whole = _joined([split for split in splits.values() if isinstance(split, IndexedSplit)])
    for split in ("train", "test"):
        if split not in chosen:
            raise UserError(f"no {split} image of {source.name!r} is left: give another --workdir")

    def taken(split: str) -> IndexedSplit:
        return whole.take(np.flatnonzero(chosen == split))

    validation = taken("validation") if "validation" in chosen else None
    return dataclasses.replace(
        source, train=taken("train"), test=taken("test"), validation=validation
    )


def _joined(splits: list[IndexedSplit]) -> IndexedSplit:
    """One split of files after the other."""
    first, *others = splits
    if not others:
        return first
    second, size = _joined(others), first.num_examples

    def read(number: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            number < size, lambda: first.read(number), lambda: second.read(number - size)
        )

    return IndexedSplit(
        np.concatenate([first.labels, second.labels]), read, (*first.paths, *second.paths)
    )


def _splits(source: Source) -> dict[str, Split]:
    found = {"train": source.train, "test": source.test, "validation": source.validation}
    return {name: split for name, split in found.items() if split is not None}


def _described(source: Source) -> _Record:
    splits: dict[str, Any] = {}
    names: dict[str, list[str]] = {}
    for name, split in _splits(source).items():
        if isinstance(split, IndexedSplit):
            splits[name] = split.labels.tolist()
            names[name] = names_below(source.root, split.paths)
        else:
            splits[name], names[name] = split.num_examples, []
    described = {
        "name": source.name,
        "root": source.root,
        "class_names": list(source.class_names),
    }
    return _Record(described, splits, names)


def _sizes(record: _Record) -> str:
    counts = (
        f"{split} {labels if isinstance(labels, int) else len(labels)}"
        for split, labels in record.splits.items()
    )
    return ", ".join(counts)


def _has_checkpoints(run_dir: RunDir, stage: str) -> bool:
    return (run_dir.checkpoints(stage) / "last").is_dir()


def _first_of_same_source(run_dir: RunDir, now: _Record) -> _Record | None:
    records = (_read(run_dir, stage) for stage in STAGES if _has_checkpoints(run_dir, stage))
    return next((r for r in records if r is not None and r.source == now.source), None)


def _check_version(run_dir: RunDir, source: Source) -> None:
    """Rejects a run of a version that recorded no images and split folders in another way."""
    has_started = any(_has_checkpoints(run_dir, stage) for stage in STAGES)
    if source.is_split_by_path and has_started and not run_dir.data.is_dir():
        raise UserError(
            f"{str(run_dir.root)!r} was started by an older version, which chose the test split of "
            f"{source.name!r} in another way: give another --workdir"
        )


def _file(run_dir: RunDir, stage: str) -> Path:
    return run_dir.data / f"{stage}.json.gz"


def _read(run_dir: RunDir, stage: str) -> _Record | None:
    file = _file(run_dir, stage)
    if not file.exists():
        return None
    try:
        record = _Record(**json.loads(gzip.decompress(file.read_bytes())))
        if record.has_names:
            record.images()  # An error if the parts do not belong together.
        return record
    except (
        *(AttributeError, EOFError, KeyError, OSError, TypeError, ValueError),
        zlib.error,
    ) as error:
        raise UserError(
            f"{str(file)!r} is damaged ({error}): if the images of {stage} have not changed since "
            "it started, remove it"
        ) from None


def _write(run_dir: RunDir, stage: str, record: _Record) -> None:
    run_dir.data.mkdir(exist_ok=True)
    content = gzip.compress(json.dumps(dataclasses.asdict(record)).encode(), 3, mtime=0)
    with replacing(_file(run_dir, stage)) as partial:
        partial.write_bytes(content)
