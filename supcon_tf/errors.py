"""The error for a user's mistake."""


class UserError(ValueError):
    """A wrong value that the user can correct; its message names the value and the fix.

    The commands print it as one line and exit with code 2. Any other exception is a bug and shows
    its traceback.
    """
