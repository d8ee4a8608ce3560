"""What a template is given besides the conversation: only what it reads."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.adapters.triton.chat import prompt_of, render
from synapse.domain.errors import EngineError, InvalidInput
from synapse.domain.inference import ChatMessage
from tests.factories import a_chat_model
from tests.unit.triton.asking import ask
from tests.unit.triton.test_chat import HELLO, smollm2, with_template

# As Qwen's does: it thinks unless it is switched off.
SWITCHED = (
    "{{ messages[0].content }}{% if add_generation_prompt %}"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    "{% endif %}"
)
# As DeepSeek's does: it does not think unless it is switched on.
OTHER_SWITCH = "{% if not thinking is defined %}{% set thinking = false %}{% endif %}{{ thinking }}"
# As gpt-oss's does: it always thinks, more or less.
GRADED = (
    "{% macro head() %}{% if reasoning_effort is not defined %}"
    '{% set reasoning_effort = "medium" %}{% endif %}{{ reasoning_effort }}{% endmacro %}'
    "{{ head() }}"
)
# As Mistral's does: no effort is one of the efforts.
GRADED_FROM_NONE = (
    "{% set reasoning_effort = reasoning_effort | default('none') %}"
    "{% if reasoning_effort not in ['none', 'high'] %}"
    "{{ raise_exception('reasoning_effort is none or high') }}{% endif %}{{ reasoning_effort }}"
)
BOTH = "{{ enable_thinking }} {{ reasoning_effort }}"
ALWAYS = "{{ messages[0].content }}<think>"
NEVER = "{{ messages[0].content }}"


def shown(template: str, effort: str | None = None, **variables: Any) -> str:
    return render(with_template(template), HELLO, variables=variables, effort=effort)


def test_a_template_is_given_the_variables_of_its_request() -> None:
    request = ask(None, messages=HELLO, variables={"enable_thinking": False})

    assert prompt_of(with_template(SWITCHED), request) == "hello<think></think>"
    assert prompt_of(with_template(SWITCHED), ask(None, messages=HELLO)) == "hello"


def test_values_are_any_that_json_has() -> None:
    template = "{{ documents[0].title }} {{ depth + 1 }} {{ nothing is none }}"

    assert shown(template, documents=[{"title": "T"}], depth=1, nothing=None) == "T 2 True"


def test_what_the_template_does_not_read_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="'m' does not read 'enable_thinkin'") as caught:
        shown(SWITCHED, enable_thinkin=False)

    assert caught.value.param == "chat_template_kwargs"


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_not_to_think_is_no_news_to_who_never_does(name: str) -> None:
    assert shown(NEVER, None, **{name: False}) == "hello"
    assert shown(NEVER, None, **{name: None}) == "hello"
    for template, value in ((NEVER, True), (ALWAYS, False)):
        with pytest.raises(InvalidInput, match="does not read"):
            shown(template, None, **{name: value})


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "bos_token"])
def test_what_is_ours_stays_ours(name: str) -> None:
    template = "{{ messages[0].content }} {{ tools }} {{ add_generation_prompt }} {{ bos_token }}"
    model = a_chat_model("m", chat_template=template, special_tokens={"bos": "<s>"})

    assert render(model, HELLO, variables={name: "X"}) == "hello None True <s>"


@pytest.mark.parametrize(
    ("template", "effort", "expected"),
    [
        (SWITCHED, "none", "hello<think></think>"),
        (SWITCHED, "low", "hello"),
        (OTHER_SWITCH, "none", "False"),
        (OTHER_SWITCH, "high", "True"),
        (GRADED, "low", "low"),
        (GRADED, None, "medium"),
        (GRADED_FROM_NONE, "none", "none"),
        (GRADED_FROM_NONE, "high", "high"),
        (BOTH, "high", "True high"),
        (BOTH, "none", "False "),
        (NEVER, "none", "hello"),
    ],
)
def test_an_effort_is_told_in_the_templates_own_words(
    template: str, effort: str, expected: str
) -> None:
    assert shown(template, effort) == expected


@pytest.mark.parametrize(
    ("template", "effort", "told"),
    [
        (NEVER, "high", "how much to think"),
        (ALWAYS, "low", "how much to think"),
        (ALWAYS, "none", "not to think"),
        (GRADED, "none", "not to think"),
    ],
)
def test_an_effort_that_would_have_no_effect_is_refused(
    template: str, effort: str, told: str
) -> None:
    with pytest.raises(InvalidInput, match=f"model 'm' cannot be told {told}") as caught:
        shown(template, effort)

    assert caught.value.param == "reasoning_effort"


def test_what_the_template_objects_to_is_the_callers_fault() -> None:
    with pytest.raises(InvalidInput, match="reasoning_effort is none or high"):
        shown(GRADED_FROM_NONE, "low")


def test_a_variable_that_is_given_itself_goes_first() -> None:
    assert shown(BOTH, "high", enable_thinking=False) == "False high"


# As llama.cpp's for DeepSeek V3.1 does.
EITHER_SWITCH = (
    "{% if not thinking is defined %}{% set thinking = enable_thinking | default(false) %}"
    "{% endif %}{{ thinking }}"
)


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_a_switch_that_is_given_goes_before_the_other_one(name: str) -> None:
    assert shown(EITHER_SWITCH, "high", **{name: False}) == "False"
    assert shown(EITHER_SWITCH, "none", **{name: True}) == "True"


def test_a_broken_template_is_still_not_the_callers_fault() -> None:
    with pytest.raises(EngineError, match=r"^the chat template of model 'm' failed$"):
        shown("{% if %}", "high")


def test_smollm2_neither_thinks_nor_can_be_told_to() -> None:
    talk = [ChatMessage("user", "hello")]

    assert render(smollm2(), talk, effort="none") == render(smollm2(), talk)
    with pytest.raises(InvalidInput):
        render(smollm2(), talk, effort="low")


FAILS_ON_TEXT = "{{ messages[0].content }}{{ depth | default(1) + 1 }}"
OF_EFFORTS = "{{ {'low': 1, 'high': 2}[reasoning_effort | default('low')] + 1 }}"
PICKY = (
    "{% if reasoning_effort | default('none') not in ['none', 'high'] %}"
    "{{ raise_exception('none or high') }}{% endif %}{{ messages[0].content }}"
)


@pytest.mark.parametrize(
    ("template", "given", "refusal"),
    [
        (FAILS_ON_TEXT, {"depth": "deep"}, "chat_template_kwargs: .* 'm' fails on it"),
        (OF_EFFORTS, {"effort": "max"}, "reasoning_effort: .* 'm' fails on it"),
        (PICKY, {"effort": "low"}, "reasoning_effort: none or high"),
        (PICKY, {"reasoning_effort": "low"}, "chat_template_kwargs: none or high"),
    ],
)
def test_what_a_template_fails_on_is_the_fault_of_who_gave_it(
    template: str, given: dict[str, str], refusal: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^{refusal}$") as caught:
        shown(template, **given)

    assert caught.value.param == refusal.partition(":")[0]
