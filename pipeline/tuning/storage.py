"""Where Optuna keeps the studies."""

from __future__ import annotations

import os
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import get_lock_file

from pipeline.config import TuningSettings
from pipeline.environment import without_secrets
from pipeline.errors import UserError, one_line
from pipeline.storage import files
from pipeline.tuning.journal import ObjectJournal

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it sets its own level when imported


def open_storage(settings: TuningSettings, output: str) -> Any:
    """Open the studies' storage: a database if one is configured, else a journal under `output`.

    Raises
    ------
    UserError
        If the database cannot be opened, or the journal on an object store is damaged.
    """
    if settings.storage is not None:
        try:
            return optuna.storages.RDBStorage(settings.storage)
        except Exception as error:  # SQLAlchemy and its drivers raise many kinds
            raise UserError(
                f"tuning.storage: cannot open the database ({without_secrets(one_line(error))})"
            ) from error
    if files.is_remote(output):
        return JournalStorage(ObjectJournal(files.join(output, "studies")))
    folder = os.path.join(files.local_path(output), "studies")
    os.makedirs(folder, exist_ok=True)
    file = os.path.join(folder, "journal.log")
    lock = JournalFileSymlinkLock(file)
    with get_lock_file(lock):
        _drop_half_line(file)
    return JournalStorage(JournalFileBackend(file, lock))


def _drop_half_line(file: str) -> None:
    """Drop what a power cut left of the last record: Optuna would append to it, and read neither again."""
    if not os.path.exists(file):
        return
    with open(file, "r+b") as journal:
        content = journal.read()
        journal.truncate(content.rfind(b"\n") + 1)
