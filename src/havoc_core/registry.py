"""A name is a file: `optimizer: muon` is `havoc_training/optimizers/muon.py`.

A shelf is a package folder. A file on it has two public names: `Options`, a frozen pydantic model of
the settings that belong to it alone, and `build`. Nothing is registered, and a file is imported only when
its name is asked for. A name with a dot (`my_lab.lion`) is a module of the user's own.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from havoc_core.errors import ConfigError


@dataclass(frozen=True)
class Shelf:
    """The things of one kind that a setting can name.

    Args:
        package: dotted name of the folder, such as "havoc_training.optimizers".
        setting: the setting that names a thing on it, for messages, such as "optimizer".
        thing: what one of them is called in a sentence, with its article: "an optimizer".
    """

    package: str
    setting: str
    thing: str

    def names(self) -> list[str]:
        """Names of the files on the shelf, sorted; imports none of them."""
        folder = importlib.import_module(self.package)
        return sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_"))

    def module(self, name: str) -> ModuleType:
        """The file called `name`, imported.

        Raises:
            ConfigError: there is no such file, or it lacks `Options` or `build`.
        """
        path = name if "." in name else f"{self.package}.{name}"
        self.check(name)
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name is None or not path.startswith(error.name):
                raise
            raise ConfigError(
                self.setting,
                f"there is no module '{path}'.",
                "Name a file on the shelf, or a module that Python can import.",
            ) from None
        for public in ("Options", "build"):
            if not hasattr(module, public):
                raise ConfigError(
                    self.setting, f"module '{path}' has no `{public}`.", "A file on a shelf has `Options` and `build`."
                )
        return module

    def check(self, name: str) -> None:
        """Refuse a name that is on no file of the shelf, without importing any; a dotted name is taken at its word.

        Raises:
            ConfigError: there is no such file; names the nearest.
        """
        if name.startswith(".") or ("." not in name and name not in self.names()):
            raise ConfigError(self.setting, f"'{name}' is not {self.thing} here.", self._nearest(name))

    def options(self, name: str, values: Mapping[str, Any]) -> BaseModel:
        """The checked `Options` of the file called `name`.

        Raises:
            ConfigError: a key is unknown or a value is out of range; names `<setting>_options.<key>`.
        """
        module = self.module(name)
        try:
            checked: BaseModel = module.Options(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            known = ", ".join(module.Options.model_fields) or "none"
            raise ConfigError(
                f"{self.setting}_options.{key}",
                f"{first['msg']} (found {first['input']!r}).",
                f"Options of '{name}': {known}.",
            ) from None
        return checked

    def _nearest(self, name: str) -> str:
        names = self.names()
        near = difflib.get_close_matches(name, names, n=1)
        return f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(names)}."
