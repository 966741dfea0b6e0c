"""Test sets whose images differ from the training images: a folder, or a TFDS set."""

from supcon_tf.data import sources
from supcon_tf.data.image_files import check_readable, images_by_class
from supcon_tf.data.sources import Source
from supcon_tf.data.sources.folder import folder_split
from supcon_tf.data.sources.tfds_builder import find_builder
from supcon_tf.errors import UserError, check_number, check_text
from supcon_tf.files import expanded


def folder(root: str | None = None, *, unreadable_limit: float = 0.0) -> Source:
    """A folder of test images, root/class/1.jpg, such as root/n01443537/art_0.jpg of ImageNet-R.

    Every image is decoded once at the start.

    Args:
      root: the folder. Required; None for an error that says how to set it.
      unreadable_limit: largest share of unreadable images, which are reported and left out.

    Returns:
      A source whose only images are the test images. The names of the folders are the classes.

    Raises:
      UserError: no folder, fewer than two class folders, one without readable images, or too many
        unreadable images.
    """
    setting = "shifted.folder.root"
    if root is None:
        raise UserError(f"which folder of test images? Set {setting} = '/data/imagenet-r'")
    check_text(setting, root, example="/data/imagenet-r")
    check_number("shifted.folder.unreadable_limit", unreadable_limit, at_least=0, at_most=1)
    if not (base := expanded(root)).is_dir():
        raise UserError(f"no folder {root!r}: set {setting} to the folder of the test images")
    files = images_by_class(base)
    every = [path for paths in files.values() for path in paths]
    check = check_readable(every, unreadable_limit, setting="shifted.folder.unreadable_limit")
    kept = {
        name: [path for path in paths if path not in check.unreadable]
        for name, paths in files.items()
    }
    if empty := [name for name, paths in kept.items() if not paths]:
        raise UserError(f"the class folder {empty[0]!r} in {root!r} has no readable images")
    class_names = tuple(sorted(kept))
    split = folder_split(kept, class_names, check)
    return Source(base.resolve().name, class_names, split, split, root=str(base.resolve()))


def tfds(name: str, *, data_dir: str | None = None) -> Source:
    """The test split of a TFDS set such as `imagenet_r`, prepared beforehand and read as a stream.

    Args:
      name: name in the TFDS catalogue, with "/config" and ":version" where needed.
      data_dir: where TFDS stores its sets; None for ~/tensorflow_datasets.

    Returns:
      A source whose only images are the test images.

    Raises:
      UserError: an unknown set, or one that is not on disk or has no split "test".
    """
    builder = find_builder(name, data_dir, setting="shifted.tfds")
    if not builder.info.splits:
        raise UserError(
            f"the TFDS set {name!r} is not in {str(builder.data_dir)!r}: prepare it with tfds "
            "build, or set shifted.tfds.data_dir to where it is"
        )
    return sources.tfds(
        name, data_dir=data_dir, train_split="test", test_split="test", cache="none"
    )
