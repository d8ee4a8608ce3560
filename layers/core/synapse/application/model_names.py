"""Which models a key or a user may be bound to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from synapse.domain.access import MAX_MODELS_BYTES, are_too_many
from synapse.domain.errors import InvalidRequest


async def check_models(
    names: Collection[str] | None, served: Callable[[], Awaitable[Collection[str]]]
) -> None:
    """Refuse what could never be used; None, all models, is fine.

    Raises:
        InvalidRequest: a model is not served, or there are too many.
    """
    if names is None:
        return
    if are_too_many(names):
        raise InvalidRequest(
            f"models: their names take more than {MAX_MODELS_BYTES} bytes together; leave "
            "them out for all models, or name fewer",
            param="models",
        )
    known = await served()
    if unknown := sorted(set(names).difference(known)):
        raise InvalidRequest(
            f"models: {', '.join(map(repr, unknown))} not served here; choose from: "
            f"{', '.join(sorted(known)) or 'none'}",
            param="models",
        )
