"""Looks up known vulnerabilities of the installed packages with pip-audit; `make check` runs it.

It only reports: a vulnerability that is published today must not stop a check of today's change.
Without a network, or with an index that has no such data, it says how many packages it could not
look up.
"""

import json
import subprocess
import sys

SECONDS = 120


def main() -> None:
    """Prints one line for each vulnerability, and one for the whole."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--format=json"]
    try:
        done = subprocess.run(
            [*command, "--progress-spinner=off", "--timeout=5"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        print("vulnerabilities: not looked up, as the index cannot be reached")
        return
    for package in packages:
        for found in package.get("vulns", ()):
            name, version = package["name"], package["version"]
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            print(f"vulnerability: {name} {version} has {found['id']}, fixed in {fixed}")
    skipped = sum("skip_reason" in package for package in packages)
    known = len(packages) - skipped
    print(f"vulnerabilities: {known} packages looked up, {skipped} are not in the index")


if __name__ == "__main__":
    main()
