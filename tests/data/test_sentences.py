"""Cutting text into sentences, in English and Chinese."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmctl.data import sentences as rules
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


def split_slowly(text: str) -> list[str]:
    """The same rules in their plainest form, which looks at the whole sentence, or at all of the rest, per mark."""
    sentences, start = [], 0
    for mark in rules._MARK.finditer(text):
        if mark.start() < start:
            continue
        end = closers_slowly(text, start, mark)
        if is_break_slowly(text, start, mark, end):
            sentences.append(text[start:end].strip())
            start = end
    return [sentence for sentence in [*sentences, text[start:].strip()] if sentence]


def closers_slowly(text: str, start: int, mark: re.Match[str]) -> int:
    end = mark.end()
    while end < len(text):
        if text[end] in rules._CLOSERS:
            end += 1
            continue
        quote = end + 1 if text[end:].startswith(' " ') or text[end:] == ' "' else end
        if text[quote] != '"' or text[start:end].count('"') % 2 == 0:
            break
        end = quote + 1
    return end


def is_break_slowly(text: str, start: int, mark: re.Match[str], end: int) -> bool:
    rest = text[end : end + 40].lstrip()
    if not rest:
        return True
    if mark[0][0] in "。！？；" or mark[0].startswith("……"):
        return not rules._MARK.match(rest)
    if not text[end].isspace():
        return bool(set(mark[0]) & set("!?")) and rules._WIDE_EDGE.match(rest) is not None
    follower = rest.lstrip("\"'“‘([{<*_-–— ")
    if not follower or rules._MARK.match(follower):
        return False
    if follower[0].islower() and "<" not in rest[: len(rest) - len(follower)]:
        return False
    if mark[0] != ".":
        return True
    before = rules._LAST_WORD.search(text, max(start, mark.start() - 60), mark.start())
    word = before[0] if before else ""
    if word.isdecimal() and not text[start : mark.start() - len(word)].strip():
        return False
    if rules._ABBREVIATION.fullmatch(word) or rules._INITIALS.fullmatch(word):
        return False
    return not (rules._NUMBERED.fullmatch(word) and follower[0].isdigit())


UNITS = [
    *"aB1 中。！？；…,.?!\"'”’」（)\n\t\x85",
    *['"a.","b.",', "1. ", "x. ", '. " ', 'said . " ', "Mr. ", "No. 3 ", "U.S. ", "<unk>", "e.g. ", "。」"],
    *["He left. ", "他说：“走吧。”", '{"a":1.5,"b":"x. Y"},', "…… ", "?! ", "p.m. and ", "( a . ) "],
]


@given(st.lists(st.sampled_from(UNITS), max_size=40).map("".join))
def test_sentences_are_those_of_the_plainest_rules(text):
    assert split_sentences(text) == split_slowly(text)


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


def touched(split, text: str) -> int:
    Touched.work = 0
    split(Touched(text))
    return Touched.work


@settings(deadline=None)  # it is the work that counts, not the time
@given(st.lists(st.sampled_from(UNITS), min_size=1, max_size=6).map("".join), st.integers(400, 2_000))
def test_the_work_is_proportional_to_the_line(unit, times):
    """Whatever a line repeats: quoted cells, numbers with dots, brackets. A look at a mark is 40 characters or so."""
    assert touched(split_sentences, unit * times) <= 100 * len(unit) * times


@pytest.mark.parametrize("unit", ['"a.","b.",', "1. ", "x. ", '"He left. '])
def test_the_work_of_the_plainest_rules_is_not(unit):
    """So the count above can see the difference."""
    assert touched(split_slowly, unit * 2_000) > 200 * len(unit) * 2_000


@pytest.mark.timeout(60)  # seconds are needed, where the plainest rules take hours
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
