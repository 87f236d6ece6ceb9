"""Drawing requests: the same seed gives the same ones, shares are kept, and what is not there is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from loadtest.errors import ScenarioError
from loadtest.request import Draw, PlannedRequest
from loadtest.scenario import Mix
from loadtest.texts import Texts

VOICES = ("demo_female", "demo_male")


def draw(seed: int = 1, saved: tuple[str, ...] = VOICES, **mix: Any) -> Draw:
    return Draw(Mix.model_validate(mix), Texts.from_directory(), saved, seed)


def without_id(request: PlannedRequest) -> PlannedRequest:
    return replace(request, request_id="")


def test_request_number_n_is_the_same_whatever_was_drawn_before() -> None:
    mix = {"cancels": 0.5, "voices": {"known": 1, "new": 1}, "languages": {"en": 1, "zh": 1}}
    in_order = [draw(**mix).request(number) for number in range(30)]
    one = draw(**mix)
    backwards = [one.request(number) for number in reversed(range(30))][::-1]
    assert list(map(without_id, in_order)) == list(map(without_id, backwards))
    assert list(map(without_id, in_order)) != [without_id(draw(2, **mix).request(n)) for n in range(30)]


def test_ids_differ_between_runs_so_that_logs_can_be_joined() -> None:
    ids = {draw().request(number).request_id for _ in range(3) for number in range(3)}
    assert len(ids) == 9
    assert all(len(id_) <= 64 for id_ in ids)


def test_shares_are_kept() -> None:
    one = draw(languages={"en": 3, "ja": 1}, voices={"known": 1, "repeated": 1, "new": 2}, cancels=0.25)
    requests = [one.request(number) for number in range(2000)]
    languages = Counter(request.language for request in requests)
    kinds = Counter(request.voice_kind for request in requests)
    assert languages["en"] / 2000 == pytest.approx(0.75, abs=0.03)
    assert kinds["new"] / 2000 == pytest.approx(0.5, abs=0.03)
    leaving = [request.leaves_after_s for request in requests if request.leaves_after_s is not None]
    assert len(leaving) / 2000 == pytest.approx(0.25, abs=0.03)
    assert 0 <= min(leaving) < 0.5
    assert 4.5 < max(leaving) <= 5


def test_new_voices_are_all_different_and_a_repeated_one_is_always_the_same() -> None:
    one = draw(voices={"known": 1, "repeated": 1, "new": 1})
    requests = [one.request(number) for number in range(300)]
    uploads = {kind: [r.upload for r in requests if r.voice_kind == kind] for kind in ("known", "repeated", "new")}
    assert set(uploads["known"]) == {None}
    assert set(uploads["repeated"]) == {0}
    assert len(set(uploads["new"])) == len(uploads["new"])
    assert 0 not in uploads["new"]
    assert {r.voice for r in requests if r.voice_kind == "known"} == set(VOICES)


def test_what_the_service_lacks_is_refused() -> None:
    with pytest.raises(ScenarioError, match="no voice nobody; it has demo_female, demo_male"):
        draw(names=("nobody",))
    with pytest.raises(ScenarioError, match="no saved voices"):
        draw(saved=())
    with pytest.raises(ScenarioError, match="'fr'"):
        draw(languages={"fr": 1})
