"""SupCon training of a ResNet in PyTorch: the peer of benchmark_step.py."""

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
    from torch.nn import functional

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
    others = ~torch.eye(len(rows), dtype=torch.bool)
    positives = (rows[:, None] == rows[None, :]) & others

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "torch bfloat16"):
            projections = run(images)
        rows = functional.normalize(projections.float(), dim=1)
        logits = rows @ rows.T / 0.1
        logits = logits.masked_fill(~others, -torch.inf)
        log_shares = (logits - torch.logsumexp(logits, 1, keepdim=True)).masked_fill(~positives, 0)
        loss = 0.1 * -(log_shares.sum(1) / positives.sum(1)).mean()
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def resnet_with_head(torch: Any, blocks: tuple[int, ...], width: float) -> Any:
    """The layers of `supcon_tf.models.resnet(stem="cifar")` and of the projection head."""
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
    layers = [nn.Conv2d(3, before, 3, 1, 1, bias=False), nn.BatchNorm2d(before), nn.ReLU()]
    for group, count in enumerate(blocks):
        filters = int(64 * 2**group * width)
        for number in range(count):
            stride = 2 if group > 0 and number == 0 else 1
            layers.append(Block(before, filters, stride, number == 0))
            before = filters
    head = [nn.Linear(before, 512), nn.ReLU(), nn.Linear(512, 128, bias=False)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
