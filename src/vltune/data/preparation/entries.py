"""What raw files say about each image, gathered on disk: memory does not grow with the data set."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from vltune.data.fields import shown

_CACHE_KIB = 16_000  # of the database that may lie in memory; what is sorted beyond it goes to temporary files
_TABLES = f"""
    PRAGMA cache_size = -{_CACHE_KIB};
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE kept (realm TEXT, key, content TEXT, PRIMARY KEY (realm, key)) WITHOUT ROWID;
    CREATE TABLE entry (split TEXT, image, content TEXT);
    CREATE TABLE row (split TEXT, number INTEGER, content TEXT, PRIMARY KEY (split, number)) WITHOUT ROWID;
    CREATE TABLE fact (content TEXT);
"""
_BY_FIRST = """
    SELECT image, content FROM (
        SELECT image, content, rowid AS place, min(rowid) OVER (PARTITION BY image) AS first FROM entry WHERE split = ?
    ) ORDER BY first, place
"""
_BY_IMAGE = "SELECT image, content FROM entry WHERE split = ? ORDER BY image, rowid"


class Entries:
    """A new file of entries, from which rows are made.  All contents are what JSON can hold."""

    def __init__(self, path: Path):
        self._database = sqlite3.connect(path)
        self._database.executescript(_TABLES)

    def keep(self, realm: str, key: int | str, content: Any) -> None:
        """Puts something down under a key, which tells things apart in its realm alone, as ids do; the last stands."""
        self._database.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", (realm, key, json.dumps(content)))

    def kept(self, realm: str, key: int | str) -> Any:
        """KeyError where there is nothing."""
        query = "SELECT content FROM kept WHERE realm = ? AND key = ?"
        found = self._database.execute(query, (realm, key)).fetchone()
        if found is None:
            raise KeyError(key)
        return json.loads(found[0])

    def once(self, realm: str, key: int | str, where: str) -> None:
        """ValueError where the key was met before, and where that was."""
        query = "INSERT OR IGNORE INTO kept VALUES (?, ?, ?)"
        if not self._database.execute(query, (realm, key, json.dumps(where))).rowcount:
            raise ValueError(f"{shown(key)} is at {self.kept(realm, key)} already")

    def add(self, split: str, image: int | str, content: Any) -> None:
        self._database.execute("INSERT INTO entry VALUES (?, ?, ?)", (split, image, json.dumps(content)))

    def groups(self, split: str, by_image: bool) -> Iterator[tuple[int | str, list[Any]]]:
        """Each image and all that was added for it, in that order.  by_image: sorted; else as they come first."""
        found = self._database.execute(_BY_IMAGE if by_image else _BY_FIRST, (split,))
        for image, group in groupby(found, itemgetter(0)):
            yield image, [json.loads(content) for _, content in group]

    def write_rows(self, split: str, rows: Iterable[Any]) -> int:
        numbered = ((split, number, json.dumps(row)) for number, row in enumerate(rows))
        return self._database.executemany("INSERT INTO row VALUES (?, ?, ?)", numbered).rowcount

    def finish(self, facts: Any) -> None:
        """Puts down what is to be known of the whole and closes the file; the raw files' entries are not needed again."""
        self._database.execute("INSERT INTO fact VALUES (?)", (json.dumps(facts),))
        self._database.commit()
        self._database.close()


class RowDatabase:
    """The rows of a finished file of entries."""

    def __init__(self, path: Path):
        self._database = sqlite3.connect(path)

    def facts(self) -> Any:
        return json.loads(self._database.execute("SELECT content FROM fact").fetchone()[0])

    def __call__(self, split: str, first: int, end: int) -> Iterator[tuple[int, Any]]:
        """The rows of a split from number `first` to before `end`, each with its number."""
        found = self._database.execute(
            "SELECT number, content FROM row WHERE split = ? AND number >= ? AND number < ? ORDER BY number",
            (split, first, end),
        )
        return ((number, json.loads(content)) for number, content in found)
