"""The lock on a study's database, where the system has none."""

import sys

import pytest

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.study.database_lock import DatabaseLock


def test_without_file_locks_sqlite_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with pytest.raises(
        Mistake, match=r"needs the file locks of Linux or macOS.* Pass study\.url=postgresql"
    ) as refused:
        DatabaseLock(f"sqlite:///{tmp_path}/study.db", "study")
    assert "\n" not in str(refused.value)
    pytest.importorskip("psycopg")
    assert DatabaseLock("postgresql+psycopg://me@host/study", "study").exclusive
