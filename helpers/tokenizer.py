"""Text to integers and back: one character a token, or learned byte pairs."""

import heapq
import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import torch

from helpers.checks import shown

# ---------------------------------------------------------------- characters


class CharTokenizer:
    """One token per distinct character. The vocabulary is the sorted characters of a text."""

    def __init__(self, chars):
        self.chars = list(chars)
        single = all(isinstance(c, str) and len(c) == 1 for c in self.chars)
        if not self.chars or not single or len(set(self.chars)) != len(self.chars):
            raise ValueError(
                f"chars={shown(chars)} must be distinct single characters, such as sorted(set(text))."
            )
        # A table over code points: encoding is then one array look-up for the whole text, many
        # times faster than a dictionary look-up per character. The last entry is -1, for all beyond.
        self._codes = np.array([ord(c) for c in self.chars], dtype=np.uint32)
        self._table = np.full(self._codes.max() + 2, -1, dtype=np.int64)
        self._table[self._codes] = np.arange(len(self.chars))

    @classmethod
    def from_text(cls, text):
        """The tokenizer whose vocabulary is exactly the characters of `text`."""
        return cls(sorted(set(text)))

    @property
    def vocab_size(self):
        return len(self.chars)

    def encode(self, text):
        """str -> int64 tensor (N,). Raises ValueError at the first character not in the vocabulary."""
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
        """int64 tensor (N,) or list of ids -> str."""
        ids = torch.as_tensor(ids, dtype=torch.int64).cpu().numpy()
        return self._codes[ids].tobytes().decode("utf-32-le", "surrogatepass")


# ---------------------------------------------------------------- byte pairs


class BytePairTokenizer:
    """Byte-pair encoding: begin with the 256 bytes, then merge the most frequent pair, again and again.

    Any text can be encoded, since any text is bytes. Merges never cross a word boundary.
    Source: Sennrich et al. 2016 (arXiv:1508.07909); on bytes, Radford et al. 2019 (GPT-2).
    """

    # A piece of text within which pairs may merge: a word with the space before it, or other marks.
    WORDS = re.compile(r" ?\w+| ?[^\s\w]+|\s+")

    def __init__(self, merges):
        self.merges = [tuple(pair) for pair in merges]
        self.rank = {pair: i for i, pair in enumerate(self.merges)}
        self.pieces = [bytes([i]) for i in range(256)]
        size = 0  # of all pieces together, in bytes
        for pair in self.merges:
            # Merges may come from a file, where anything can stand; and pieces can double with every
            # merge, so that forty made-up ones would fill any memory.
            known = len(pair) == 2 and all(type(i) is int and 0 <= i < len(self.pieces) for i in pair)
            size += sum(len(self.pieces[i]) for i in pair) if known else 0
            if not known or size > 1 << 24:
                raise ValueError(f"merges holds {shown(pair)}, which makes no piece: learn them by train.")
            self.pieces.append(self.pieces[pair[0]] + self.pieces[pair[1]])

    @classmethod
    def train(cls, text, vocab_size):
        """Learn vocab_size - 256 merges from text. Stops early when no pair occurs twice."""
        counts = PairCounts(Counter(cls.WORDS.findall(text)))
        merges = []
        while len(merges) < vocab_size - 256:
            pair, times = counts.most_frequent()
            if times < 2:
                break
            counts.merge(pair, 256 + len(merges))
            merges.append(pair)
        return cls(merges)

    @property
    def vocab_size(self):
        return len(self.pieces)

    def encode(self, text):
        """str -> int64 tensor (N,). Every text can be encoded."""
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
            ids = merge_pair(ids, pair, 256 + self.rank[pair])
        return ids

    def decode(self, ids):
        """int64 tensor (N,) or list of ids -> str. Bytes that are no UTF-8 become replacement characters."""
        raw = b"".join(self.pieces[i] for i in torch.as_tensor(ids, dtype=torch.int64).tolist())
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")


def merge_pair(ids, pair, new_id):
    """ids, a list, with each occurrence of pair replaced by new_id, from left to right."""
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


class PairCounts:
    """How often each pair of neighbours occurs in the words of a text, kept up to date through merges.

    What makes it fast: a word that occurs a thousand times is stored once, with its count; a merge changes
    only the words that hold the pair, so only those are counted again; and the pairs stand in a heap, so
    that the most frequent one need not be looked for among all.
    """

    def __init__(self, words):
        """words: a Counter from word (str) to how often it occurs."""
        self.words = [list(word.encode("utf-8", "surrogatepass")) for word in words]
        self.times = list(words.values())
        self.count = Counter()  # of each pair, over the whole text
        self.holders = defaultdict(set)  # the words (their numbers) in which a pair occurs
        for w in range(len(self.words)):
            self._count_word(w)
        self.heap = [self._entry(pair) for pair in self.count]
        heapq.heapify(self.heap)

    @staticmethod
    def tie(pair):
        """Of pairs that occur equally often the one goes first for which this is smallest: largest ids."""
        return -pair[0], -pair[1]

    def most_frequent(self):
        """(pair, times) of the pair that occurs most often, of equals the largest; 0 times: none is left."""
        while self.heap:
            times, _, pair = self.heap[0]
            if -times == self.count[pair]:
                return pair, -times
            heapq.heappop(self.heap)  # out of date: it was pushed again when its count changed
        return None, 0

    def merge(self, pair, new_id):
        """Replace the pair by new_id wherever it occurs."""
        changed = set()
        for w in list(self.holders[pair]):
            changed.update(pairwise(self.words[w]))
            self._forget_word(w)
            self.words[w] = merge_pair(self.words[w], pair, new_id)
            self._count_word(w)
            changed.update(pairwise(self.words[w]))
        for other in changed & self.count.keys():
            heapq.heappush(self.heap, self._entry(other))

    def _entry(self, pair):
        """A pair in the heap, whose smallest entry comes first."""
        return -self.count[pair], self.tie(pair), pair

    def _count_word(self, w):
        for pair in pairwise(self.words[w]):
            self.count[pair] += self.times[w]
            self.holders[pair].add(w)

    def _forget_word(self, w):
        for pair in pairwise(self.words[w]):
            self.count[pair] -= self.times[w]
            self.holders[pair].discard(w)
            if self.count[pair] <= 0:
                del self.count[pair]
