"""References to secrets. A secret itself never stands in the configuration, the environment, a log or a message.

Limits: a secret file is at most 4 KiB and not empty. Files named by "file:" must not be open to group or other; those
of a credentials directory are guarded by systemd, which shows its access list as group bits, so their mode says
nothing. Outside systemd a credential is read where systemd would load it from, by those who may.
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
# The unit loads each file of this directory; systemd names what comes from a directory by an id, "_" and the file's name
# (systemd.exec, LoadCredential=).
STORE: Final = Path("/etc/daycare-gateway/credentials")
PREFIX: Final = "daycare_"

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
        """The file that holds the secret: for a credential where systemd has put it, else where it loads it from."""
        kind, _, name = self.reference.partition(":")
        if kind == "file":
            return Path(name)
        directory = os.environ.get(DIRECTORY_VARIABLE, "")
        if not directory:
            return self.home
        # One that somebody loads by its own name goes before the one of the directory.
        own, listed = Path(directory) / name, Path(directory) / f"{PREFIX}{name}"
        return listed if _is_there(listed) and not _is_there(own) else own

    @property
    def home(self) -> Path:
        """Where people put the secret and change it: not where systemd hands it over."""
        kind, _, name = self.reference.partition(":")
        return STORE / name if kind == "credential" else Path(name)

    @property
    def too_open(self) -> bool:
        """Can group or other read or write the file? Never true of what systemd hands over or of an absent file."""
        if self.reference.startswith("credential:") and not self._from_store:
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
                raise self._refused("@hint.not-a-file")
            with path.open("rb") as file:
                content = file.read(MAX_SECRET_BYTES + 1)
        except FileNotFoundError:
            if self._from_store and not _is_there(STORE):
                raise self._out_of_reach() from None
            raise self._refused("@hint.missing") from None
        except PermissionError:
            if self._from_store:
                raise self._out_of_reach() from None
            raise self._refused("@hint.no-permission") from None
        except OSError as error:
            raise self._refused(error.strerror or type(error).__name__) from None
        if len(content) > MAX_SECRET_BYTES:
            raise self._refused("@hint.too-large")
        if not content.strip():
            raise self._refused("@hint.empty")
        return content

    def text(self) -> str:
        """Return the secret as text, without the line end that editors leave. Raises SecretError."""
        try:
            return self.read().decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise self._refused("@hint.not-utf-8") from None

    @property
    def _from_store(self) -> bool:
        return self.reference.startswith("credential:") and not os.environ.get(DIRECTORY_VARIABLE)

    def _out_of_reach(self) -> SecretError:
        return SecretError("GW-CFG-23", self.reference, reference=self.reference, path=str(self.home))

    def _refused(self, reason: str) -> SecretError:
        owner = "root" if self.reference.startswith("credential:") else "daycare-gateway"
        facts = {"path": str(self.home), "owner": owner, "reason": reason}
        return SecretError("GW-CFG-21", self.reference, reference=self.reference, **facts)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
