from argparse import Namespace

import numpy as np
import pytest

from supcon_tf import models
from supcon_tf.errors import UserError
from supcon_tf.models.encoders.torch_file import read_torch_file
from supcon_tf.models.encoders.torch_resnet import _cifar_constants
from tests.models.encoders.checkpoints import save_checkpoint
from tests.models.encoders.torch_modules import torch_resnet

IMAGENET = np.float32([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
CIFAR10 = np.float32([[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]])
CIFAR100 = np.float32([[0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]])


def tensors_of(depth=18, *, stem="cifar", shortcut="downsample", rng=None):
    """A state dict of random numbers, without PyTorch."""
    rng = rng or np.random.default_rng(0)
    tensors = {}

    def add(name, outputs, inputs, size):
        bound = (inputs * size * size) ** -0.5
        shape = (outputs, inputs, size, size)
        tensors[f"{name}.weight"] = rng.uniform(-bound, bound, shape).astype("float32")
        prefix, _, last = name.rpartition(".")
        last = "1" if last == "0" else last.replace("conv", "bn")
        for part in ("weight", "bias", "running_mean", "running_var"):
            value = rng.uniform(0.5, 1.0, outputs).astype("float32")
            tensors[f"{prefix}{'.' if prefix else ''}{last}.{part}"] = value

    add("conv1", 64, 3, 3 if stem == "cifar" else 7)
    before = 64
    counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth]
    for group, count in enumerate(counts):
        filters = 64 * 2**group
        for block in range(count):
            name = f"layer{group + 1}.{block}"
            add(f"{name}.conv1", filters, before, 3)
            add(f"{name}.conv2", filters, filters, 3)
            if before != filters:
                add(f"{name}.{shortcut}.0", filters, before, 1)
            before = filters
    return tensors


@pytest.mark.parametrize(
    ("depth", "authors", "size"),
    [(18, False, 64), (34, False, 75), (50, False, 64), (18, True, 32), (50, True, 33)],
)
def test_outputs_equal_pytorch(tmp_path, depth, authors, size):
    torch = pytest.importorskip("torch")
    module = torch_resnet(torch, depth, authors=authors)
    state = module.state_dict()
    content = {**state, "fc.weight": torch.zeros(10, 8), "fc.bias": torch.zeros(10)}
    if authors:
        named = {f"encoder.module.{name}": each for name, each in state.items()}
        head = {"head.0.weight": torch.zeros(8, 8), "head.0.bias": torch.zeros(8)}
        content = {"opt": Namespace(dataset="cifar100"), "model": {**named, **head}, "epoch": 1}
    torch.save(content, tmp_path / "a.pth")
    encoder = models.pretrained(f"torch:{tmp_path / 'a.pth'}")

    pixels = np.random.default_rng(0).uniform(size=(2, size, size, 3)).astype("float32")
    mean, deviation = CIFAR100 if authors else IMAGENET
    scaled = torch.from_numpy((pixels - mean) / deviation).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = module(scaled).numpy()
    np.testing.assert_allclose(encoder(pixels * 2 - 1), expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_pytorch_itself_are_read(tmp_path, legacy):
    torch = pytest.importorskip("torch")
    half = torch.arange(6.0).reshape(2, 3).bfloat16()
    content = {
        "weight": torch.nn.Parameter(torch.ones(3, 2).T),
        "half": half[:, 1:],
        "n": torch.tensor(3),
    }
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    found = read_torch_file(tmp_path / "a.pth")
    np.testing.assert_array_equal(found["weight"], np.ones((2, 3)))
    np.testing.assert_array_equal(found["half"].astype("float32"), [[1, 2], [4, 5]])
    assert found["n"] == 3


@pytest.mark.parametrize(
    ("stem", "options", "constants"),
    [("imagenet", {}, IMAGENET), ("cifar", {"opt": Namespace(dataset="cifar100")}, CIFAR100)],
)
def test_images_are_scaled_as_in_training(tmp_path, stem, options, constants):
    model = {f"encoder.{name}": value for name, value in tensors_of(stem=stem).items()}
    save_checkpoint(tmp_path / "a.pth", {"model": model, **options})
    scale = models.pretrained(f"torch:{tmp_path / 'a.pth'}").get_layer("input_scaling")
    mean, deviation = constants
    scaled = scale(np.stack([mean, mean + deviation])[:, None, None] * 2 - 1)
    np.testing.assert_allclose(scaled[:, 0, 0], [[0, 0, 0], [1, 1, 1]], atol=1e-5)


@pytest.mark.parametrize(
    ("content", "constants"),
    [
        ({}, CIFAR10),
        ({"opt": Namespace(dataset="cifar100", mean=None, std=None)}, CIFAR100),
        (
            {"opt": Namespace(dataset="path", mean="(0.1, 0.2, 0.3)", std="(.4,.5,.6)")},
            [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]],
        ),
        ({"opt": {"dataset": "cifar100"}}, CIFAR100),
        ({"opt": {"mean": "(5e-1, 0.5, 0.5)", "std": [0.25] * 3}}, [[0.5] * 3, [0.25] * 3]),
    ],
)
def test_constants_are_those_of_the_saved_options(content, constants):
    np.testing.assert_allclose(_cifar_constants(content, "'a.pth'"), constants, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dataset": "stl10"}, "'a.pth' was trained on 'stl10' with an unknown mean and std"),
        ({"dataset": "path", "mean": "(0.5, 0.5, 0.5)"}, "which must both be three numbers"),
        ({"mean": [0.5] * 3, "std": [0.0] * 3}, "which must both be three numbers"),
        ({"dataset": "cifar10", "mean": "(0.5, 0.5)", "std": "x"}, "must both be three numbers"),
    ],
)
def test_unknown_constants_are_rejected(options, says):
    with pytest.raises(UserError, match=says):
        _cifar_constants({"opt": Namespace(**options)}, "'a.pth'")


def test_every_kernel_is_in_its_place(tmp_path):
    tensors = tensors_of(34, stem="imagenet")
    save_checkpoint(tmp_path / "a.pth", {"state_dict": tensors})
    encoder = models.pretrained(f"torch:{tmp_path / 'a.pth'}").get_layer("resnet34")
    for layer, name in [
        ("stem_conv", "conv1"),
        ("group1_block3_conv2", "layer1.2.conv2"),
        ("group4_block1_shortcut_conv", "layer4.0.downsample.0"),
    ]:
        kernel = encoder.get_layer(layer).kernel.numpy()
        np.testing.assert_array_equal(kernel, tensors[f"{name}.weight"].transpose(2, 3, 1, 0))
    bn = encoder.get_layer("group2_block1_bn1")
    for part in ("weight", "bias", "running_mean", "running_var"):
        keras_name = {"weight": "gamma", "bias": "beta"}.get(
            part, part.replace("running", "moving").replace("var", "variance")
        )
        np.testing.assert_array_equal(getattr(bn, keras_name), tensors[f"layer2.0.bn1.{part}"])


def without(tensors, *parts):
    return {name: each for name, each in tensors.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda all_: without(all_, "layer3.0.conv2.weight"),
            "has no 'layer3.0.conv2.weight', which resnet18 needs",
        ),
        (
            lambda all_: without(all_, "layer3.1."),
            r"has \(2, 2, 1, 2\) basic blocks per group: give a ResNet of depth 18, 34",
        ),
        (lambda all_: without(all_, "conv1"), "has no ResNet"),
        (
            lambda all_: {
                f"encoder_{part}.{name}": each for part in "qk" for name, each in all_.items()
            },
            r"has 2 ResNets: encoder_q., encoder_k.",
        ),
        (
            lambda all_: {
                **all_,
                "layer1.0.se.weight": np.ones(3, "float32"),
                "layer1.0.se.bias": np.ones(3, "float32"),
            },
            "has 'layer1.0.se.bias' and 1 others, which resnet18 does not have",
        ),
        (
            lambda all_: {**all_, "layer2.0.conv1.weight": np.ones((96, 64, 3, 3), "float32")},
            r"is \(96, 64, 3, 3\), and resnet18 needs \(128, 64, 3, 3\)",
        ),
        (lambda all_: {**all_, "conv1.weight": np.ones(3, "float32")}, "per group: give a ResNet"),
    ],
)
def test_other_networks_are_rejected(tmp_path, change, message):
    save_checkpoint(tmp_path / "a.pth", change(tensors_of()))
    with pytest.raises(UserError, match=message):
        models.pretrained(f"torch:{tmp_path / 'a.pth'}")
