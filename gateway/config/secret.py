"""References to secrets. A secret itself never stands in the configuration, the environment, a log or a message.

Limits: a secret file is at most 4 KiB and not empty. Files named by "file:" must not be open to group or other; those
of a credentials directory are guarded by systemd, which shows its access list as group bits, so their mode says
nothing.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import SecretError

MAX_SECRET_BYTES: Final = 4096
DIRECTORY_VARIABLE: Final = "CREDENTIALS_DIRECTORY"

_CREDENTIAL = re.compile(r"credential:([A-Za-z0-9_][A-Za-z0-9_.-]{0,254})")
_FILE = re.compile(r"file:(/[^\x00-\x1f]{1,1023})")
_OPEN_TO_OTHERS: Final = 0o066


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret lies: "credential:NAME" or "file:/absolute/path". Anything else raises SecretError."""

    reference: str

    def __post_init__(self) -> None:
        """Refuse what is no reference; it may be a secret put there by mistake, so the error does not carry it."""
        if not (_CREDENTIAL.fullmatch(self.reference) or _FILE.fullmatch(self.reference)):
            raise SecretError("GW-CFG-20")

    @property
    def path(self) -> Path:
        """The file that holds the secret. Raises SecretError when the credentials directory is not set."""
        kind, _, name = self.reference.partition(":")
        if kind == "file":
            return Path(name)
        directory = os.environ.get(DIRECTORY_VARIABLE, "")
        if not directory:
            raise SecretError("GW-CFG-23", self.reference, reference=self.reference)
        return Path(directory) / name

    @property
    def too_open(self) -> bool:
        """Can group or other read or write the file? Never true of a systemd credential or an absent file."""
        if self.reference.startswith("credential:"):
            return False
        try:
            return bool(self.path.stat().st_mode & _OPEN_TO_OTHERS)
        except OSError:
            return False

    def read(self) -> bytes:
        """Return the secret as it lies in its file, read anew each time so that a renewed one is picked up."""
        path = self.path
        try:
            # A FIFO or a device must be refused before it is opened: opening one may wait for ever.
            if not stat.S_ISREG(path.stat().st_mode):
                raise self._refused(path, "@hint.not-a-file")
            with path.open("rb") as file:
                content = file.read(MAX_SECRET_BYTES + 1)
        except FileNotFoundError:
            raise self._refused(path, "@hint.missing") from None
        except PermissionError:
            raise self._refused(path, "@hint.no-permission") from None
        except OSError as error:
            raise self._refused(path, error.strerror or type(error).__name__) from None
        if len(content) > MAX_SECRET_BYTES:
            raise self._refused(path, "@hint.too-large")
        if not content.strip():
            raise self._refused(path, "@hint.empty")
        return content

    def text(self) -> str:
        """Return the secret as text, without the line end that editors leave. Raises SecretError."""
        try:
            return self.read().decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise self._refused(self.path, "@hint.not-utf-8") from None

    def _refused(self, path: Path, reason: str) -> SecretError:
        return SecretError("GW-CFG-21", self.reference, reference=self.reference, path=str(path), reason=reason)
