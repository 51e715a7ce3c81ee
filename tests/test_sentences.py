"""Cutting text into sentences, in English and Chinese."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmctl.data.sentences import ends_sentence, join_lines, split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rained.", "We stayed in!", "Why?", "Because."],
        ["Dr. Smith met J. R. Hart on Jan. 5, e.g. at No. 10 in the U.S. Senate.", "Then he left."],
        ["Pi is 3.14, i.e. more than 3.", "See example.com for more."],
        ['"Stop!" he cried.', '"Why?"', "She laughed (a little.)", "Then silence."],
        ["Well... perhaps.", "Wait…", "No."],
        ["1. Open the box.", "Look inside."],
        ["The answer was no.", "He left at 5 p.m. and slept."],
        ["He saw H. americanus , a lobster .", "<unk> was next .", 'He said " go . "', "They went ."],
        ["no end mark at all " * 200],
    ],
)
def test_english(sentences):
    assert split_sentences(" ".join(sentences)) == [sentence.strip() for sentence in sentences]


@pytest.mark.parametrize(
    "sentences",
    [
        ["今天天气很好。", "我们去公园吧！", "好吗？！", "好"],
        ["他说：“走吧。”", "大家（都）走了……", "《红楼梦》是小说；", "很长。"],
        ["「真的吗？」", "他问。"],
        ['他说："走吧。"', "大家走了。"],
        ["真的吗?", "好!", "版本3.14发布。"],
    ],
)
def test_chinese(sentences):
    assert split_sentences("".join(sentences)) == sentences


running_text = st.text(
    st.sampled_from("aB1 中。！？；…,.?!\"'”’」（)\n ") | st.characters(exclude_categories=["Cs"]), max_size=80
)


@given(running_text)
def test_nothing_is_lost_or_added(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)


@given(running_text)
def test_a_sentence_is_not_split_again(text):
    for sentence in split_sentences(text):
        assert split_sentences(sentence) == [sentence]


@pytest.mark.parametrize(
    "line", ["End.", "End .", 'He said "go."', "走了。”", "（好！）", "Really?!", 'so . "', "好……"]
)
def test_final_punctuation(line):
    assert ends_sentence(line)


@pytest.mark.parametrize("line", ["The middle of", "a list:", "first,", "= Heading =", "他说：", ""])
def test_no_final_punctuation(line):
    assert not ends_sentence(line)


def test_joining_puts_no_spaces_into_chinese():
    assert join_lines(["今天天气", "很好，", "我们走"]) == "今天天气很好，我们走"
    assert join_lines([" wrapped ", "", "English"]) == "wrapped English"
    assert join_lines(["我用", "Python", "写"]) == "我用 Python 写"
