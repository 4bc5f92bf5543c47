"""A lock on a database that many processes write to; it is released when the process that holds it dies."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator

import sqlalchemy

from tf_evonorm.mistakes import Mistake

_PATIENCE = 120  # seconds after which the server releases the lock of an idle connection


class DatabaseLock:
    """A named lock on a database.

    SQLite: a lock on a file of this machine. PostgreSQL: an advisory lock of the server. With other servers nothing is
    locked, and two processes may act at once.

    Args:
      url: URL of the database, as in SQLAlchemy.
      name: name of the lock.

    Attributes:
      local: whether the database is a file of this machine.
      exclusive: whether there is a lock at all.
      shown_url: the URL without its password.

    Raises:
      Mistake: if SQLAlchemy does not accept the URL, its driver is not installed, or the system cannot lock a file.
    """

    def __init__(self, url: str, name: str):
        try:
            self._engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
        except (sqlalchemy.exc.ArgumentError, ImportError) as error:
            raise Mistake(
                f"study.url must be a database that SQLAlchemy knows. Received {url!r}: {error}. "
                "Pass sqlite:///FILE, or postgresql+psycopg://USER@HOST/NAME."
            ) from error
        self._file = f"{os.path.abspath(self._engine.url.database or name)}.lock"
        self._key = zlib.crc32(name.encode())
        self.local = self._engine.dialect.name == "sqlite"
        self.exclusive = self.local or self._engine.dialect.name == "postgresql"
        self.shown_url = self._engine.url.render_as_string(hide_password=True)
        if self.local:
            self._flock = _flock()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Waits for the lock and holds it for the duration of a `with` block."""
        if self.local:
            os.makedirs(os.path.dirname(self._file), exist_ok=True)
            with open(self._file, "w") as file:
                self._flock(file)
                yield
        elif self.exclusive:
            with self._engine.begin() as connection:
                # A machine that vanishes, which the server may not notice for hours, must not block the others.
                connection.execute(sqlalchemy.text(f"SET LOCAL idle_in_transaction_session_timeout = '{_PATIENCE}s'"))
                connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(self._key)))
                yield
        else:
            yield


def _flock():
    """The function that waits for an exclusive lock on an open file."""
    try:
        import fcntl  # not on Windows
    except ImportError as error:
        raise Mistake(
            "a study in SQLite needs the file locks of Linux or macOS. Received a system without them. "
            "Pass study.url=postgresql+psycopg://USER@HOST/NAME."
        ) from error
    return lambda file: fcntl.flock(file, fcntl.LOCK_EX)
