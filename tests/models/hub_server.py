"""A local replacement of the Hub's HTTP interface for downloading and publishing models.

What huggingface_hub asks for: information on a model, its tree, files (those of LFS by a redirect
to another host), creating repositories and branches, and commits with uploads by LFS.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from tests.models.hub_handler import Contents, Handler, Server


class Hub(Contents):
    """A stand-in of the hub that listens on a port of this machine."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.hub = self
        self.port = self.server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Whoever asks from now on is refused the connection."""
        if self.port:
            self.port = 0
            self.server.shutdown()
            self.server.server_close()
            for connection in self.server.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Hub]:
    """A stand-in that huggingface_hub talks to in this process, with an empty cache at home.

    Uploads go by LFS: of Xet there is no stand-in. Pauses before another try take no time.
    """
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    for name, value in {
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("time.sleep", lambda _: None)
    # Reading all certificates takes longer than a test, and plain HTTP has no use for them.
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    try:
        yield hub
    finally:
        close_session()
        hub.stop()
        thread.join()
