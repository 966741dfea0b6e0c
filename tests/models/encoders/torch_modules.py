"""EfficientNet-Lite0 in PyTorch, with the names of the published weights."""

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
