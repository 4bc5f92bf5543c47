"""The exception for what the caller got wrong, which programs report in one line."""


class Mistake(ValueError):
    """A wrong argument, file or setting of the caller.

    The message says what was expected, what was received and what to do. Raise it where the fact is checked; programs
    end with its message and exit code 1, while any other error keeps its traceback.
    """

    __init__ = Exception.__init__  # AutoGraph raises errors of traced code again as they are where it finds this
