"""Turns at a database that many processes write to: one at a time, and none waits for one that has died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from collections.abc import Iterator

import sqlalchemy

_PATIENCE = 120  # seconds that a server lets one hold the lock and do nothing


class Turns:
    """Turns at one name in a database: by a file of this machine with SQLite, by a lock of the server with PostgreSQL.

    Both are free again when the process that holds them dies. With other servers nothing is locked, and two may be at it at once.

    Args:
      url: of the database, as SQLAlchemy has it.
      name: what the turns are about.

    Attributes:
      local: whether the database is a file of this machine.
      kept: whether there are turns.

    Raises:
      ValueError: a URL that SQLAlchemy does not know, or whose driver is not installed.
    """

    def __init__(self, url: str, name: str):
        try:
            self._engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
        except (sqlalchemy.exc.ArgumentError, ImportError) as error:
            raise ValueError(
                f"study.url must be a database that SQLAlchemy knows. Received {url!r}: {error}."
            ) from error
        self._file = f"{os.path.abspath(self._engine.url.database or name)}.lock"
        self._key = zlib.crc32(name.encode())
        self.local = self._engine.dialect.name == "sqlite"
        self.kept = self.local or self._engine.dialect.name == "postgresql"

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Waits for its turn and has it for the length of a `with`."""
        if self.local:
            os.makedirs(os.path.dirname(self._file), exist_ok=True)
            with open(self._file, "w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        elif self.kept:
            with self._engine.begin() as connection:
                # A machine that vanishes, of which the server would not hear for hours, does not keep the others waiting.
                connection.execute(sqlalchemy.text(f"SET LOCAL idle_in_transaction_session_timeout = '{_PATIENCE}s'"))
                connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(self._key)))
                yield
        else:
            yield
