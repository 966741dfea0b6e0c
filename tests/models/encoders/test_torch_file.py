import json
import struct
from argparse import Namespace

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.models.encoders.torch_file import read_torch_file
from tests.models.encoders.checkpoints import pickled_call, save_checkpoint

KERNEL = np.arange(24, dtype="float32").reshape(2, 3, 2, 2)
CONTENT = {"model": {"conv.weight": KERNEL, "bn.num_batches_tracked": np.array(7)}, "epoch": 3}


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_and_numbers_of_a_checkpoint_are_read(tmp_path, legacy):
    save_checkpoint(tmp_path / "a.pth", CONTENT, legacy=legacy)
    content = read_torch_file(tmp_path / "a.pth")
    assert content["epoch"] == 3
    np.testing.assert_array_equal(content["model"]["conv.weight"], KERNEL)
    assert content["model"]["bn.num_batches_tracked"] == 7


def test_options_of_a_training_script_are_attributes(tmp_path):
    save_checkpoint(tmp_path / "a.pth", {"opt": Namespace(dataset="cifar10"), **CONTENT})
    assert read_torch_file(tmp_path / "a.pth")["opt"].dataset == "cifar10"


def test_scalars_of_numpy_are_skipped(tmp_path):
    save_checkpoint(tmp_path / "a.pth", {"best": np.float64(0.5), **CONTENT})
    np.testing.assert_array_equal(
        read_torch_file(tmp_path / "a.pth")["model"]["conv.weight"], KERNEL
    )


def save_safetensors(path, header, numbers):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)


def test_safetensors_are_read(tmp_path):
    half = KERNEL.astype("float16")
    entry = {"dtype": "F16", "shape": [2, 3, 2, 2], "data_offsets": [0, half.nbytes]}
    header = {"__metadata__": {"format": "pt"}, "conv.weight": entry}
    save_safetensors(tmp_path / "a.safetensors", header, half.tobytes())
    content = read_torch_file(tmp_path / "a.safetensors")
    assert content.keys() == {"conv.weight"}
    np.testing.assert_array_equal(content["conv.weight"], half)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [("os", "system"), ("builtins", "exec"), ("torch", "load")])
def test_code_in_a_checkpoint_is_rejected_and_not_run(tmp_path, function, legacy):
    target = tmp_path / "written"
    call = pickled_call(function, f"touch {target}")
    save_checkpoint(tmp_path / "a.pth", {"model": call}, legacy=legacy)
    with pytest.raises(UserError, match=rf"a.pth' would call {'.'.join(function)}, and only tens"):
        read_torch_file(tmp_path / "a.pth")
    assert not target.exists()


@pytest.mark.parametrize("name", ["_rebuild_tensor_v2", "_rebuild_parameter"])
def test_a_checkpoint_cannot_change_the_functions_that_read_it(tmp_path, name):
    # BUILD sets attributes of the object before it.
    build = b"ctorch._utils\n%s\n}U\x01aK\x01sb" % name.encode()
    save_checkpoint(tmp_path / "a.pth", {"model": build})
    with pytest.raises(UserError, match="is damaged, or no PyTorch checkpoint"):
        read_torch_file(tmp_path / "a.pth")


def tensor(offset, shape, strides):
    """A tensor over a storage of one number."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01tQ"
    numbers = [b"J%s" % struct.pack("<i", number) for number in (offset, *shape, *strides)]
    sizes, steps = b"(%st" % b"".join(numbers[1:3]), b"(%st" % b"".join(numbers[3:])
    return b"ctorch._utils\n_rebuild_tensor_v2\n(%s%s%s%stR" % (storage, numbers[0], sizes, steps)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (2, 1), (1, 1)),
        (-1, (1, 1), (1, 1)),
        (0, (2, 1), (-1, 1)),
        (0, (99, 99), (0, 0)),
        (1, (1, 1), (1, 1)),
    ],
)
def test_tensor_outside_of_its_storage_is_rejected(tmp_path, offset, shape, strides):
    content = {"a": np.ones(1, "float32"), "b": tensor(offset, shape, strides)}
    save_checkpoint(tmp_path / "a.pth", content)
    with pytest.raises(UserError, match="is damaged, or no PyTorch checkpoint"):
        read_torch_file(tmp_path / "a.pth")
    save_checkpoint(tmp_path / "a.pth", {**content, "b": tensor(0, (1, 1), (1, 1))})
    assert read_torch_file(tmp_path / "a.pth")["b"] == [[1]]


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_checkpoint_is_rejected(tmp_path, legacy):
    save_checkpoint(tmp_path / "a.pth", CONTENT, legacy=legacy)
    whole = (tmp_path / "a.pth").read_bytes()
    for length in (0, 1, 16, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.pth").write_bytes(whole[:length])
        with pytest.raises(UserError, match="is damaged, or no PyTorch checkpoint"):
            read_torch_file(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": {}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F9", "shape": [1], "data_offsets": [0, 4]}},
    ],
)
def test_damaged_safetensors_are_rejected(tmp_path, header):
    save_safetensors(tmp_path / "a.safetensors", header, bytes(4))
    with pytest.raises(UserError, match="is damaged, or no PyTorch checkpoint"):
        read_torch_file(tmp_path / "a.safetensors")


def test_files_that_hold_no_state_dict_are_rejected(tmp_path):
    with pytest.raises(UserError, match=r"no file .*gone.pth': name a PyTorch checkpoint"):
        read_torch_file(tmp_path / "gone.pth")
    (tmp_path / "a.pth").write_text("weights")
    with pytest.raises(UserError, match="is damaged, or no PyTorch checkpoint"):
        read_torch_file(tmp_path / "a.pth")
    save_checkpoint(tmp_path / "a.pth", KERNEL)
    with pytest.raises(UserError, match="holds no state dict"):
        read_torch_file(tmp_path / "a.pth")
