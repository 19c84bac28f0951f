"""The App: on this machine only, on a free port, with our plugin."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ...annotate.console import note
from ...annotate.errors import IrstkitError
from ..service import free_port, load

PLUGIN = "irstkit"


def install_plugin() -> Path:
    """Link our plugin into FiftyOne's plugins folder, beside those the user has."""
    fo = load()
    folder = Path(fo.config.plugins_dir)
    link, target = folder / PLUGIN, Path(__file__).resolve().parent.parent / "plugin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and link.resolve() != target:
            link.unlink()
        if not link.exists():
            link.symlink_to(target, target_is_directory=True)
    except OSError as error:
        raise IrstkitError(f"cannot link the plugin: {error.strerror or error}", path=link) from error
    return link


def launch(dataset: Any, port: int | None = None, *, wait: bool = True) -> Any:
    """Serve the App for ``dataset`` on 127.0.0.1; with ``wait`` until it is stopped by Ctrl+C.

    Raises
    ------
    IrstkitError
        When somebody else listens on ``port``, or the App does not come up.
    """
    import socket

    fo = load()
    install_plugin()
    if port is None:
        port = free_port()
    else:
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise IrstkitError(
                f"port {port} is taken: {error.strerror or error}", hint="choose another --port"
            ) from error
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
    session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=port)
    note(f"http://127.0.0.1:{port}/datasets/{dataset.name}  (stop with Ctrl+C)")
    if wait:
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            note("stopped; the data set stays in FiftyOne")
    return session
