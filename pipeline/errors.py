"""The one exception that means "the user can mend this"."""


class UserError(Exception):
    """A mistake that one sentence explains: what was wrong, what was found, what is allowed, how to mend it.

    The command line prints it on one line and exits with status 1; anything else that escapes is a bug.
    """

    def __str__(self) -> str:
        return " ".join(super().__str__().split())
