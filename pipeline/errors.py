"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """Something the user can put right: the message is one line naming the thing, the value and the remedy.

    Jobs print it without a traceback and end with status 2. Everything else that is raised is a bug of ours
    and keeps its traceback.
    """
