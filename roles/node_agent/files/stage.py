"""Gathers farmnode without compiled files: ``stage.py SOURCE FOLDER`` prints the path of the copy.

The copy is in a folder named after its contents, so that playbooks that run at one time never see half of it.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path


def stage(source: Path, folder: Path) -> Path:
    """Copy the package ``source`` below ``folder``, unless the same is there; returns the copy's path."""
    files = sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    contents = hashlib.sha256()
    for path in files:
        data = path.read_bytes()
        contents.update(f"{path.relative_to(source).as_posix()} {len(data)}\n".encode() + data)
    staged = folder / contents.hexdigest()[:16]
    if not staged.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            copy = Path(part) / "whole"
            shutil.copytree(source, copy / source.name, ignore=shutil.ignore_patterns("__pycache__"))
            try:
                copy.rename(staged)
            except OSError:
                if not staged.exists():  # unless another playbook was faster
                    raise
    return staged / source.name


if __name__ == "__main__":
    print(stage(Path(sys.argv[1]).resolve(), Path(sys.argv[2])))
