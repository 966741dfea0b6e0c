"""The cases of tools/chaos and their results, which are kept in a file."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from runs import draw_images, start


class Chaos:
    """Cases, whose results are kept in a file."""

    def __init__(self, output: Path, only: str):
        self.output, self.only = output, only
        self.results_file = output / "results.jsonl"
        output.mkdir(parents=True, exist_ok=True)
        lines = self.results_file.read_text().splitlines() if self.results_file.exists() else []
        self.results = {row["case"]: row for row in map(json.loads, lines)}

    def case(self, kind: str, name: str, judge: Callable[[Path], tuple[str, str]]) -> None:
        """Runs a case unless it has a result."""
        case = f"{kind}: {name}"
        if case in self.results or self.only not in case:
            return
        folder = self.output / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        outcome, detail = judge(folder)
        self.results[case] = {"case": case, "kind": kind, "outcome": outcome, "detail": detail}
        with self.results_file.open("a") as file:
            file.write(json.dumps(self.results[case]) + "\n")
        print(f"{outcome:<10} {case}  {detail}", flush=True)

    def finished(self, variant: str) -> Path:
        """The undisturbed run of a variant."""
        folder = self.output / "whole" / variant.replace(" ", "_")
        if not (folder / "report.html").exists():
            shutil.rmtree(folder, ignore_errors=True)
            ended = start(variant, folder, self.images)
            if ended.code:
                sys.exit(f"{variant} fails undisturbed: {ended.error}")
        return folder

    @property
    def images(self) -> Path:
        """A folder of images of two classes."""
        root = self.output / "images"
        if not root.exists():
            draw_images(root, range(150))
        return root

    def table(self) -> str:
        """Kinds, numbers of cases, and outcomes."""
        lines = []
        for kind in dict.fromkeys(row["kind"] for row in self.results.values()):
            rows = [row for row in self.results.values() if row["kind"] == kind]
            counts = Counter(row["outcome"] for row in rows)
            outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
            lines.append(f"{kind:<14} {len(rows):>3} cases: {outcomes}")
        return "\n".join(lines)
