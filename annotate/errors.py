"""The one error that users see: what is wrong, where, and what to do about it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType


class IrstkitError(Exception):
    """A problem with the user's input, told in one line.

    Parameters
    ----------
    message
        What is wrong, with the expected and the actual value.
    path
        The file or folder it is about.
    where
        The place inside the file: a JSON path (``annotations[3].bbox``) or ``line 7``.
    hint
        What to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.message, self.path, self.where, self.hint = message, path, where, hint
        parts = [str(path)] if path is not None else []
        if where:
            parts.append(where)
        text = ": ".join([*parts, message])
        super().__init__(f"{text} ({hint})" if hint else text)

    def __reduce__(self):  # keyword arguments survive the way back from a worker process
        return _rebuild, (type(self), self.message, self.path, self.where, self.hint)


def _rebuild(cls, message, path, where, hint):
    return cls(message, path=path, where=where, hint=hint)


class MissingExtra(IrstkitError):
    """A command needs a package of an extra that is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import ``module`` or say which extra brings it.

    Raises
    ------
    MissingExtra
        When the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"this needs the package {module.split('.')[0]!r}, which cannot be imported: {error}",
            hint=f"pip install 'irstkit[{extra}]'",
        ) from error
