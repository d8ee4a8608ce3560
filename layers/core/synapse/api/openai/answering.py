"""From what was asked to the answer, whole or as a stream, through the direct lane."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from synapse.api.limits import limit_headers
from synapse.api.openai import sse
from synapse.api.openai.caching import Caching, Collector
from synapse.api.openai.refusals import REFUSALS, in_terms_of
from synapse.api.openai.rendering import Heading, fingerprint
from synapse.api.openai.requests import Ask, check_model
from synapse.api.openai.side_by_side import all_of, merged
from synapse.api.openai.telling import Teller
from synapse.api.receipts import beginning_headers, receipt_headers
from synapse.api.resolver import Answered, Reply, StreamReply
from synapse.api.services import Services
from synapse.application.checks import served_model
from synapse.application.direct import Answer, DirectRequest
from synapse.application.generation import Generation
from synapse.application.metering import Ticket, cut_to_limits
from synapse.application.side_by_side import all_ended
from synapse.domain.access import Principal
from synapse.domain.errors import EngineError, SynapseError
from synapse.domain.inference import Completion, Delta, Result
from synapse.domain.model import ModelSpec
from synapse.domain.receipt import Receipt
from synapse.ids import new_id


async def answer(
    services: Services,
    caller: Principal,
    ask: Ask,
    teller: Teller,
    caching: Caching,
    timeout_s: float,
) -> Answered:
    """The answer to what was asked, in the way it was asked for.

    Raises:
        SynapseError: there is none.
    """
    spec = await served_model(services.registry, ask.model, caller)
    check_model(ask, spec)
    caller.require_tier(ask.tier)  # an answer that is kept is refused as well
    answer_id = new_id()
    heading = Heading(
        f"{teller.prefix}{answer_id}",
        int(time.time()),
        spec.name,
        fingerprint(spec.name, spec.version),
    )
    requests = _requests_of(services, caller, ask, spec, answer_id, timeout_s)
    answering = _Answering(services, spec, ask, requests, caching)
    if not ask.stream:
        completions = await answering.whole()
        body = teller.whole(heading, completions, keeps_tier=answering.keeps_tier())
        told = receipt_headers(answering.receipts()) | answering.limits()
        return Reply(body, headers={**caching.headers, **told})
    writer = teller.writer(heading, answering.keeps_tier, answering.receipts)
    events = sse.event_stream(answering.deltas(), writer)
    await anext(events)  # what can be refused at once has been, and nothing was sent
    told = beginning_headers(answering.receipts()) | answering.limits()
    headers = {**sse.HEADERS, **caching.headers, **told}
    return StreamReply(
        events, sse.EVENT_STREAM, headers=headers, if_cut=lambda: writer.failed(sse.STOPPED)
    )


def _requests_of(
    services: Services,
    caller: Principal,
    ask: Ask,
    spec: ModelSpec,
    answer_id: str,
    timeout_s: float,
) -> tuple[DirectRequest, ...]:
    """A request at the direct lane for each prompt."""
    # An SDK's timeout is between two reads: a stream may take longer in all.
    stream_s = services.max_direct_s if ask.stream else None
    return tuple(
        DirectRequest(
            f"{answer_id}-{at}",
            spec.name,
            cut_to_limits(value, spec, caller),
            timeout_s,
            ask.tier,
            caller,
            stream_s=stream_s,
            affinity=ask.affinity,
            length_at=ask.length_at,
        )
        for at, value in enumerate(ask.inputs)
    )


@dataclass(frozen=True, slots=True)
class _Answering:
    """One ask at the direct lane: a request for each of its prompts."""

    services: Services
    spec: ModelSpec
    ask: Ask
    requests: Sequence[DirectRequest]
    caching: Caching
    givers: list[Generation | Answer] = field(default_factory=list)
    replayed: list[Receipt] = field(default_factory=list)
    begun: list[Generation] = field(default_factory=list)

    def keeps_tier(self) -> bool:
        """Whether all who answer keep the promise of the tier; an answer that was kept does."""
        return all(giver.keeps_tier for giver in self.givers)

    def limits(self) -> dict[str, str]:
        """Headers of what is left of the caller's limits."""
        return limit_headers(giver.standing for giver in self.givers)

    def receipts(self) -> list[Receipt]:
        """What is known of the receipts, which is all once it has ended."""
        return [*self.replayed, *map(_receipt, self.givers)]

    async def whole(self) -> list[Completion]:
        """What was written for each prompt."""
        try:
            kept = await self._kept_results()
            async with AsyncExitStack() as stack:
                begun = await self._begun(kept, stack)
                each_of = zip(self.requests, kept, begun, strict=True)
                return await all_of([self._completion(*each) for each in each_of])
        except REFUSALS as error:
            raise in_terms_of(self.ask, self.spec, error) from error

    async def deltas(self) -> AsyncGenerator[tuple[int, Delta], None]:
        """What is added to which choice, as it is written."""
        try:
            kept = await self._kept_results()
            async with AsyncExitStack() as stack:
                begun = await self._begun(kept, stack)
                sources = [
                    await self._source(at * self.ask.samples, *each)
                    for at, each in enumerate(zip(self.requests, kept, begun, strict=True))
                ]
                async with aclosing(merged(sources)) as found:
                    async for each in found:
                        yield each
        except REFUSALS as error:
            raise in_terms_of(self.ask, self.spec, error) from error

    async def _kept_results(self) -> list[Result | None]:
        """The kept answer to each of the requests that has one."""
        return await all_of([self.caching.lookup(request) for request in self.requests])

    async def _begun(
        self, kept: Sequence[Result | None], stack: AsyncExitStack
    ) -> list[Generation | None]:
        """All that are to be computed let in, before a worker is asked for any; or none of them.

        What is begun ends with `stack`.
        """
        tickets = await stack.enter_async_context(self._counted(kept))

        async def begin(request: DirectRequest, ticket: Ticket | None) -> Generation:
            generation = await self.services.direct.begin(request, ticket)
            self.begun.append(generation)
            return await stack.enter_async_context(generation)

        asked = [at for at, result in enumerate(kept) if result is None]
        with self._ending_all():
            begun = await all_ended([begin(self.requests[at], tickets[at]) for at in asked])
        of_asked = dict(zip(asked, begun, strict=True))
        return [of_asked.get(at) for at in range(len(kept))]

    @contextmanager
    def _ending_all(self) -> Iterator[None]:
        """An error of one prompt ends all of them."""
        try:
            yield
        except SynapseError as error:
            for generation in self.begun:
                generation.end_with(error)
            raise

    @asynccontextmanager
    async def _counted(
        self, kept: Sequence[Result | None]
    ) -> AsyncGenerator[Sequence[Ticket | None], None]:
        """Those that are to be computed counted as one, all or none; a ticket for each request."""
        asked = [at for at, result in enumerate(kept) if result is None]
        async with self.services.direct.counted([self.requests[at] for at in asked]) as tickets:
            of_asked = dict(zip(asked, tickets, strict=True))
            yield [of_asked.get(at) for at in range(len(kept))]

    async def _completion(
        self, request: DirectRequest, kept: Result | None, begun: Generation | None
    ) -> Completion:
        if kept is not None:
            return await self._kept(request, kept)
        assert begun is not None, "what was not kept is computed"
        with self._ending_all():
            answer = await self.services.direct.finish(begun)
        self.givers.append(answer)
        await self.caching.keep(request, answer.result)
        return _completion(answer.result)

    async def _source(
        self,
        offset: int,
        request: DirectRequest,
        kept: Result | None,
        begun: Generation | None,
    ) -> AsyncGenerator[tuple[int, Delta], None]:
        """The choices from number `offset` on."""
        if kept is not None:
            return _replayed(offset, await self._kept(request, kept))
        assert begun is not None, "what was not kept is computed"
        self.givers.append(begun)
        return self._written(offset, request, begun)

    async def _kept(self, request: DirectRequest, kept: Result) -> Completion:
        completion = _completion(kept)
        receipt = await self.services.direct.replay(request, self.spec, completion)
        self.replayed.append(receipt)
        return completion

    async def _written(
        self, offset: int, request: DirectRequest, generation: Generation
    ) -> AsyncGenerator[tuple[int, Delta], None]:
        collector = Collector() if self.caching.wanted(request) else None
        with self._ending_all():
            async with aclosing(generation.deltas()) as deltas:
                async for each in deltas:
                    if collector is not None:
                        collector.add(each.index, each.delta)
                    yield offset + each.index, each.delta
        if collector is not None:
            await self.caching.keep(request, collector.completion(generation.usage))


async def _replayed(offset: int, completion: Completion) -> AsyncGenerator[tuple[int, Delta], None]:
    """A whole completion as a stream of one delta a choice."""
    usage = completion.usage
    for at, choice in enumerate(completion.choices):
        written = usage.completion_tokens if at == 0 else 0
        yield (
            offset + at,
            Delta(
                choice.text,
                usage.prompt_tokens,
                written,
                choice.finish_reason,
                usage.cached_tokens,
                choice.logprobs,
            ),
        )


def _receipt(giver: Generation | Answer) -> Receipt:
    if isinstance(giver, Answer):
        return giver.receipt
    return giver.receipt or giver.receipt_so_far()


def _completion(result: Result) -> Completion:
    if not isinstance(result, Completion):
        raise EngineError("the engine gave vectors instead of text")
    return result
