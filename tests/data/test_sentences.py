"""Cutting text into sentences, in English and Chinese."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
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
        ["1. Open the box.", "2. Look inside.", "3. Close it."],
        ["The answer was no.", "He left at 5 p.m. and slept."],
        ["He saw H. americanus , a lobster .", "<unk> was next .", 'He said " go . "', "They went ."],
        ["It ended. – so they say.", '"“(([Then it began.', "He met Messrs. Smith and Hart.", "And Mr...", "Who?"],
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
        ["他说“好。”！", "然后走了。"],
        ['他说："走吧。"', "大家走了。"],
        ["真的吗?", "好!", "版本3.14发布。"],
    ],
)
def test_chinese(sentences):
    assert split_sentences("".join(sentences)) == sentences


UNITS = [
    *"aB1 中。！？；…,.?!\"'”’」（)\n\t\x85",
    *['"a.","b.",', "1. ", "x. ", '. " ', 'said . " ', "Mr. ", "No. 3 ", "U.S. ", "<unk>", "e.g. ", "。」"],
    *["He left. ", "他说：“走吧。”", '{"a":1.5,"b":"x. Y"},', "…… ", "?! ", "p.m. and ", "( a . ) "],
]


running_text = st.text(
    st.sampled_from("aB1 中。！？；…,.?!\"'”’」（)\n ") | st.characters(exclude_categories=["Cs"]), max_size=80
) | st.lists(st.sampled_from(UNITS), max_size=40).map("".join)


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


class Touched(str):
    """Text that counts the characters which are copied out of it or searched."""

    work = 0

    def __getitem__(self, place):
        got = str.__getitem__(self, place)
        Touched.work += len(got)
        return got

    def count(self, what, *ends):
        start, end, _ = slice(*ends).indices(len(self))
        Touched.work += end - start
        return str.count(self, what, *ends)


@settings(deadline=None)  # it is the work that counts, not the time
@given(st.lists(st.sampled_from(UNITS), min_size=1, max_size=6).map("".join), st.integers(400, 2_000))
def test_the_work_is_proportional_to_the_line(unit, times):
    """Whatever a line repeats: quoted cells, numbers with dots, brackets. A look at a mark is 40 characters or so."""
    Touched.work = 0
    split_sentences(Touched(unit * times))
    assert 0 < Touched.work <= 100 * len(unit) * times


@pytest.mark.timeout(60)  # seconds are needed; rules that look at the whole line per mark take hours
@pytest.mark.parametrize(
    "unit", ['"a.","b.",', '{"a":1.5,"b":"He left. We","c":["1. x",2.0]},', "（他说：“走吧。”）1. "]
)
def test_a_line_of_megabytes(unit):
    sentences = split_sentences(unit * (2_000_000 // len(unit)))
    assert sum(map(len, sentences)) >= 1_900_000


@given(st.lists(st.sampled_from(["", " ", "a", "b c", "中文", "，", " x "]), max_size=12))
def test_joined_lines_have_all_their_characters(lines):
    joined = join_lines(lines)
    assert "".join(joined.split()) == "".join("".join(lines).split())
    assert joined == joined.strip()
