"""Locks on local and remote folders, which end with their process."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator

from clouds_tf import files, gfile

_LEASE = ".lease"
_HEARTBEAT, _SILENCE = 15, 120  # seconds: a lease is renewed, and counts as abandoned


def reserved(folder: str, alone: bool = True) -> contextlib.AbstractContextManager[None]:
    """Reserves a folder for this process, until the block or the process ends.

    A local folder is released as soon as the process ends. Remote storage has no locks: there, the
    folder of a killed process is released after two minutes.

    Args:
        folder: an existing folder.
        alone: whether the lock is exclusive; if not, other processes with alone=False may hold it.

    Raises:
        ValueError: another process holds it.
    """
    return _leased(folder, alone) if gfile.is_remote(folder) else _locked(folder, alone)


def _held(folder: str) -> ValueError:
    return ValueError(
        f"{folder}: another process is working in this folder; run the command again when it has "
        "ended"
    )


@contextlib.contextmanager
def _locked(folder: str, alone: bool) -> Iterator[None]:
    import fcntl  # Unix only

    path = os.path.join(folder, "lock")
    while True:
        os.makedirs(folder, exist_ok=True)
        with open(path, "a") as file:
            try:
                fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _held(folder) from None
            # A process that has just finished may have removed the folder meanwhile.
            if os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                yield
                return


@contextlib.contextmanager
def _leased(folder: str, alone: bool) -> Iterator[None]:
    """Holds a lease: a file that is renewed while the process lives."""
    kind, over = "alone" if alone else "shared", threading.Event()
    own = os.path.join(folder, f"{kind}-{secrets.token_hex(8)}{_LEASE}")
    files.write_text(own, str(time.time()))

    def renew() -> None:
        while not over.wait(_HEARTBEAT):
            files.write_text(own, str(time.time()))

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        # Two processes that begin at the same moment may see each other and both give up.
        if any(alone or name.startswith("alone") for name in _living_leases(folder, own)):
            raise _held(folder)
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(FileNotFoundError):
            gfile.remove(own)


def _living_leases(folder: str, own: str) -> Iterator[str]:
    """Names of the valid leases of other processes; removes expired ones."""
    for name in gfile.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith(("alone-", "shared-")) and name.endswith(_LEASE) and path != own:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - float(files.read_text(path)) < _SILENCE:
                    yield name
                else:
                    gfile.remove(path)
