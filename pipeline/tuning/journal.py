"""Optuna's journal as numbered objects, for outputs on an object store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from pipeline.errors import UserError
from pipeline.storage import files

_SUMMARY_EVERY = 200  # segments; to open a journal, no more than these and one summary are read


class ObjectJournal(BaseJournalBackend):
    """A journal in a folder of an object store: each append is one object, the next in a row.

    Object stores cannot append, and rewriting one object each time would lose records to a second writer
    (and meet Google's limit of one write per second and object). Here an append creates the object of the
    next number if there is none. So it is there whole or not at all, whenever the process is killed; of two
    writers that want one number one fails, reads what the other has written, and takes the next; and no
    segment is ever changed or deleted, so everybody reads the same order. Where a store does not honour the
    condition, the lease of the sweep is what keeps a second writer away.

    A summary holds all lines up to a number. It only saves reading: without it the segments say the same.

    Parameters
    ----------
    url : str

    Raises
    ------
    UserError
        If a segment is missing or is none.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._logs: list[dict[str, Any]] = []
        self._last = 0
        self._open()

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Give the records from a number on, what others have written since included."""
        self._catch_up()
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records behind all others."""
        content = _lines(logs)
        while not files.create_bytes(self._segment(self._last + 1), content):
            self._catch_up()
        self._take(self._last + 1, content)

    def _catch_up(self) -> None:
        while True:
            try:
                content = files.read_bytes(self._segment(self._last + 1))
            except FileNotFoundError:
                return
            self._take(self._last + 1, content)

    def _open(self) -> None:
        names = files.list_folder(self._url)
        summaries = sorted(name for name in names if name.startswith("summary-"))
        if summaries:
            self._take(_number(summaries[-1]), files.read_bytes(files.join(self._url, summaries[-1])))
        summed_up = self._last
        numbers = sorted(_number(name) for name in names if name.startswith("segment-"))
        missing = [number for number in numbers if number > summed_up]
        for number, content in zip(missing, files.read_many(map(self._segment, missing)), strict=True):
            if number != self._last + 1:
                lost = self._segment(self._last + 1)
                raise UserError(f"{lost}: missing; bring it back, or give the sweep another --output")
            self._take(number, content)
        if self._last - summed_up >= _SUMMARY_EVERY:
            files.write_bytes(files.join(self._url, f"summary-{self._last:08d}.jsonl"), _lines(self._logs))

    def _take(self, number: int, content: bytes) -> None:
        try:
            self._logs += [json.loads(line) for line in content.splitlines()]
        except ValueError as error:
            raise UserError(
                f"{self._segment(number)}: damaged; bring it back, or give the sweep another --output"
            ) from error
        self._last = number

    def _segment(self, number: int) -> str:
        return files.join(self._url, f"segment-{number:08d}.jsonl")


def _lines(logs: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()


def _number(name: str) -> int:
    return int(name.partition("-")[2].partition(".")[0])
