"""Conversations rendered with a model's own template."""

from __future__ import annotations

import pytest

from synapse.adapters.catalogue import load_catalogue
from synapse.adapters.triton.chat import prompt_of, render
from synapse.domain.errors import EngineError, InvalidInput
from synapse.domain.inference import ChatMessage
from synapse.domain.model import ModelSpec
from tests.factories import a_chat_model, a_model
from tests.unit.triton.asking import ask

HELLO = (ChatMessage("user", "hello"),)


def smollm2() -> ModelSpec:
    return next(spec for spec in load_catalogue() if spec.name == "smollm2-135m-instruct")


def with_template(template: str, **changes: object) -> ModelSpec:
    return a_chat_model("m", chat_template=template, **changes)


def test_smollm2_is_chatml_with_its_own_system_prompt() -> None:
    assert render(smollm2(), HELLO) == (
        "<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_smollm2_keeps_the_callers_system_prompt_and_turns() -> None:
    talk = [
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "2+2?"),
        ChatMessage("assistant", "4"),
        ChatMessage("user", "  <b>&'\"  "),
    ]

    assert render(smollm2(), talk) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>\n"
        "<|im_start|>user\n  <b>&'\"  <|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_blocks_leave_no_whitespace_as_in_transformers() -> None:
    template = "  {% for m in messages %}\n  {{ m.content }}\n  {% endfor %}\nend"

    assert render(with_template(template), HELLO) == "  hello\nend"


def test_templates_have_what_transformers_gives_them() -> None:
    template = (
        "{% for m in messages %}{% if m.role != 'user' %}{% continue %}{% endif %}"
        "{{ bos_token }}{{ m | tojson }}{{ eos_token }}{% endfor %}"
        "{{ strftime_now('%Y') | length }}{{ tools is none }}{{ documents is none }}"
        "{{ [1] | tojson(indent=1) }}"
    )
    model = with_template(template, special_tokens={"bos": "<s>", "eos": "</s>"})
    talk = [ChatMessage("tool", "?"), ChatMessage("user", "<ü>")]

    assert render(model, talk) == ('<s>{"role": "user", "content": "<ü>"}</s>4TrueTrue[\n 1\n]')


def test_what_a_template_marks_for_training_is_part_of_the_prompt() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% generation %}\n{% set inside = 1 %}a: {{ m.content }}{% endgeneration %}\n"
        "{% else %}u: {{ m.content }}\n{% endif %}{% endfor %}{{ inside is defined }}"
    )
    talk = [*HELLO, ChatMessage("assistant", "hi")]

    assert render(with_template(template), talk) == "u: hello\na: hiFalse"


def test_a_template_may_refuse_a_conversation() -> None:
    template = "{{ raise_exception('roles must alternate') }}"

    with pytest.raises(InvalidInput, match=r"^messages: roles must alternate$"):
        render(with_template(template), HELLO)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__.__base__ }}",
        "{{ '{0.__class__.__mro__}'.format(messages).__class__() }}",
        "{% set x = messages.append({}) %}",
        "{% for i in range(10000000) %}{% endfor %}",
    ],
)
def test_a_template_that_leaves_its_sandbox_is_stopped(template: str) -> None:
    with pytest.raises(EngineError) as caught:
        render(with_template(template), HELLO)

    assert not isinstance(caught.value, InvalidInput)
    assert caught.value.message == "the chat template of model 'm' failed"


@pytest.mark.parametrize("name", ["__globals__", "__code__", "__closure__", "__builtins__"])
def test_a_template_sees_nothing_of_the_program(name: str) -> None:
    assert render(with_template(f"[{{{{ raise_exception.{name} }}}}]"), HELLO) == "[]"


@pytest.mark.parametrize("template", ["{% if %}", "{{ messages[0]['content'] + 1 }}"])
def test_a_broken_template_is_not_the_callers_fault_and_repeats_nothing(template: str) -> None:
    with pytest.raises(EngineError, match=r"^the chat template of model 'm' failed$"):
        render(with_template(template), HELLO)


def test_what_a_message_says_is_no_template() -> None:
    model = with_template("{{ messages[0].content }}")

    assert render(model, [ChatMessage("user", "{{ 7 * 7 }}{% raw %}")]) == "{{ 7 * 7 }}{% raw %}"


def test_without_a_template_there_is_no_conversation() -> None:
    with pytest.raises(InvalidInput, match="no chat template; send a prompt instead"):
        prompt_of(a_model("m"), ask(None, messages=HELLO))


def test_a_raw_prompt_is_left_as_it_is() -> None:
    assert prompt_of(smollm2(), ask("<|im_start|>raw", messages=HELLO)) == "<|im_start|>raw"


def test_nothing_to_say_is_refused() -> None:
    with pytest.raises(InvalidInput, match="neither a prompt nor a message"):
        prompt_of(smollm2(), ask(None))
