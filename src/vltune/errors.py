"""Errors that a user can act on."""


class UserError(Exception):
    """One line that names the file, the value and the fix.  Entry points print it without a traceback and exit 2."""


class BadExampleError(UserError):
    """An example that cannot be read (a corrupt image, say).  It ends a run with status 1 unless the limit allows it."""
