"""Text to integers and back: one character a token, or learned byte pairs."""

import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import torch

from helpers.checks import check_kind, check_whole, shown


class CharTokenizer:
    """One token per distinct character. The vocabulary is the sorted characters of a text."""

    def __init__(self, chars):
        check_kind("chars", chars, str | list | tuple, "a text, or a list of characters")
        given, chars = chars, list(chars)
        if not chars:
            raise ValueError("A vocabulary needs at least one character: give a text that has some.")
        single = all(isinstance(c, str) and len(c) == 1 for c in chars)
        if not single or len(set(chars)) != len(chars):
            raise ValueError(
                f"chars={shown(given)} must be distinct single characters, such as sorted(set(text))."
            )
        self.chars = chars
        # A table over code points: encoding is then one array look-up for the whole text, many
        # times faster than a dictionary look-up per character. The last entry is -1, for all beyond.
        self._table = np.full(max(map(ord, chars)) + 2, -1, dtype=np.int64)
        self._table[[ord(c) for c in chars]] = np.arange(len(chars))
        self._codes = np.array([ord(c) for c in chars], dtype=np.uint32)

    @classmethod
    def from_text(cls, text):
        """The tokenizer whose vocabulary is exactly the characters of `text`."""
        check_text(text)
        return cls(sorted(set(text)))

    @property
    def vocab_size(self):
        return len(self.chars)

    def encode(self, text):
        """str -> int64 tensor (N,). Raises ValueError at the first character not in the vocabulary."""
        check_text(text)
        ids = np.empty(len(text), dtype=np.int64)
        # Block by block, so that all that is needed in between stays in the processor's cache.
        for start in range(0, len(text), 1 << 16):
            block = slice(start, start + (1 << 16))
            codes = np.frombuffer(text[block].encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
            # mode="clip": a code beyond the table reads its last entry.
            self._table.take(codes, mode="clip", out=ids[block])
        if ids.min(initial=0) < 0:
            at = int(np.argmax(ids < 0))
            raise ValueError(
                f"The character {text[at]!r} at position {at} is not among the {self.vocab_size} "
                "of the vocabulary: remove it, or build the tokenizer from a text that has it."
            )
        return torch.from_numpy(ids)

    def decode(self, ids):
        """int64 tensor (N,) or list -> str. Raises ValueError if an id is out of range."""
        ids = _checked_ids(ids, self.vocab_size)
        return self._codes[ids].tobytes().decode("utf-32-le", "surrogatepass")


def check_text(text):
    """Raise ValueError unless text is a str; it may be empty."""
    check_kind("text", text, str, "a str")


class BytePairTokenizer:
    """Byte-pair encoding: begin with the 256 bytes, then merge the most frequent pair, again and again.

    Any text can be encoded, since any text is bytes. Merges never cross a word boundary.
    Source: Sennrich et al. 2016 (arXiv:1508.07909); on bytes, Radford et al. 2019 (GPT-2).
    """

    # A piece of text within which pairs may merge: a word with the space before it, or other marks.
    WORDS = re.compile(r" ?\w+| ?[^\s\w]+|\s+")

    def __init__(self, merges):
        check_kind("merges", merges, list | tuple, "a list of pairs, such as BytePairTokenizer.train learns")
        self.merges = [checked_pair(pair, 256 + i) for i, pair in enumerate(merges)]
        self.rank = {pair: i for i, pair in enumerate(self.merges)}
        self.pieces = [bytes([i]) for i in range(256)]
        for left, right in self.merges:
            self.pieces.append(self.pieces[left] + self.pieces[right])
            # Pieces can double with every merge: forty made-up merges would fill any memory.
            if len(self.pieces[-1]) > 1 << 20:
                raise ValueError(f"merges={shown(merges)} makes a piece above 1 MiB: learn them by train.")

    @classmethod
    def train(cls, text, vocab_size):
        """Learn vocab_size - 256 merges from text. Stops early when no pair occurs twice."""
        check_text(text)
        check_whole("vocab_size", vocab_size)
        if vocab_size < 256:
            raise ValueError(f"vocab_size={vocab_size} must be at least 256, one token per byte.")
        counts = Counter(cls.WORDS.findall(text))
        words = [list(word.encode("utf-8", "surrogatepass")) for word in counts]
        weights = list(counts.values())
        pair_count, where = Counter(), defaultdict(set)
        for w, word in enumerate(words):
            for pair in pairwise(word):
                pair_count[pair] += weights[w]
                where[pair].add(w)
        merges = []
        while len(merges) < vocab_size - 256 and pair_count:
            best = max(pair_count, key=lambda pair: (pair_count[pair], pair))
            if pair_count[best] < 2:
                break
            # Only the words that hold the pair change, so only they are counted again.
            for w in list(where[best]):
                for pair in zip(words[w], words[w][1:]):
                    pair_count[pair] -= weights[w]
                    where[pair].discard(w)
                    if pair_count[pair] <= 0:
                        del pair_count[pair]
                words[w] = _merge(words[w], best, 256 + len(merges))
                for pair in zip(words[w], words[w][1:]):
                    pair_count[pair] += weights[w]
                    where[pair].add(w)
            merges.append(best)
        return cls(merges)

    @property
    def vocab_size(self):
        return len(self.pieces)

    def encode(self, text):
        """str -> int64 tensor (N,). Every text can be encoded."""
        check_text(text)
        cache, ids = {}, []
        for word in self.WORDS.findall(text):
            if word not in cache:
                cache[word] = self._encode_word(word)
            ids.extend(cache[word])
        return torch.tensor(ids, dtype=torch.int64)

    def _encode_word(self, word):
        ids = list(word.encode("utf-8", "surrogatepass"))
        while len(ids) > 1:
            # Merges apply in the order in which they were learned.
            pair = min(pairwise(ids), key=lambda pair: self.rank.get(pair, len(self.rank)))
            if pair not in self.rank:
                break
            ids = _merge(ids, pair, 256 + self.rank[pair])
        return ids

    def decode(self, ids):
        """int64 tensor (N,) or list -> str. Bytes that are no UTF-8 show as the replacement character."""
        raw = b"".join(self.pieces[i] for i in _checked_ids(ids, self.vocab_size))
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")


def checked_pair(pair, known):
    """A merge as a tuple of two ids. Raises ValueError unless both are among the `known` pieces so far."""
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(f"merges holds {shown(pair)}, which must be a pair of ids: learn them by train.")
    for i in pair:
        check_whole("An id in merges", i, 0, known - 1)
    return tuple(pair)


def _merge(ids, pair, new_id):
    """ids with each occurrence of pair replaced by new_id, from left to right."""
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _checked_ids(ids, vocab_size):
    try:
        row = np.asarray(ids.cpu() if torch.is_tensor(ids) else ids)
    except (TypeError, ValueError, OverflowError):  # ragged lists, tensors that need a gradient
        row = np.asarray(None)
    if row.size == 0:
        return np.zeros(0, dtype=np.int64)
    if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer):
        raise ValueError(
            f"ids={shown(ids)} must be one row of integers: take one row of idx, such as idx[0]."
        )
    ids = row
    if ids.min() < 0 or ids.max() >= vocab_size:
        bad = int(ids.max() if ids.max() >= vocab_size else ids.min())
        raise ValueError(
            f"The id {bad} is outside the vocabulary of {vocab_size} (0 to {vocab_size - 1}): "
            "decode with the tokenizer that encoded."
        )
    return ids
