"""Recognises the layout of a folder of images: its splits, class folders and annotation files."""

import csv
import dataclasses
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from supcon_tf.data.image_files import LeftOut, check_different, images_below, images_by_class, scan
from supcon_tf.errors import UserError

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation"),
}
# The images within ImageNet as Kaggle distributes it.
_KAGGLE_IMAGENET = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
_UNLABELLED = ", or set sources.folder.labelled = False for images without labels"
# One class name a line, in the order of the sorted image names.
_SYNSETS = "imagenet_2012_validation_synset_labels.txt"


@dataclasses.dataclass
class Layout:
    """The image files of each split.

    Args:
      class_names: sorted; () for images without labels.
      files: split ("train", "test", "validation") -> class name -> paths. Without labels all paths
        are under the class name "".
    """

    class_names: tuple[str, ...]
    files: dict[str, dict[str, list[str]]]


def find_layout(root: Path, *, labelled: bool | None, for_training: bool = True) -> Layout:
    """Finds the splits of a folder and the classes of their images.

    A split has a folder per class, the images in it or in its subfolder "images"; or it is flat,
    with an annotation file as Tiny ImageNet and ImageNet have for their validation images. Test
    images without labels are left out.

    Args:
      root: the folder.
      labelled: whether the images have labels; None to see from the folder.
      for_training: whether a model trains on them, which takes two classes or, without labels, two
        images. Else one is enough. Defaults to True.

    Raises:
      UserError: a layout that is not recognised, or splits of different classes.
    """
    base = next((root / part for part in _KAGGLE_IMAGENET if (root / part).is_dir()), root)
    folders = _split_folders(base)
    if labelled is None:
        labelled = not _is_flat(folders["train"]) or _find_annotations(folders["train"]) is not None
        if not labelled:
            tqdm.write(f"no class folders in {str(folders['train'])!r}: images without labels")
    if not labelled:
        left_out = LeftOut()
        files = {split: {"": list(images_below(str(f), left_out))} for split, f in folders.items()}
        left_out.report()
        for split, folder in folders.items():
            if len(files[split][""]) < (2 if for_training else 1):
                raise UserError(
                    f"at least {'two images are' if for_training else 'one image is'} needed in "
                    f"{str(folder)!r}"
                )
        return Layout((), files)
    files = {}
    for split, folder in folders.items():
        annotations = _find_annotations(folder) if _is_flat(folder) else None
        if annotations is not None:
            files[split] = _files_by_annotation(folder, annotations)
        elif split == "train" or not _is_flat(folder):
            files[split] = images_by_class(
                folder, hint=_UNLABELLED * for_training, min_classes=2 if for_training else 1
            )
        elif folder.name.lower() in SPLIT_FOLDERS["test"]:
            tqdm.write(f"left out {str(folder)!r}, as its images have no labels")
        else:
            raise UserError(
                f"the images in {str(folder)!r} have no class folders: move them to folders, or "
                f"add {str(folder / 'val_annotations.txt')!r} with lines of FILE CLASS"
            )
    for split, of_split in files.items():
        odd = sorted(of_split.keys() ^ files["train"].keys())
        if odd:
            raise UserError(
                f"{folders['train'].name} and {folders[split].name} must have the same classes in "
                f"{str(root)!r}, only one of them has {odd[0]!r}"
            )
    if "test" not in files and "validation" in files:
        files["test"] = files.pop("validation")
    return Layout(tuple(sorted(files["train"])), files)


def _split_folders(base: Path) -> dict[str, Path]:
    """The folder of each split; the whole folder is "train" where it is not split."""
    _, paths = scan(str(base), LeftOut())
    found: dict[str, Path] = {}
    others: list[str] = []
    for folder in map(Path, paths):
        split = next((s for s, n in SPLIT_FOLDERS.items() if folder.name.lower() in n), None)
        if split is None:
            others.append(folder.name)
        elif split in found:
            raise UserError(
                f"{str(base)!r} has two {split} folders, {found[split].name!r} and "
                f"{folder.name!r}: leave one"
            )
        else:
            found[split] = folder
    # "train" may also be a class, beside "bus" and "car".
    if "train" not in found or (others and _is_flat(found["train"])):
        if found and not others:
            names = " and ".join(sorted(folder.name for folder in found.values()))
            raise UserError(f"{str(base)!r} has {names}, but no folder 'train': add or rename one")
        return {"train": base}
    check_different([str(folder) for folder in found.values()])
    if others:
        tqdm.write(f"left out {len(others)} folders beside the splits, first {others[0]!r}")
    return found


def _image_folder(folder: Path) -> Path:
    """The folder itself, or its only subfolder "images"."""
    images, subfolders = scan(str(folder), LeftOut())
    return Path(subfolders[0]) if not images and _only_images(subfolders) else folder


def _only_images(subfolders: list[str]) -> bool:
    return [os.path.basename(path).lower() for path in subfolders] == ["images"]


def _is_flat(folder: Path) -> bool:
    """Whether there are images but no class folders."""
    images, subfolders = scan(str(_image_folder(folder)), LeftOut())
    return bool(images) and not subfolders


def _find_annotations(folder: Path) -> dict[str, str] | list[str] | None:
    """Image name without suffix -> class, or the classes of the sorted images; None without."""
    split = folder.name
    is_validation = split.lower() in SPLIT_FOLDERS["validation"]
    # Kaggle's files lie above ILSVRC/Data/CLS-LOC/val.
    parents = folder.parents[:4] if folder.parent.name == "CLS-LOC" else [folder.parent]
    for place in (folder, *parents):
        if (file := place / f"{split}_annotations.txt").is_file():
            rows = [line.split("\t" if "\t" in line else None) for line in _lines(file)]
            if any(len(row) < 2 for row in rows):
                raise UserError(f"{str(file)!r} must have lines of FILE CLASS")
            return _by_stem(file, [(Path(row[0]).stem, row[1]) for row in rows])
        if (file := place / f"LOC_{split}_solution.csv").is_file():
            table = [row for row in csv.reader(_lines(file)) if len(row) == 2 and row[1].split()]
            return _by_stem(file, [(name, boxes.split()[0]) for name, boxes in table[1:]])
        if is_validation and (file := place / _SYNSETS).is_file():
            return _lines(file)
        if (boxes := place / "Annotations" / "CLS-LOC" / split).is_dir():
            return {file.stem: _class_in_xml(file) for file in sorted(boxes.glob("*.xml"))}
    return None


def _by_stem(file: Path, rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Image name without suffix -> class, of the lines of an annotation file."""
    annotations: dict[str, str] = {}
    for stem, label in rows:
        if stem in annotations:
            raise UserError(f"{str(file)!r} has two lines of {stem!r}: remove one")
        annotations[stem] = label
    return annotations


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{str(file)!r} is not UTF-8 ({error}): save it as UTF-8") from None
    return [line.strip() for line in lines if line.strip()]


def _class_in_xml(file: Path) -> str:
    found = re.search(r"<name>\s*(\S+?)\s*</name>", "\n".join(_lines(file)))
    if found is None:
        raise UserError(f"{str(file)!r} has no <name>: it must be an annotation of ImageNet")
    return found.group(1)


def _files_by_annotation(
    folder: Path, annotations: dict[str, str] | list[str]
) -> dict[str, list[str]]:
    left_out = LeftOut()
    images, _ = scan(str(_image_folder(folder)), left_out)
    stems = [Path(path).stem for path in images]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise UserError(
            f"{str(folder)!r} has two images {twice[0]!r} of different suffixes, which its "
            "annotations cannot tell apart: rename one"
        )
    if isinstance(annotations, list):
        if len(annotations) != len(images):
            raise UserError(
                f"{_SYNSETS} has {len(annotations)} lines and {str(folder)!r} {len(images)} images"
            )
        annotations = dict(zip(stems, annotations, strict=True))
    if absent := sorted(annotations.keys() - stems):
        tqdm.write(
            f"{len(absent)} of {len(annotations)} annotations of {str(folder)!r} are of images "
            f"that are not there, first {absent[0]!r}"
        )
    files: dict[str, list[str]] = {}
    for path, stem in zip(images, stems, strict=True):
        if stem not in annotations:
            raise UserError(f"the annotations of {str(folder)!r} do not name {path!r}")
        files.setdefault(annotations[stem], []).append(path)
    return files
