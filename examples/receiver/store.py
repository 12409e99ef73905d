"""What is on the disk: SQLite databases, one for each shard and one for the merger.

SQLite in WAL mode is a write-ahead file with checksums, transactions and recovery after a crash. One commit
with `synchronous=FULL` makes many frames durable at once, and the key (round, client) allows one frame for
each client.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 10.0  # seconds, for a predecessor that is about to end

SHARD = """
CREATE TABLE IF NOT EXISTS rounds (number INTEGER PRIMARY KEY, sealed INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS frames (
    round INTEGER NOT NULL, client TEXT NOT NULL, weight INTEGER NOT NULL, digest BLOB NOT NULL,
    frame BLOB NOT NULL, PRIMARY KEY (round, client)
);
"""

MERGER = """
CREATE TABLE IF NOT EXISTS secret (value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (
    number INTEGER PRIMARY KEY, deadline REAL NOT NULL, model BLOB, downlink BLOB,
    frames INTEGER, weight INTEGER
);
"""


def connected(path: Path, tables: str) -> sqlite3.Connection:
    """A connection that no other process shares; it may be used from one thread at a time.

    Raises
    ------
    SystemExit
        Another process has the database open, or the file is no database.
    """
    db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        for setting in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            db.execute(f"PRAGMA {setting}")
        db.execute("BEGIN IMMEDIATE")  # takes the lock, which is kept until the process ends
        db.execute("COMMIT")
        db.executescript(tables)
    except sqlite3.DatabaseError as error:
        db.close()
        raise SystemExit(f"{path}: expected a database that no other process uses, got: {error}") from None
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All changes of the block, durable when it ends, or none of them."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


class FrameStore:
    """The frames that a shard has acknowledged, and the round that they are for.

    Parameters
    ----------
    path : Path
    keep : int
        The number of rounds whose frames are kept, the present one included; at least 2, since a client may
        repeat a frame whose acknowledgement was lost at the end of its round.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self._db, self._keep = connected(path, SHARD), max(keep, 2)

    def round(self) -> tuple[bytes, bool] | None:
        """The present round as `Round.to_bytes`, and whether it is sealed; None before the first."""
        row = self._db.execute("SELECT data, sealed FROM rounds ORDER BY number DESC LIMIT 1").fetchone()
        return row and (row[0], bool(row[1]))

    def open(self, number: int, data: bytes) -> None:
        """Begin a round, and forget the frames of those that are too old."""
        with transaction(self._db):
            # It may be there already: a call may have stopped between this and its answer.
            self._db.execute("INSERT OR REPLACE INTO rounds VALUES (?, 0, ?)", (number, data))
            self._db.execute("DELETE FROM rounds WHERE number < ?", (number,))
            self._db.execute("DELETE FROM frames WHERE round <= ?", (number - self._keep,))

    def seal(self, number: int) -> None:
        """Note that a round takes no more frames."""
        with transaction(self._db):
            self._db.execute("UPDATE rounds SET sealed = 1 WHERE number = ?", (number,))

    def add(self, rows: Iterable[tuple[int, str, int, bytes, memoryview]]) -> None:
        """Store frames, given as (round, client, weight, digest, frame): all of them, or none."""
        with transaction(self._db):
            self._db.executemany("INSERT INTO frames VALUES (?, ?, ?, ?, ?)", rows)

    def digests(self, number: int) -> dict[str, bytes]:
        """The SHA-256 of each client's frame of a round."""
        return dict(self._db.execute("SELECT client, digest FROM frames WHERE round = ?", (number,)))

    def frames(self, number: int) -> Iterator[tuple[str, int, bytes]]:
        """Client, weight and frame of each frame of a round, read one at a time."""
        yield from self._db.execute("SELECT client, weight, frame FROM frames WHERE round = ?", (number,))

    def close(self) -> None:
        """Write everything into the database file itself, and release it."""
        self._db.close()


class ModelStore:
    """The merger's state: the secret of all seeds, the model of the present round, a line for each round.

    Parameters
    ----------
    path : Path
    shards : int
        Each has the frames of its clients, so that the number stays the same as long as the folder is used.

    Raises
    ------
    SystemExit
        It was another; or as in `connected`.
    """

    def __init__(self, path: Path, shards: int = 1) -> None:
        self._db = connected(path, MERGER)
        (before,) = self._db.execute("PRAGMA user_version").fetchone()
        if before not in (0, shards):
            self._db.close()
            expected = f"{before} workers, whose databases have the frames of the present round"
            raise SystemExit(f"{path}: expected {expected}, got {shards}")
        self._db.execute(f"PRAGMA user_version = {shards:d}")
        with transaction(self._db):
            if self._db.execute("SELECT value FROM secret").fetchone() is None:
                self._db.execute("INSERT INTO secret VALUES (?)", (str(secrets.randbits(128)),))

    @property
    def secret(self) -> int:
        """The integer from which `fm.choose_seed` derives the seed of each client and round."""
        return int(self._db.execute("SELECT value FROM secret").fetchone()[0])

    def last(self) -> tuple[int, float, bytes, bytes] | None:
        """Number, deadline, model and downlink of the present round; None before the first."""
        columns = "number, deadline, model, downlink"
        row: tuple[int, float, bytes, bytes] | None
        row = self._db.execute(f"SELECT {columns} FROM rounds ORDER BY number DESC LIMIT 1").fetchone()
        return row

    def advance(
        self, number: int, deadline: float, model: bytes, downlink: bytes, frames: int = 0, weight: int = 0
    ) -> None:
        """Close the round before `number` with what it summed, and begin `number`: both, or neither."""
        with transaction(self._db):
            change = (
                "UPDATE rounds SET frames = ?, weight = ?, model = NULL, downlink = NULL WHERE number = ?"
            )
            self._db.execute(change, (frames, weight, number - 1))
            row = (number, deadline, model, downlink)
            self._db.execute("INSERT INTO rounds VALUES (?, ?, ?, ?, NULL, NULL)", row)

    def closed(self) -> list[tuple[int, int, int]]:
        """Number, frames and sum of the weights of each round that was closed."""
        columns = "number, frames, weight"
        return list(
            self._db.execute(f"SELECT {columns} FROM rounds WHERE frames IS NOT NULL ORDER BY number")
        )

    def close(self) -> None:
        """Write everything into the database file itself, and release it."""
        self._db.close()
