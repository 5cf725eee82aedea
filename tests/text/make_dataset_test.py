# SPDX-License-Identifier: Apache-2.0
"""examples/quickstart/make_dataset.py: sizes, no leak, determinism, no overwriting, errors."""
import json
import os
import subprocess
import sys
import tempfile

SCRIPT = sys.argv[1]
WORDNET = os.environ.get("NIBBLE_WORDNET_DIR", "/usr/share/wordnet")
SKIP = 77

# A dictionary in which leaks are bound to happen: ten words, and glosses that repeat.
TINY = "  1 a line of the licence\n" + "".join(
    "%08d 03 n 02 word_%d 0 other%d 0 000 | definition number %d of these; \"an example\"; \"b\"\n"
    % (i, i % 10, i, i % 25) for i in range(60))


def run(*arguments):
    return subprocess.run([sys.executable, "-B", SCRIPT, *arguments], capture_output=True,
                          text=True)


def rows(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            user, assistant = json.loads(line)["messages"]
            assert (user["role"], assistant["role"]) == ("user", "assistant")
            word = user["content"].split('"')[1]
            assert user["content"].endswith('"%s".' % word) and word and "_" not in word, user
            answer = assistant["content"]
            assert answer == answer.strip() and '"' not in answer and ";" != answer[-1:], answer
            assert 4 <= len(answer.split()) <= 30, answer
            yield user["content"].lower(), word.lower(), answer.lower()


def check(directory, train_size, eval_size):
    train = list(rows(os.path.join(directory, "train.jsonl")))
    held = list(rows(os.path.join(directory, "eval.jsonl")))
    assert (len(train), len(held)) == (train_size, eval_size), (len(train), len(held))
    for column in (1, 2):  # words, glosses
        shared = {r[column] for r in train} & {r[column] for r in held}
        assert not shared, shared
    for part in (train, held):
        assert len({r[0] for r in part}) == len({r[2] for r in part}) == len(part)


def read(directory, name):
    with open(os.path.join(directory, name), "rb") as file:
        return file.read()


def test_tiny(scratch):
    source = os.path.join(scratch, "tiny")
    os.makedirs(source)
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        with open(os.path.join(source, name), "w", encoding="utf-8") as file:
            file.write(TINY if name == "data.noun" else "")
    out = os.path.join(scratch, "tiny-out")
    done = run("--wordnet", source, "--output", out, "--train", "4", "--eval", "3")
    assert done.returncode == 0, done.stderr
    check(out, 4, 3)
    too_much = run("--wordnet", source, "--output", out, "--train", "9", "--eval", "9")
    assert too_much.returncode != 0 and "were asked for" in too_much.stderr, too_much
    absent = run("--wordnet", os.path.join(scratch, "none"), "--output", out)
    assert absent.returncode != 0 and "wordnet-base" in absent.stderr, absent


def test_wordnet(scratch):
    first, second = os.path.join(scratch, "a"), os.path.join(scratch, "b")
    for out in (first, first, second):  # the second time over its own equal files
        done = run("--wordnet", WORDNET, "--output", out)
        assert done.returncode == 0, done.stderr
    check(first, 4000, 200)
    for name in ("train.jsonl", "eval.jsonl"):
        assert read(first, name) == read(second, name)
    before = read(first, "train.jsonl")
    other = run("--wordnet", WORDNET, "--output", first, "--train", "10", "--eval", "5")
    assert other.returncode != 0 and "exists and differs" in other.stderr, other
    assert read(first, "train.jsonl") == before


with tempfile.TemporaryDirectory() as directory:
    test_tiny(directory)
    if not os.path.exists(os.path.join(WORDNET, "data.noun")):
        print("SKIPPED: no WordNet in %s (Debian package wordnet-base)" % WORDNET)
        sys.exit(SKIP)
    test_wordnet(directory)
print("make_dataset.py: all checks passed")
