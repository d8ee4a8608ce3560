"""One generation at an engine: a stream of its own, so that it can be cancelled alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import grpc

from synapse.adapters.triton import failures
from synapse.adapters.triton.connection import Connection, Line, Unreachable, is_being_cancelled
from synapse.adapters.triton.failures import Place
from synapse.adapters.triton.tensors import UnreadableAnswer, is_final, read_delta
from synapse.domain.inference import Completion, Delta, TokenLogprob
from synapse.domain.job import Usage

DEADLINE_GRACE_S = 1.0
"""By how much the engine is told a later deadline than ours, which is to come first."""

FINISH_S = 1.0
"""What a stream may take to end after the engine has refused: it has nothing more to say."""

NOTHING = Delta()
DEFAULT_FINISH_REASON = "stop"


async def deltas(
    connection: Connection,
    place: Place,
    request: Any,
    *,
    deadline_at: float,
    secrets: Sequence[str],
    top_logprobs: int = 0,
) -> AsyncGenerator[Delta, None]:
    """The parts of a generation as they come; the last one has a `finish_reason`.

    `deadline_at` is by the event loop's clock; `secrets` are what an error must not repeat;
    `top_logprobs` is how many of the likeliest tokens are wanted in each place, if any.
    Closing the iterator early cancels the generation at the engine.

    Raises:
        EngineError: it came to no good end.
    """
    reason: str | None = None
    final = False
    line: Line | None = None
    call: Any = None
    try:
        async with asyncio.timeout_at(deadline_at):
            line = await connection.line()
            left_s = deadline_at - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise TimeoutError
            timeout_s = left_s + DEADLINE_GRACE_S
            # Without the header triton_grpc_error: with it, Triton 2.51 dies now and then of a
            # stream that is cancelled while its error is on the way. The texts tell enough.
            call = line.counted(line.service.stream_infer(request, timeout=timeout_s))
        while not final:
            async with asyncio.timeout_at(deadline_at):
                response = await _next(call, place, secrets, deadline_at)
            final = is_final(response)
            delta = read_delta(response, top_logprobs)
            reason = delta.finish_reason or reason
            if final:
                connection.touch()
                yield replace(delta, finish_reason=reason or DEFAULT_FINISH_REASON)
            elif delta != NOTHING:
                yield delta
        await _finish(call, deadline_at)
    except TimeoutError as error:
        raise failures.timed_out() from error
    except Unreachable as error:
        raise failures.unreachable(place) from error
    except UnreadableAnswer as error:
        raise failures.unreadable(place, error) from error
    except grpc.aio.AioRpcError as error:
        raise connection.failure(place, error, line, secrets) from error
    finally:
        if call is not None and not call.done():
            call.cancel()


async def collect(parts: AsyncIterator[Delta]) -> Completion:
    """A generation as a whole.

    Raises:
        EngineError: as the parts do.
    """
    texts: list[str] = []
    logprobs: list[TokenLogprob] = []
    prompt_tokens = completion_tokens = 0
    cached_tokens: int | None = None
    finish_reason = DEFAULT_FINISH_REASON
    async for part in parts:
        texts.append(part.text)
        logprobs.extend(part.logprobs)
        prompt_tokens = part.prompt_tokens or prompt_tokens
        completion_tokens += part.completion_tokens
        if part.cached_tokens is not None:
            cached_tokens = part.cached_tokens
        finish_reason = part.finish_reason or finish_reason
    usage = Usage(prompt_tokens, completion_tokens, cached_tokens)
    return Completion("".join(texts), finish_reason, usage, tuple(logprobs))


async def _next(call: Any, place: Place, secrets: Sequence[str], deadline_at: float) -> Any:
    """The next response of the stream, which is not to end yet."""
    try:
        answer = await call.read()
    except asyncio.CancelledError:
        if is_being_cancelled():
            raise
        raise failures.closed(place) from None
    if answer is grpc.aio.EOF:
        raise failures.lost(place)
    if answer.error_message:
        # Cancelled while its error is on the way, a stream is never done with for Triton 2.51: the
        # model could not be unloaded any more.
        soon_at = asyncio.get_running_loop().time() + FINISH_S
        await _finish(call, min(deadline_at, soon_at))
        raise failures.from_message(place, answer.error_message, secrets)
    return answer.infer_response


async def _finish(call: Any, deadline_at: float) -> None:
    """Let the stream end by itself. What came of it is known: nothing can spoil it any more."""
    with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError):
        async with asyncio.timeout_at(deadline_at):
            try:
                await call.read()
            except asyncio.CancelledError:  # which it is too if the line was closed meanwhile
                if is_being_cancelled():
                    raise
