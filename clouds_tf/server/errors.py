"""The error of a refused request."""

from __future__ import annotations

from starlette.exceptions import HTTPException


class RequestError(HTTPException):
    """A request that gets a response with a status and {"error": sentence}.

    Args:
        status: HTTP status code, from 400 on.
        sentence: what is wrong.
        retry_after: seconds after which the client may try again.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, sentence, headers)
