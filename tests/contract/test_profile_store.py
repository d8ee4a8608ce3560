"""ProfileStore: the last profile of each (model, version, pool), whole and cheap to ask for."""

from __future__ import annotations

from dataclasses import replace

from synapse.domain.profile import Profile
from synapse.ports import ProfileStore
from tests.factories import NOW

FULL = Profile(
    model="smollm2",
    version="3",
    pool="gpu",
    accelerator="gpu",
    base_ms=12.345678901,
    prompt_token_ms=0.0123,
    output_token_ms=4.5,
    company=0.037,
    spread=1.75,
    best_batch=16,
    items_per_s=123.4,
    usd_per_1k_items=0.000321,
    samples=480,
    measured_at=NOW,
    saturates_at=32,
    first_company=0.9,
    first_spread=2.5,
    fit_error=0.04,
    was_idle=False,
)
PLAIN = Profile("echo", "1", "cpu", "cpu", base_ms=1.0, measured_at=NOW)


async def test_nothing_measured_is_no_profile(profile_store: ProfileStore) -> None:
    assert await profile_store.profile("echo", "1", "cpu") is None
    assert list(await profile_store.profiles()) == []


async def test_a_profile_comes_back_as_it_was_kept(profile_store: ProfileStore) -> None:
    await profile_store.keep(FULL)
    await profile_store.keep(PLAIN)

    assert await profile_store.profile("smollm2", "3", "gpu") == FULL
    assert await profile_store.profile("echo", "1", "cpu") == PLAIN


async def test_each_version_and_each_pool_has_its_own(profile_store: ProfileStore) -> None:
    newer, elsewhere = replace(PLAIN, version="2"), replace(PLAIN, pool="gpu")
    for profile in (newer, elsewhere, PLAIN):
        await profile_store.keep(profile)

    assert await profile_store.profile("echo", "2", "cpu") == newer
    assert await profile_store.profile("echo", "1", "gpu") == elsewhere
    assert await profile_store.profile("echo", "2", "gpu") is None


async def test_all_come_by_model_version_and_pool(profile_store: ProfileStore) -> None:
    second = replace(PLAIN, version="2")
    for profile in (FULL, second, PLAIN):
        await profile_store.keep(profile)

    assert list(await profile_store.profiles()) == [PLAIN, second, FULL]


async def test_a_new_one_takes_the_place_of_an_older(profile_store: ProfileStore) -> None:
    later = replace(PLAIN, base_ms=2.0, measured_at=NOW + 60)
    await profile_store.keep(PLAIN)
    assert await profile_store.profile("echo", "1", "cpu") == PLAIN

    await profile_store.keep(later)

    assert await profile_store.profile("echo", "1", "cpu") == later
    assert list(await profile_store.profiles()) == [later]


async def test_an_older_one_that_comes_late_is_ignored(profile_store: ProfileStore) -> None:
    later = replace(PLAIN, base_ms=2.0, measured_at=NOW + 60)
    await profile_store.keep(later)
    await profile_store.keep(PLAIN)

    assert await profile_store.profile("echo", "1", "cpu") == later
