"""Finds a prepared TensorFlow Datasets set, in the version that is on disk."""

import re
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseError

from supcon_tf.errors import UserError, check_text
from supcon_tf.files import expanded


def find_builder(name: str, data_dir: str | None, *, setting: str) -> Any:
    """The TFDS builder of a set, which may not be prepared yet.

    Args:
      name: name of the set, with "/config" and ":version" where needed.
      data_dir: where TFDS stores its sets; None for its default.
      setting: gin name of the source, such as "sources.tfds".

    Raises:
      UserError: an unknown set or configuration, or a version that cannot be read. If another
        version is on disk, the message names it.
    """
    import tensorflow_datasets
    from tensorflow_datasets.core import visibility

    check_text(f"{setting}.name", name, example="cifar10")
    if data_dir is not None:
        check_text(f"{setting}.data_dir", data_dir, example="~/tensorflow_datasets")
    if name.startswith("huggingface:"):
        raise UserError(f"{setting}.name must be a set of TFDS, got {name!r}")
    public = [visibility.DatasetType.TFDS_PUBLIC]
    try:
        # The code of community sets would be fetched and run.
        with visibility.set_availables_tmp(public):
            return tensorflow_datasets.builder(name, data_dir=data_dir)
    except (
        *(tensorflow_datasets.core.DatasetNotFoundError, ValueError, AssertionError),
        *(ParseError, UnicodeDecodeError),
    ) as error:
        set_name, _, version = name.partition(":")
        folder = Path(data_dir or tensorflow_datasets.core.constants.DATA_DIR) / set_name
        if found := other_versions(expanded(folder), set_name, setting=setting, asked=version):
            raise UserError(f"no TFDS set named {name!r} in this version; {found}") from None
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"no TFDS set named {name!r}: {reason}; see tensorflow_datasets.list_builders() for "
            "the names"
        ) from None


def other_versions(folder: Path, name: str, *, setting: str, asked: str = "") -> str:
    """Says which versions of a set are on disk; "" for none.

    Args:
      folder: folder of the set, with a folder per version.
      name: name of the set, without a version.
      setting: gin name of the source.
      asked: the version that is left out.
    """
    if not folder.is_dir():
        return ""
    versions = sorted(
        (entry.name for entry in folder.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", entry.name)),
        key=lambda version: [int(part) for part in version.split(".")],
    )
    found = [v for v in versions if v != asked and (folder / v / "dataset_info.json").is_file()]
    if not found:
        return ""
    return (
        f"found version {', '.join(found)} in {str(folder)!r}: set {setting}.name = "
        f"'{name}:{found[-1]}'"
    )
