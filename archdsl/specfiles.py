"""A spec with everything beside it that it imports, copied into a folder of a study or a supernet."""
from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from archdsl.files import write_whole

if TYPE_CHECKING:
    from archdsl.spec import Spec


def spec_files(spec: Spec) -> dict[str, str]:
    """Name below the spec's folder -> text, of the spec and everything beside it that it imports; the spec comes first."""
    name = os.path.basename(spec.module.source.path)
    texts = {name if name.endswith(".arch") else "spec.arch": spec.module.source.text}  # one from a string has no file
    folder = spec.module.folder
    for path, module in spec.module.library.read.items():
        if not module.is_library and folder is not None:
            texts[os.path.relpath(path, os.path.realpath(folder))] = module.source.text
    return texts


def digest(text: str) -> str:
    """What tells a text from others."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_files(folder: str, texts: dict[str, str]) -> None:
    """Writes a spec and its imports into a folder."""
    for name, text in texts.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_whole(path, text.encode())
