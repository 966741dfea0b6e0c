"""Measures the audit: how many planted label errors and copies it finds.

Writes the digits of scikit-learn, or a copy of a folder of class folders, with a share of wrong
labels and some altered copies, trains an encoder on them, audits the run, and counts what was
found. The same command continues a killed training.

examples:
  python tools/measure_audit.py --workdir=runs/planted
  python tools/measure_audit.py --workdir=runs/planted_photos --images=/data/photos --copies=100 \\
      --gin_file=folder/finetune.gin --gin_param='experiment.run.stages = ("linear",)' \\
      --gin_param='linear.run.encoder = @models.pretrained()'
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from supcon_tf import audit, cli, train
from supcon_tf.errors import UserError, check_number

# Name of a copy -> the image and the quality of its JPEG file.
COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "recompressed": (lambda image: image, 30),
    "resized": (lambda image: image.resize((image.width // 2, image.height // 2)), 90),
    "mirrored": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 90),
    "cropped": (lambda image: image.crop(_middle(image, 0.85)), 90),
}
# Label, name, content.
File = tuple[str, str, bytes]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    options = cli.new_flags()
    flags.DEFINE_string("workdir", None, "DIR: for images/ and run/", flag_values=options)
    flags.DEFINE_string(
        "images", None, "DIR: class folders of images; the digits by default", flag_values=options
    )
    flags.DEFINE_float("share", 0.05, "of wrong labels, 0.05 by default", flag_values=options)
    flags.DEFINE_integer(
        "copies", 0, "altered copies, none by default", lower_bound=0, flag_values=options
    )
    flags.DEFINE_integer("seed", 0, "of both, 0 by default", lower_bound=0, flag_values=options)
    cli.define_gin_flags(options)
    cli.parse(options, argv, __doc__)
    if not options.workdir:
        raise UserError("--workdir is needed: a new directory, or one to continue")
    check_number("--share", options.share, above=0, below=1)
    images, run = Path(options.workdir) / "images", Path(options.workdir) / "run"
    if not images.exists():
        files = digits() if options.images is None else photos(Path(options.images))
        partial = images.with_name("images.partial")
        plant(partial, files, share=options.share, copies=options.copies, seed=options.seed)
        partial.rename(images)
    train.main(
        [
            *(f"--gin_file={file}" for file in options.gin_file or ["digits/supcon.gin"]),
            "--gin_param=SOURCE = @sources.folder()",
            f"--gin_param=sources.folder.root = {str(images)!r}",
            '--gin_param=experiment.run.stages = ("pretrain",)',
            *(f"--gin_param={binding}" for binding in options.gin_param),
            f"--workdir={run}",
        ]
    )
    audit.main([f"--workdir={run}", "--trust"])
    planted = [path.name for path in images.rglob("*") if "~" in path.name]
    report_label_errors(_rows(run / "audit" / "label_errors.csv"), planted)
    if options.copies:
        report_copies(_rows(run / "audit" / "duplicates.csv"), planted)


def plant(folder: Path, files: Sequence[File], *, share: float, copies: int, seed: int) -> None:
    """Writes images into class folders, some of them with a wrong label, and copies of others.

    An image with a wrong label has the name wrong~TRUE_LABEL~NAME, a copy copy~KIND~NAME.

    Raises:
      UserError: more copies than images with a right label.
    """
    classes = sorted({label for label, _, _ in files})
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(files)).tolist()
    num_wrong = round(share * len(files))
    if num_wrong + copies > len(files):
        raise UserError(
            f"--copies must be at most {len(files) - num_wrong}, the images with a right label, "
            f"got {copies}"
        )
    wrong, copied = set(order[:num_wrong]), order[num_wrong : num_wrong + copies]
    for number, (label, name, content) in enumerate(files):
        if number in wrong:
            others = [each for each in classes if each != label]
            label, name = others[rng.integers(len(others))], f"wrong~{label}~{name}"
        _write(folder / label / name, content)
    for place, number in enumerate(copied):
        kind = list(COPIES)[place % len(COPIES)]
        label, name, content = files[number]
        alter, quality = COPIES[kind]
        buffer = io.BytesIO()
        alter(Image.open(io.BytesIO(content)).convert("RGB")).save(buffer, "JPEG", quality=quality)
        _write(folder / label / f"copy~{kind}~{name}", buffer.getvalue())


def report_label_errors(found: Sequence[dict[str, str]], planted: Sequence[str]) -> None:
    """Prints precision and recall of the label errors, and how many suggestions are right."""
    wrong = sum(name.startswith("wrong~") for name in planted)
    names = [Path(row["path"]).name.split("~") for row in found]
    right = sum(name[0] == "wrong" for name in names)
    named = sum(
        name[:2] == ["wrong", row["suggestion"]] for name, row in zip(names, found, strict=True)
    )
    print(
        f"label errors: {wrong} planted, {len(found)} found, precision "
        f"{right / max(len(found), 1):.3f}, recall {right / wrong:.3f}; the suggestion is the true "
        f"label of {named}"
    )


def report_copies(found: Sequence[dict[str, str]], planted: Sequence[str]) -> None:
    """Prints how many copies of each kind were found with their originals."""
    pairs = {frozenset(Path(row[f"path_{n}"]).name for n in (1, 2)) for row in found}
    ours = 0
    for kind in COPIES:
        copies = [name for name in planted if name.startswith(f"copy~{kind}~")]
        hits = sum({name, name.split("~", 2)[2]} in pairs for name in copies)
        ours += hits
        print(f"copies, {kind}: {hits} of {len(copies)} found")
    print(f"other pairs: {len(pairs) - ours}")


def digits() -> list[File]:
    """The digits of scikit-learn as PNG files."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    found = []
    for number, (pixels, label) in enumerate(zip(loaded.images, loaded.target, strict=True)):
        buffer = io.BytesIO()
        Image.fromarray((pixels * 15).astype(np.uint8)).convert("RGB").save(buffer, "PNG")
        found.append((str(label), f"{number:04d}.png", buffer.getvalue()))
    return found


def photos(folder: Path) -> list[File]:
    """The files in class folders."""
    files = sorted(file for file in folder.glob("*/*") if file.is_file())
    if not files:
        raise UserError(f"no class folders with images in {str(folder)!r}")
    return [(file.parent.name, file.name, file.read_bytes()) for file in files]


def _middle(image: Image.Image, share: float) -> tuple[int, int, int, int]:
    """The box in the middle of an image with this share of its sides."""
    left, top = (round(side * (1 - share) / 2) for side in image.size)
    return left, top, image.width - left, image.height - top


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


if __name__ == "__main__":
    cli.run(main)
