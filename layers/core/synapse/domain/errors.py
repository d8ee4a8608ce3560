"""Everything that can go wrong and that a caller is told about.

Each class carries the stable machine-readable `code`; `message` is public text (what, where,
how to fix) and never holds a prompt. How a class becomes an HTTP status is the API's business
(`synapse.api.errors`).

    SynapseError
    ├── RequestError           the caller's fault; nothing was enqueued
    │   ├── InvalidRequest, MalformedBody, MalformedForm, BodyStalled, PayloadTooLarge
    │   ├── UnsupportedEncoding
    │   ├── UnknownModel, JobNotFound, FileUnknown, UploadUnknown, UploadNotPending
    │   ├── FileBatchNotFound, FileBatchNotCancellable, WebhookUnknown
    │   ├── JobNotCancellable, IdempotencyConflict
    │   ├── Unauthenticated, Forbidden, LoginNotOffered
    │   ├── KeyUnknown, KeyNotGood, TenantUnknown
    │   └── LimitReached       too much, or too often; a later request may pass
    ├── Unavailable            ours, for now; the caller may try again later
    │   └── Overloaded         more is under way than can be answered in time
    └── EngineError            what an engine answered for one item
        ├── InvalidInput       the item's own fault: never retried
        │   └── ContextLengthExceeded
        ├── EngineUnavailable  no worker took it: tried again, then on another pool
        │   └── EngineFull     beside others that took long: queued again at once
        ├── EngineLost         the worker went down with it: queued again, to run alone
        └── EngineTimeout      the item's time was up
"""

from __future__ import annotations

from collections.abc import Mapping


class SynapseError(Exception):
    """Base of all errors with a public message."""

    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class RequestError(SynapseError):
    """The request cannot be served as sent."""

    code = "invalid_request"


class InvalidRequest(RequestError):
    """A field is missing, malformed or out of range; `param` names it."""

    code = "invalid_value"


class MalformedBody(RequestError):
    """The body is no JSON object."""

    code = "invalid_json"


class UnsupportedEncoding(RequestError):
    """The body is compressed."""

    code = "unsupported_content_encoding"


class PayloadTooLarge(RequestError):
    """The input is larger than this deployment accepts."""

    code = "payload_too_large"


class UnknownModel(RequestError):
    """No model of that name is served here."""

    code = "model_not_found"


class JobNotFound(RequestError):
    """No job of that id, or it has outlived its retention."""

    code = "job_not_found"


class ResultLost(RequestError):
    """A job has COMPLETED, but what it wrote is no longer kept."""

    code = "result_lost"


class FileUnknown(RequestError):
    """No file of that id (or name) is here, or it has expired."""

    code = "file_not_found"


class UploadUnknown(RequestError):
    """No upload of that id, or it ended a while ago."""

    code = "upload_not_found"


class UploadNotPending(RequestError):
    """The upload has been completed or cancelled, or its hour is over."""

    code = "upload_not_pending"


class BodyStalled(RequestError):
    """Nothing more came of the body for a while."""

    code = "request_timeout"


class MalformedForm(RequestError):
    """The body is no multipart form, or breaks off."""

    code = "invalid_form"


class JobNotCancellable(RequestError):
    """The job has already ended otherwise."""

    code = "job_already_ended"


class Unauthenticated(RequestError):
    """No credential, or one that is no good; nothing tells which of a key's faults it was."""

    code = "invalid_api_key"


class Forbidden(RequestError):
    """The caller is known, and may not do this."""

    code = "insufficient_scope"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class KeyUnknown(RequestError):
    """No API key of that id, or it is another tenant's: nothing tells which."""

    code = "key_not_found"


class KeyNotGood(RequestError):
    """The key has been revoked, or has expired."""

    code = "key_not_active"


class TenantUnknown(RequestError):
    """No tenant of that name, or it is not the caller's: nothing tells which."""

    code = "tenant_not_found"


class LoginNotOffered(RequestError):
    """Nobody can log in with a password here."""

    code = "login_not_offered"


class LimitReached(RequestError):
    """A limit of the account or its tenant leaves no room; `retry_after_s` None: not by waiting.

    `headers` tell what is left of the limits, under the names that OpenAI gives them.
    """

    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: int | None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        if code is not None:
            self.code = code


class WebhookUnknown(RequestError):
    """No webhook of that id."""

    code = "webhook_not_found"


class FileBatchNotFound(RequestError):
    """No batch of that id."""

    code = "batch_not_found"


class FileBatchNotCancellable(RequestError):
    """The batch has already ended, or is about to."""

    code = "batch_already_ended"


class IdempotencyConflict(RequestError):
    """The idempotency key was used before with another body."""

    code = "idempotency_conflict"


class Unavailable(SynapseError):
    """The request was not accepted; sending it again after `retry_after_s` may succeed."""

    code = "service_unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 5, code: str | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code


class Overloaded(Unavailable):
    """So much is under way that this request would not be answered in time; nothing was sent."""

    code = "engine_overloaded"


class EngineError(SynapseError):
    """What an engine answered instead of a result."""

    code = "engine_error"


class InvalidInput(EngineError):
    """The model refuses this very input; trying again cannot help."""

    code = "invalid_input"


class ContextLengthExceeded(InvalidInput):
    """The input alone is longer than the model's context."""

    code = "context_length_exceeded"


class EngineUnavailable(EngineError):
    """The worker cannot be reached or refused for load: no work was begun; try again."""

    code = "engine_unavailable"


class EngineFull(EngineUnavailable):
    """No worker took it, beside others who were long at theirs: to wait here may take too long."""


class EngineLost(EngineError):
    """The worker went down while it worked on the item, perhaps because of it."""

    code = "worker_lost"


class EngineTimeout(EngineError):
    """The item's own deadline passed while the engine was working on it."""

    code = "deadline_exceeded"
