"""Text to integers and back: helpers/tokenizer.py."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.tokenizer import BytePairTokenizer, CharTokenizer

ANY_TEXT = st.text(st.characters() | st.sampled_from("ab \n"), max_size=60)
HALVES = "a\ud800 😀\udfff b\ud800"  # halves of characters (lone surrogates), which a string can hold too


# ---------------------------------------------------------------- characters


@example(HALVES)
@given(ANY_TEXT.filter(bool))
def test_characters_round_trip_and_equal_the_dictionary_form(text):
    tokenizer = CharTokenizer.from_text(text)
    to_id = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = tokenizer.encode(text)
    assert ids.dtype == torch.int64 and ids.tolist() == [to_id[c] for c in text]
    assert tokenizer.decode(ids) == tokenizer.decode(ids.tolist()) == text
    assert tokenizer.vocab_size == len(tokenizer.chars) == len(to_id)


@given(st.sampled_from(["ab", "\n z", "é😀"]), ANY_TEXT)
def test_unknown_characters_are_named_with_their_position(known, text):
    tokenizer = CharTokenizer.from_text(known)
    at = next((i for i, c in enumerate(text) if c not in known), None)
    if at is None:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        return
    with pytest.raises(ValueError) as caught:
        tokenizer.encode(text)
    assert f"{text[at]!r} at position {at} is not among the {tokenizer.vocab_size}" in str(caught.value)


def test_a_text_of_several_blocks_is_encoded_to_its_end(text, tokenizer):
    for n in (2**16 - 1, 2**16, 2**16 + 1, 2**17 + 5):
        long = (text * 7)[:n]
        assert tokenizer.decode(tokenizer.encode(long)) == long
        with pytest.raises(ValueError, match=f"'é' at position {n} "):
            tokenizer.encode(long + "é" + text)


def test_the_empty_text_is_no_tokens(tokenizer):
    ids = tokenizer.encode("")
    assert ids.shape == (0,) and ids.dtype == torch.int64
    assert tokenizer.decode(ids) == tokenizer.decode([]) == ""


def test_the_vocabulary_of_the_plays_is_sorted(text, tokenizer):
    assert tokenizer.chars == sorted(set(text)) and tokenizer.chars[0] == "\n"


# ---------------------------------------------------------------- byte pairs


@pytest.fixture(scope="module")
def pairs(text):
    return BytePairTokenizer.train(text, 400)


def test_byte_pairs_round_trip_on_any_text(pairs):
    @example(HALVES * 3, 12)
    @given(ANY_TEXT, st.integers(0, 12))
    def check(text, merges):
        own = BytePairTokenizer.train(text, 256 + merges)
        again = BytePairTokenizer([list(pair) for pair in own.merges])  # as a checkpoint holds them
        for tokenizer in (pairs, own, again):
            ids = tokenizer.encode(text)
            assert ids.dtype == torch.int64 and tokenizer.decode(ids) == text
            assert len(ids) <= len(text.encode("utf-8", "surrogatepass")), "never longer than the bytes"
        assert ids.tolist() == own.encode(text).tolist()

    check()


def test_merges_may_begin_with_any_byte():
    assert BytePairTokenizer([(0, 97), (256, 0)]).decode([257]) == "\0a\0"


def test_byte_pairs_round_trip_and_shorten_what_they_learned(text, pairs):
    ids = pairs.encode(text)
    assert pairs.decode(ids) == text
    assert len(ids) < 0.7 * len(text)
    assert ids.max() == pairs.vocab_size - 1 == 399, "every merge is in use, the last one too"


def slow_train(text, vocab_size):
    """The definition: count all pairs within words, merge the most frequent, begin again."""
    words = [list(word.encode("utf-8")) for word in BytePairTokenizer.WORDS.findall(text)]
    merges = []
    while len(merges) < vocab_size - 256:
        counts = Counter(pair for word in words for pair in pairwise(word))
        best = max(counts, key=lambda pair: (counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        new = 256 + len(merges)
        merges.append(best)
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [new]
                i += 1
    return merges, [token for word in words for token in word]


@pytest.mark.parametrize("sample", [None, "aaaa aaaa aaa aa a", "ab ab cab abab\n\n\n abc", "élève élevé"])
def test_merges_are_learned_and_applied_greedily(text, sample):
    sample = text[:3000] if sample is None else sample
    merges, tokens = slow_train(sample, 300)
    tokenizer = BytePairTokenizer.train(sample, 300)
    assert tokenizer.merges == merges
    assert tokenizer.encode(sample).tolist() == tokens, "encoding repeats the merges in their order"


def test_the_first_merge_is_the_most_frequent_pair():
    tokenizer = BytePairTokenizer.train("xyxyxyab", 257)
    assert tokenizer.merges == [(ord("x"), ord("y"))]
    assert tokenizer.encode("xyx").tolist() == [256, ord("x")]


def test_merges_never_cross_words(pairs):
    for piece in pairs.pieces[256:]:
        word = piece.decode("utf-8", "replace")
        assert " " not in word[1:] or not word.strip(), f"{word!r} spans two words"


def test_vocabulary_size_is_as_asked_or_as_the_text_allows():
    assert BytePairTokenizer.train("abcd " * 9, 256).vocab_size == 256
    assert BytePairTokenizer.train("abcd " * 9, 258).vocab_size == 258
    assert BytePairTokenizer.train("abcdefg", 500).vocab_size == 256, "no pair occurs twice"
    assert BytePairTokenizer.train("", 500).vocab_size == 256


def test_bytes_that_are_no_utf8_are_shown_as_replacement_characters(pairs):
    assert pairs.decode([0x61, 0xC3, 0x62]) == "a\N{REPLACEMENT CHARACTER}b"
    assert pairs.decode([]) == ""
