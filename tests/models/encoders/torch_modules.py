"""EfficientNet-Lite0 and ResNets in PyTorch, with the names of published weights."""

LITE0_BLOCKS = [  # Expansion, kernel size, stride, filters.
    (1, 3, 1, 16),
    (6, 3, 2, 24), (6, 3, 1, 24),
    (6, 5, 2, 40), (6, 5, 1, 40),
    (6, 3, 2, 80), (6, 3, 1, 80), (6, 3, 1, 80),
    (6, 5, 1, 112), (6, 5, 1, 112), (6, 5, 1, 112),
    (6, 5, 2, 192), (6, 5, 1, 192), (6, 5, 1, 192), (6, 5, 1, 192),
    (6, 3, 1, 320),
]  # fmt: skip


def lite0_features(torch, tensors, images):
    """Features of EfficientNet-Lite0 in inference mode.

    Args:
      torch: the module.
      tensors: the state dict, torch tensors.
      images: float32 [N, H, W, 3], scaled as the network takes them.

    Returns:
      float32 [N, 1280], an array.
    """
    functional = torch.nn.functional

    def convolve(x, conv, bn, stride=1, activate=True):
        kernel = tensors[f"{conv}.weight"]
        size = kernel.shape[-1]
        # TensorFlow's "same" padding: ceil(n / stride) outputs, the odd pixel after.
        pads = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[-2:]]
        (top, bottom), (left, right) = ((pad // 2, pad - pad // 2) for pad in pads)
        x = functional.pad(x, (left, right, top, bottom))
        groups = len(kernel) if kernel.shape[1] == 1 else 1
        x = functional.conv2d(x, kernel, stride=stride, groups=groups)
        named = (f"{bn}.{part}" for part in ("running_mean", "running_var", "weight", "bias"))
        x = functional.batch_norm(x, *(tensors[name] for name in named), eps=1e-3)
        return functional.relu6(x) if activate else x

    x = convolve(torch.from_numpy(images).permute(0, 3, 1, 2), "_conv_stem", "_bn0", 2)
    for number, (expansion, _, stride, filters) in enumerate(LITE0_BLOCKS):
        name, y = f"_blocks.{number}.", x
        if expansion > 1:
            y = convolve(y, f"{name}_expand_conv", f"{name}_bn0")
        y = convolve(y, f"{name}_depthwise_conv", f"{name}_bn1", stride)
        y = convolve(y, f"{name}_project_conv", f"{name}_bn2", activate=False)
        x = x + y if stride == 1 and x.shape[1] == filters else y
    return convolve(x, "_conv_head", "_bn1").mean((2, 3)).numpy()


def torch_resnet(torch, depth, *, authors=False, width=64):
    """A ResNet with random weights and batch statistics, in evaluation mode.

    Args:
      torch: the module.
      depth: 18, 34, 50 or 101.
      authors: the SupCon authors' stem (3x3, no pool) and name of the shortcuts; else torchvision's.
      width: filters of the stem.

    Returns:
      A module from float [N, 3, H, W] to [N, D].
    """
    nn = torch.nn
    shortcut = "shortcut" if authors else "downsample"

    class Block(nn.Module):
        def __init__(self, before, filters, stride):
            super().__init__()
            convs = [(filters, 3, stride), (filters, 3, 1)]
            if depth >= 50:
                convs = [(filters, 1, 1), (filters, 3, stride), (4 * filters, 1, 1)]
            self.count, inputs = len(convs), before
            for number, (outputs, size, step) in enumerate(convs, 1):
                conv = nn.Conv2d(inputs, outputs, size, step, size // 2, bias=False)
                setattr(self, f"conv{number}", conv)
                setattr(self, f"bn{number}", nn.BatchNorm2d(outputs))
                inputs = outputs
            projection = []
            if stride > 1 or before != inputs:
                conv = nn.Conv2d(before, inputs, 1, stride, bias=False)
                projection = [conv, nn.BatchNorm2d(inputs)]
            setattr(self, shortcut, nn.Sequential(*projection))

        def forward(self, x):
            y = x
            for number in range(1, self.count + 1):
                y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
                y = torch.relu(y) if number < self.count else y
            return torch.relu(y + getattr(self, shortcut)(x))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            stem = (3, 1, 1) if authors else (7, 2, 3)
            self.conv1 = nn.Conv2d(3, width, *stem, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
            before = width
            for group, count in enumerate(blocks[depth]):
                made = []
                for number in range(count):
                    stride = 2 if group > 0 and number == 0 else 1
                    made.append(Block(before, width * 2**group, stride))
                    before = width * 2**group * (4 if depth >= 50 else 1)
                setattr(self, f"layer{group + 1}", nn.Sequential(*made))

        def forward(self, x):
            x = torch.relu(self.bn1(self.conv1(x)))
            x = x if authors else torch.nn.functional.max_pool2d(x, 3, 2, 1)
            for group in range(1, 5):
                x = getattr(self, f"layer{group}")(x)
            return x.mean((2, 3))

    torch.manual_seed(depth)
    module = ResNet().eval()
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.weight, 0.5, 1.0)
            nn.init.normal_(each.bias, std=0.1)
            nn.init.normal_(each.running_mean, std=0.1)
            nn.init.uniform_(each.running_var, 0.5, 2.0)
    return module
