"""The one exception that stands for a user's mistake, and any other on one line."""


class UserError(Exception):
    """Something the user can put right: the message is one line naming the thing, the value and the remedy.

    Jobs print it without a traceback and end with status 2. Everything else that is raised is a bug of ours
    and keeps its traceback.
    """


class TroubleError(UserError):
    """Something outside failed (network, disk, permission): what was done so far is good, and is kept."""


def one_line(error: BaseException) -> str:
    """Put an error's kind and the start of its message on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


class GaveUpError(Exception):
    """Something outside this program failed more often than allowed: one line, exit status 1.

    Parameters
    ----------
    message : str
    details : str
        What is known of the last failure, on many lines.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
