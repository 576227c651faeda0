"""Finds drivers by file name: `drivers/devices/bthome_button.py` holds, as `DRIVER`, the model `bthome-button`.

Asking for one model imports that one file: a gateway with a meter does not load the cryptography of a button. Files
that start with an underscore are templates and no models.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

from drivers.kit.shapes import Advertises, Answers, Driver, Streams

DEVICES = "drivers.devices"


class UnknownModel(KeyError):
    """No driver has this model. `close` names the models that are spelled nearly so, best first, three at most."""

    def __init__(self, model: str, close: tuple[str, ...] = ()) -> None:
        super().__init__(model)
        self.model = model
        self.close = close

    def __str__(self) -> str:
        """Say what is unknown and what may have been meant."""
        hint = f", did you mean {' or '.join(self.close)}?" if self.close else ""
        return f"no driver for model {self.model!r}{hint}"


def models(package: str = DEVICES) -> tuple[str, ...]:
    """All models, sorted. Imports none of them."""
    return tuple(sorted(name.replace("_", "-") for name in _files(package) if not name.startswith("_")))


def templates(package: str = DEVICES) -> tuple[str, ...]:
    """The module names of the templates, sorted, with their underscore."""
    return tuple(sorted(name for name in _files(package) if name.startswith("_")))


def driver(model: str, package: str = DEVICES) -> Driver:
    """Return the driver of a model. Raises UnknownModel; TypeError where the file does not hold its driver."""
    if model not in (known := models(package)):
        from difflib import get_close_matches

        raise UnknownModel(model, tuple(get_close_matches(model, known, n=3)))
    found = load(model.replace("-", "_"), package)
    if found.model != model:
        raise TypeError(
            f"{package}.{model.replace('-', '_')}: DRIVER.model is {found.model!r}, the file says {model!r}"
        )
    return found


def load(module: str, package: str = DEVICES) -> Driver:
    """Import one device file, or template, and return its DRIVER. Raises TypeError where it has none."""
    found = getattr(import_module(f"{package}.{module}"), "DRIVER", None)
    if not isinstance(found, Advertises | Streams | Answers):
        raise TypeError(f"{package}.{module}: DRIVER must be one of Advertises, Streams, Answers")
    return found


def _files(package: str) -> list[str]:
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return [info.name for info in iter_modules(folders) if not info.ispkg] if folders else []
