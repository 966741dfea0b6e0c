"""Writes PyTorch checkpoints of both formats without PyTorch."""

import pickle
import struct
import zipfile

import numpy as np


def save_checkpoint(path, content, *, legacy=False):
    """Writes what `torch.save` does.

    Args:
      path: the file.
      content: a dict of arrays (float32 or int64), dicts, bytes (a pickle without its first two
        and its last byte) and objects of Python.
      legacy: the format of PyTorch before 1.6.
    """
    storages = []
    pickled = b"\x80\x02" + _encoded(content, storages) + b"."
    if legacy:
        with open(path, "wb") as file:
            for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
                pickle.dump(value, file, protocol=2)
            file.write(pickled)
            pickle.dump([str(number) for number in range(len(storages))], file, protocol=2)
            for numbers in storages:
                file.write(struct.pack("<q", numbers.size) + numbers.tobytes())
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for number, numbers in enumerate(storages):
            archive.writestr(f"archive/data/{number}", numbers.tobytes())


def pickled_call(function, *arguments):
    """Bytes for `save_checkpoint`: a call of a function, a pair (module, name)."""
    return b"c%s\n%s\n" % tuple(part.encode() for part in function) + _plain(arguments) + b"R"


def _encoded(value, storages):
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        items = b"".join(_plain(key) + _encoded(item, storages) for key, item in value.items())
        return b"ccollections\nOrderedDict\n)R(" + items + b"u"
    if isinstance(value, np.ndarray):
        storages.append(np.asarray(value, order="C"))
        kind = {"float32": b"Float", "int64": b"Long"}[value.dtype.name]
        strides = tuple(step // value.itemsize for step in storages[-1].strides)
        storage = b"(" + _plain("storage") + b"ctorch\n%sStorage\n" % kind
        storage += b"".join(map(_plain, (str(len(storages) - 1), "cpu", value.size)))
        tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ"
        tensor += b"".join(map(_plain, (0, value.shape, strides, False)))
        return tensor + b"ccollections\nOrderedDict\n)RtR"
    return _plain(value)


def _plain(value):
    return pickle.dumps(value, protocol=2)[2:-1]
