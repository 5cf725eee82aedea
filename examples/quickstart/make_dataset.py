#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Chat rows from WordNet 3.0 (Debian: wordnet-base): a word is asked for, its gloss is the answer.

Writes train.jsonl and eval.jsonl. The rows depend on the dictionary and the sizes only. No gloss
and no word of eval.jsonl occurs in train.jsonl, so that a loss on it measures what was learned of
the form, not what was remembered.
"""
import argparse
import hashlib
import json
import os
import sys

FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
KINDS = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}
MIN_WORDS, MAX_WORDS = 4, 30


def parse_synset(line):
    """One line of data.*: (id, kind, words, definition); None if it is of no use here."""
    head, bar, gloss = line.partition("|")
    fields = head.split()
    if not bar or len(fields) < 6 or fields[2] not in KINDS:
        return None
    words = []
    for i in range(int(fields[3], 16)):
        # An adjective's place in the sentence stands behind it in brackets: "galore(ip)".
        word = fields[4 + 2 * i].split("(")[0].replace("_", " ")
        if word not in words:
            words.append(word)
    definition = gloss.strip()
    # Examples follow the definition in quotes, behind a semicolon.
    for mark in ('; "', ';"'):
        definition = definition.split(mark)[0]
    definition = definition.strip().rstrip(";").strip()
    return (fields[2] + fields[0], KINDS[fields[2]], words, definition)


def read_synsets(directory):
    synsets = []
    for name in FILES:
        with open(os.path.join(directory, name), encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("  "):  # the licence
                    continue
                synset = parse_synset(line)
                if synset is None:
                    continue
                definition = synset[3]
                size = len(definition.split())
                if MIN_WORDS <= size <= MAX_WORDS and '"' not in definition:
                    synsets.append(synset)
    return synsets


def order_key(synset):
    """A fixed shuffle: no generator's state, the same order everywhere."""
    return hashlib.sha256(synset[0].encode()).hexdigest()


def fold(text):
    return " ".join(text.lower().split())


def row(synset):
    _, kind, words, definition = synset
    question = 'Define the %s "%s".' % (kind, words[0])
    messages = [{"role": "user", "content": question},
                {"role": "assistant", "content": definition}]
    return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"


def choose(synsets, train_size, eval_size):
    """The first synsets in the fixed order train, later ones that share nothing with them are held
    out. Two rows of one file never have the same question or the same answer."""
    train, held = [], []
    glosses, words, asked = set(), set(), set()
    for synset in sorted(synsets, key=order_key):
        gloss, names = fold(synset[3]), {fold(word) for word in synset[2]}
        question = (synset[1], fold(synset[2][0]))
        if gloss in glosses or question in asked:
            continue
        if len(train) < train_size:
            train.append(synset)
            words |= names
        elif len(held) == eval_size:
            break
        elif not names & words:
            held.append(synset)
        else:
            continue
        glosses.add(gloss)
        asked.add(question)
    if len(train) < train_size or len(held) < eval_size:
        sys.exit("make_dataset.py: the dictionary gives %d and %d rows, %d and %d were asked for"
                 % (len(train), len(held), train_size, eval_size))
    return train, held


def write(path, content):
    """An existing file stays unless it is the same already."""
    if os.path.exists(path):
        with open(path, "rb") as old:
            if old.read() == content:
                return
        sys.exit("make_dataset.py: %s exists and differs; remove it or choose another --output"
                 % path)
    temporary = path + ".tmp"
    with open(temporary, "wb") as new:
        new.write(content)
    os.replace(temporary, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wordnet", default="/usr/share/wordnet", help="directory of data.noun ...")
    parser.add_argument("--output", default=".", help="directory of train.jsonl and eval.jsonl")
    parser.add_argument("--train", type=int, default=4000, help="rows of train.jsonl")
    parser.add_argument("--eval", type=int, default=200, help="rows of eval.jsonl")
    options = parser.parse_args()
    if options.train < 1 or options.eval < 0:
        parser.error("--train must be at least 1, --eval at least 0")
    try:
        synsets = read_synsets(options.wordnet)
    except OSError as error:
        sys.exit("make_dataset.py: %s (WordNet 3.0; Debian package wordnet-base)" % error)
    train, held = choose(synsets, options.train, options.eval)
    os.makedirs(options.output, exist_ok=True)
    for name, part in (("train.jsonl", train), ("eval.jsonl", held)):
        path = os.path.join(options.output, name)
        write(path, "".join(map(row, part)).encode())
        print("%s: %d rows" % (path, len(part)))


if __name__ == "__main__":
    main()
