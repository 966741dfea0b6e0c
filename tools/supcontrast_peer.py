"""The PyTorch side of compare_supcontrast.py, in its own process.

It reads batches from stdin, trains, then reads images and writes their features to a file. Its last
line on stdout is a JSON list with the loss of every step and the statistics of the first ones. With
--initial it writes its initial weights and stops.
"""

import argparse
import json
import sys

import numpy as np
import torch
import torch_supcon
from supcontrast_recipe import statistics


def read(dtype: str, *shape: int) -> np.ndarray:
    """Reads an array from stdin."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = sys.stdin.buffer.read(size)
    if len(data) < size:
        raise EOFError("the other process ended")
    return np.frombuffer(bytearray(data), dtype).reshape(shape)


def to_images(array: np.ndarray) -> torch.Tensor:
    """[B, H, W, C] -> [B, C, H, W] in channels_last memory."""
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def norm_of(parameters: list[torch.nn.Parameter]) -> float:
    """The global norm of the gradients."""
    return float(sum(parameter.grad.square().sum() for parameter in parameters) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("seed", "batch", "epochs", "steps", "record", "images", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--width", type=float, required=True)
    parser.add_argument("--stem", required=True)
    parser.add_argument("--rates", type=json.loads, required=True)
    parser.add_argument("--weight_decay", type=float, required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--initial", help="file of the initial weights")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model = torch_supcon.resnet_with_head(
        torch,
        torch_supcon.BLOCKS[18],
        args.width,
        stem=args.stem,
        hidden=int(512 * args.width),
        as_published=True,
    ).to(memory_format=torch.channels_last)
    if args.initial:
        np.savez(
            args.initial, **{name: value.numpy() for name, value in model.state_dict().items()}
        )
        print(json.dumps([]))
        return
    encoder, head = model
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.0, momentum=0.9, weight_decay=args.weight_decay
    )
    log: list[dict[str, float]] = []
    for epoch in range(args.epochs):
        for group in optimizer.param_groups:
            group["lr"] = args.rates[epoch]
        for _ in range(args.steps):
            labels = read("int64", args.batch)
            views = read("float32", args.batch * 2, 32, 32, 3)
            projections = model(to_images(views))
            rows = torch.from_numpy(labels.repeat(2))
            # 0.1 / 0.07: the authors' temperature over their base temperature.
            loss = torch_supcon.supcon_loss(projections, rows) * 0.1 / 0.07
            optimizer.zero_grad()
            loss.backward()
            row = {"loss": 0.07 * loss.item()}
            if len(log) < args.record:
                unit = torch.nn.functional.normalize(projections.detach(), dim=1)
                row |= statistics(unit.numpy())
                row["gradient of the head"] = norm_of(list(head.parameters()))
                row["gradient of the encoder"] = norm_of(list(encoder.parameters()))
            log.append(row)
            optimizer.step()
    encoder.eval()
    features = []
    with torch.no_grad():
        for start in range(0, args.images, 250):
            count = min(250, args.images - start)
            features.append(encoder(to_images(read("float32", count, 32, 32, 3))).numpy())
    np.save(args.features, np.concatenate(features))
    print(json.dumps(log))


if __name__ == "__main__":
    main()
