"""Files as a tar archive that only root can read, which is how files get into a container without a bind mount."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath


def tar(files: Mapping[str, bytes]) -> bytes:
    """An archive of `files` (relative path with forward slashes -> content) with the folders that lead to them.

    Unpacked, it sets the mode of those folders too: name files below folders of our own, or none.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700
            archive.addfile(entry)
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
