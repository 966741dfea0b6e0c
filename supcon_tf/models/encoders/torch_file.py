"""Reads PyTorch checkpoints without PyTorch, and without running what is pickled in them."""

import json
import math
import pickle
import struct
import zipfile
from io import BufferedReader
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from supcon_tf.errors import UserError

_DTYPES = {
    "Double": np.dtype("<f8"),
    "Float": np.dtype("<f4"),
    "Half": np.dtype("<f2"),
    "BFloat16": np.dtype(ml_dtypes.bfloat16),
    "Long": np.dtype("<i8"),
    "Int": np.dtype("<i4"),
    "Short": np.dtype("<i2"),
    "Char": np.dtype("i1"),
    "Byte": np.dtype("u1"),
    "Bool": np.dtype("?"),
}
_SAFETENSORS = {
    **{"F64": "Double", "F32": "Float", "F16": "Half", "BF16": "BFloat16"},
    **{"I64": "Long", "I32": "Int", "I16": "Short", "I8": "Char", "U8": "Byte", "BOOL": "Bool"},
}
_MAGIC = 0x1950A86A20F9469CFC6C  # First object of a file of PyTorch before 1.6.
_DAMAGED = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, LookupError),
    *(AttributeError, TypeError, ValueError, OverflowError, MemoryError, RecursionError),
    NotImplementedError,
)


def read_torch_file(path: Path) -> dict[str, Any]:
    """The content of a PyTorch checkpoint (either format) or a safetensors file.

    Pickled objects are rebuilt by functions of this module only. A file that calls for anything
    but tensors and containers is rejected before it can.

    Args:
      path: a file of `torch.save` or of safetensors.

    Returns:
      The pickled dict, with tensors as NumPy arrays. Its other objects, such as the options that
      training scripts save, become `Attributes`.

    Raises:
      UserError: no such file, damaged, no checkpoint, or with objects that are not data.
    """
    if not path.is_file():
        raise UserError(f"no file {str(path)!r}: name a PyTorch checkpoint (.pth, .safetensors)")
    try:
        if path.suffix == ".safetensors":
            content = _read_safetensors(path)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = _read_zip(archive)
        else:
            with path.open("rb") as file:
                content = _read_legacy(file, path.stat().st_size)
    except UserError as error:
        raise UserError(f"{str(path)!r} {error}") from None
    except _DAMAGED as error:
        raise UserError(
            f"{str(path)!r} is damaged, or no PyTorch checkpoint ({type(error).__name__})"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} holds no state dict: save model.state_dict()")
    return content


class Attributes:
    """An object of a checkpoint that is no tensor: its attributes, if it is a Namespace."""

    # These are also called on the class, if a file tries to change it.
    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any = None) -> None:
        if isinstance(self, Attributes) and isinstance(state, dict):
            self.__dict__.update(state)


class _Dict(dict):
    """An ordered dict; PyTorch adds attributes to it, which are dropped."""

    def __setstate__(self, state: Any = None) -> None:
        pass


class _Function:
    """A function that a file may call but not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Any):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function has no state")


def _rebuild_tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
    if 0 in shape:
        return np.empty(shape, storage.dtype)
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    is_inside = last < len(storage) and math.prod(shape) <= len(storage)
    if not is_inside or min((offset, *shape, *strides)) < 0:
        raise pickle.UnpicklingError("a tensor outside of its storage")
    in_bytes = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, in_bytes, writeable=False)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(lambda tensor, *_: tensor),
    ("torch", "Size"): _Function(tuple),
    ("argparse", "Namespace"): Attributes,
    # NumPy's scalars, such as a best accuracy.
    ("numpy.core.multiarray", "scalar"): Attributes,
    ("numpy._core.multiarray", "scalar"): Attributes,
    ("numpy", "dtype"): Attributes,
    ("_codecs", "encode"): Attributes,
    **{("torch", f"{name}Storage"): name for name in _DTYPES},
}


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors and containers; `storage` gives the numbers: key, dtype, length -> [n]."""

    def __init__(self, file: Any, storage: Any = None):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UserError(
                f"would call {module}.{name}, and only tensors are read: save model.state_dict() "
                "alone"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, identifier: Any) -> np.ndarray:
        _, kind, key, _, length, *_ = identifier
        return self._storage(key, _DTYPES[kind], length)


def _read_zip(archive: zipfile.ZipFile) -> Any:
    (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    if (
        f"{folder}byteorder" in archive.namelist()
        and archive.read(f"{folder}byteorder") != b"little"
    ):
        raise UserError("is of a big-endian machine: save it again on another one")
    known: dict[str, np.ndarray] = {}

    def storage(key: str, dtype: np.dtype, length: int) -> np.ndarray:
        if key not in known:
            entry = archive.getinfo(f"{folder}data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise pickle.UnpicklingError("PyTorch does not compress")
            known[key] = np.frombuffer(archive.read(entry), dtype)
        return known[key][:length]

    with archive.open(pickled) as file:
        return _Unpickler(file, storage).load()


def _read_legacy(file: BufferedReader, size: int) -> Any:
    """A file of PyTorch before 1.6: pickles, then for each storage its length and its numbers."""
    if _Unpickler(file).load() != _MAGIC:
        raise pickle.UnpicklingError("another file")
    _Unpickler(file).load()  # Version of the format.
    if not _Unpickler(file).load()["little_endian"]:
        raise UserError("is of a big-endian machine: save it again on another one")
    known: dict[str, np.ndarray] = {}
    left = size

    def storage(key: str, dtype: np.dtype, length: int) -> np.ndarray:
        nonlocal left
        if key not in known:
            left -= length * dtype.itemsize
            if left < 0:
                raise EOFError
            known[key] = np.empty(length, dtype)
        return known[key]

    content = _Unpickler(file, storage).load()
    for key in _Unpickler(file).load():
        (length,) = struct.unpack("<q", file.read(8))
        numbers = known[key]
        if length != len(numbers) or file.readinto(numbers.view(np.uint8).data) != numbers.nbytes:
            raise EOFError
    return content


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    bytes_ = np.memmap(path, np.uint8, "r")
    (length,) = struct.unpack("<Q", bytes_[:8].tobytes())
    header = json.loads(bytes_[8 : 8 + length].tobytes())
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        dtype = _DTYPES[_SAFETENSORS[entry["dtype"]]]
        tensors[name] = bytes_[begin:end].view(dtype).reshape(entry["shape"])
    return tensors
