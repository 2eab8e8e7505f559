"""Byte pairs beside Hugging Face's tokenizers, the oracle: the same pieces, in order, and the same cuts."""

import ast
import re
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from test_page_08 import value_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from helpers.program.gpt2 import BYTE_LETTERS, LIBRARY_WORDS, byte_letters
from helpers.tokenizer import BytePairTokenizer, PairCounts

OTHERS = """Съешь ещё этих мягких французских булок, да выпей чаю. Съешь ещё! Ещё чаю, ещё булок.
Η ζωή είναι ωραία, η ζωή είναι μικρή. 吾輩は猫である。名前はまだ無い。名前は無い。猫である。
हिन्दी में हिन्दी की हिन्दी। שלום עולם שלום 👩‍👩‍👧 👩‍👧 🙂🙂🙂 1,234 ½ x² 1984\t\n\n  naïve façade"""
RUNS = "aaaa aaa aa a aaaaa\n\n\n\n   aaaa bbbabab ababab abab"
LETTER_IDS = {byte: i for i, byte in enumerate(BYTE_LETTERS)}  # GPT-2 numbers the bytes so


def their_ids(ids):
    """Our ids, bytes in their own order and then merges, as GPT-2's numbering has them."""
    return [LETTER_IDS.get(i, i) for i in ids]


@pytest.fixture
def their_tie(monkeypatch):
    """Of equally frequent pairs the library takes the one with the smallest ids, in its numbering."""
    monkeypatch.setattr(PairCounts, "tie", staticmethod(lambda pair: tuple(their_ids(pair))))


def library(text, vocab_size):
    """A byte-level tokenizer of the library, trained on the words of the course."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(BytePairTokenizer.WORDS.findall(text), trainer)
    return made


def pieces_of(theirs):
    """The pieces of a tokenizer of the library as bytes, in the order of their ids."""
    byte_of = {letter: byte for byte, letter in BYTE_LETTERS.items()}
    vocabulary = sorted(theirs.get_vocab().items(), key=lambda item: item[1])
    assert [i for _, i in vocabulary] == list(range(len(vocabulary)))
    return [bytes(byte_of[letter] for letter in piece) for piece, _ in vocabulary]


@pytest.mark.parametrize("sample", ["plays", "others", "runs"])
def test_the_library_learns_the_same_pieces_and_cuts_alike(text, their_tie, sample):
    sample = {"plays": text, "others": OTHERS, "runs": RUNS}[sample]
    ours, theirs = BytePairTokenizer.train(sample, 700), library(sample, 700)
    letters = [bytes([byte]) for byte in BYTE_LETTERS]
    assert pieces_of(theirs) == letters + ours.pieces[256:]
    assert len(ours.merges) > 5
    for other in (text[:2000], OTHERS, RUNS):
        words = BytePairTokenizer.WORDS.findall(other)
        expected = [i for word in words for i in theirs.encode(word).ids]
        assert their_ids(ours.encode(other).tolist()) == expected


def test_without_their_tie_rule_the_order_differs(text):
    ours, theirs = BytePairTokenizer.train(text, 700), library(text, 700)
    assert ours.pieces[256:] != pieces_of(theirs)[256:], "else the rule above proves nothing"


@pytest.fixture(scope="module")
def pair_of_tokenizers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PairCounts, "tie", staticmethod(lambda pair: tuple(their_ids(pair))))
        yield BytePairTokenizer.train(OTHERS, 400), library(OTHERS, 400)


def test_any_text_is_cut_alike(pair_of_tokenizers):
    ours, theirs = pair_of_tokenizers

    @given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("ещё \n猫a"), max_size=40))
    def check(text):
        words = BytePairTokenizer.WORDS.findall(text)
        assert their_ids(ours.encode(text).tolist()) == [i for w in words for i in theirs.encode(w).ids]

    check()


def test_any_bytes_read_alike(pair_of_tokenizers):
    ours, theirs = pair_of_tokenizers

    @given(st.lists(st.integers(0, ours.vocab_size - 1), max_size=30))
    def check(ids):
        raw = b"".join(ours.pieces[i] for i in ids)
        if b"\xed" not in raw:  # may begin half a character, which a str can hold and the library cannot
            assert ours.decode(ids) == theirs.decode(their_ids(ids), skip_special_tokens=False)

    check()


# ---------------------------------------------------------------- letters for bytes, and words


def test_the_letters_of_bytes_are_those_of_the_library():
    assert sorted(BYTE_LETTERS) == list(range(256))
    assert set(BYTE_LETTERS.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in (OTHERS, "".join(map(chr, range(0x250)))):
        assert level.pre_tokenize_str(text)[0][0] == byte_letters(text.encode())


ASSIGNED = [chr(i) for i in range(0x30000) if unicodedata.category(chr(i)) not in ("Cn", "Cs", "Co")]
IN_CONTEXT = "".join(f"a{c}1 {c}'s{c}{c}  {c}\n" for c in [*ASSIGNED[:3000], *ASSIGNED[3000::50]])


def test_the_splitting_pattern_of_gpt2_on_page_08_is_the_librarys():
    pattern = ast.literal_eval(value_of("GPT2_WORDS").removeprefix("regex.compile(")[:-1])
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    for text in (OTHERS, RUNS, "we'll say it's 12 o'clock ", IN_CONTEXT):
        theirs = [text[a:b] for _, (a, b) in level.pre_tokenize_str(text)]
        assert regex.findall(pattern, text) == theirs and "".join(theirs) == text


def test_the_words_of_the_course_in_the_librarys_language():
    from tokenizers import Regex

    split = pre_tokenizers.Split(Regex(LIBRARY_WORDS), "isolated")
    for text in (OTHERS, RUNS, "a\x1cb \x85c_d", IN_CONTEXT):
        theirs = [text[a:b] for _, (a, b) in split.pre_tokenize_str(text)]
        assert BytePairTokenizer.WORDS.findall(text) == theirs
    assert re.sub(BytePairTokenizer.WORDS, "", IN_CONTEXT) == "", "every character is in some word"
