"""A PostgreSQL server for one test."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

import pytest


@contextlib.contextmanager
def server():
    """Yields the URL of a server of our own on loopback; it refuses to run as root."""
    programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or shutil.which("setpriv") is None:
        pytest.skip("needs Debian's package postgresql")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="postgresql"))
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    if drop:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program, *options):
        command = [*drop, programs[-1] / program, "-D", folder / "data", *options]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    try:
        run("initdb", "--auth=trust", "--username=study")
        run("pg_ctl", "start", "-w", "-l", folder / "log", "-o", f"-p {port} -k {folder} -h 127.0.0.1")
        try:
            yield f"postgresql+psycopg://study@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")
    finally:
        shutil.rmtree(folder)
