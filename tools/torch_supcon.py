"""SupCon in PyTorch, the peer of benchmark_step.py and compare_supcontrast.py: loss and ResNet."""

from collections.abc import Callable
from typing import Any

import numpy as np

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def training_step(
    name: str, views: np.ndarray, labels: np.ndarray, depth: int, width: float
) -> Callable[[], float]:
    """A step of forward, SupCon (Eq. 2 of arXiv 2004.11362), backward and SGD with momentum.

    Args:
      name: "torch" (NCHW), "torch last" (channels_last), "torch compiled" or "torch bfloat16".
      views: float32 [B, 2, 32, 32, 3].
      labels: int [B].
      depth: depth of the ResNet, 18 or 34.
      width: width of the ResNet.

    Returns:
      A function that runs one step and returns the loss.
    """
    import torch

    torch.manual_seed(0)
    is_last = name != "torch"
    model = resnet_with_head(torch, BLOCKS[depth], width)
    # [B, V, H, W, C] -> [B * V, C, H, W]
    images = torch.from_numpy(views.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).copy())
    if is_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    run = torch.compile(model) if name == "torch compiled" else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rows = torch.from_numpy(np.repeat(labels, 2))

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "torch bfloat16"):
            projections = run(images)
        loss = 0.1 * supcon_loss(projections.float(), rows)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def supcon_loss(projections: Any, labels: Any, temperature: float = 0.1) -> Any:
    """Eq. 2 of arXiv 2004.11362, the mean over anchors, without the factor temperature.

    Args:
      projections: float32 [N, D], of any length.
      labels: int [N]; each row needs another one of its class.
      temperature: of the softmax.
    """
    import torch

    rows = torch.nn.functional.normalize(projections, dim=1)
    others = ~torch.eye(len(rows), dtype=torch.bool)
    positives = (labels[:, None] == labels[None, :]) & others
    logits = (rows @ rows.T / temperature).masked_fill(~others, -torch.inf)
    log_shares = (logits - torch.logsumexp(logits, 1, keepdim=True)).masked_fill(~positives, 0)
    return -(log_shares.sum(1) / positives.sum(1)).mean()


def resnet_with_head(
    torch: Any,
    blocks: tuple[int, ...],
    width: float,
    *,
    stem: str = "cifar",
    hidden: int = 512,
    as_published: bool = False,
) -> Any:
    """The layers of `supcon_tf.models.resnet` and of the projection head.

    Args:
      torch: the module.
      blocks: basic blocks per group.
      width: width of the ResNet.
      stem: "cifar" or "imagenet", whose max pool pads both sides, as torchvision's does.
      hidden: units of the head's hidden layer.
      as_published: the SupCon authors' model: shortcuts without a convolution where the shapes
        agree, He et al.'s initial weights, and a bias in the head's last layer. Otherwise as the
        released TensorFlow code, with PyTorch's initial weights.
    """
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self, before: int, filters: int, stride: int, project: bool):
            super().__init__()
            self.conv1 = nn.Conv2d(before, filters, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(filters)
            self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(filters)
            self.shortcut = nn.Identity()
            if project:
                conv = nn.Conv2d(before, filters, 1, stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(filters))

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    before = int(64 * width)
    shape = (3, 1, 1) if stem == "cifar" else (7, 2, 3)
    layers = [nn.Conv2d(3, before, *shape, bias=False), nn.BatchNorm2d(before), nn.ReLU()]
    layers.append(nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, 2, 1))
    for group, count in enumerate(blocks):
        filters = int(64 * 2**group * width)
        for number in range(count):
            stride = 2 if group > 0 and number == 0 else 1
            is_same_shape = stride == 1 and before == filters
            project = number == 0 and not (as_published and is_same_shape)
            layers.append(Block(before, filters, stride, project))
            before = filters
    encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    last = nn.Linear(hidden, 128, bias=as_published)
    head = nn.Sequential(nn.Linear(before, hidden), nn.ReLU(), last)
    if as_published:
        for module in encoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(encoder, head)
