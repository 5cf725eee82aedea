# SPDX-License-Identifier: Apache-2.0
"""The tokenizer and the chat templates against their peers: text_oracle.py BUILD_DIR MODEL.gguf [COUNT]

Hugging Face's `tokenizers`, built from the GGUF's own vocabulary and merges, must give the ids of
text_dump on COUNT random texts (default 6000); jinja2 must render the model's own template, and
other spellings of it, to the same text. Needs: gguf, tokenizers, jinja2, numpy.
"""
import json
import random
import subprocess
import sys
import unicodedata

import jinja2
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL, USER_DEFINED = 3, 4
PLAIN_CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
                "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt "
                "%}{{ '<|im_start|>assistant\n' }}{% endif %}")
SPELLINGS = [
    PLAIN_CHATML,
    # Qwen2's: the condition before the loop, members by name, double quotes, ~.
    "{%- if messages[0].role != 'system' %}{{ \"<|im_start|>system\\nYou are it's \\\"one\\\"."
    "<|im_end|>\\n\" }}{% endif %}{% for message in messages %}{{ '<|im_start|>' ~ message.role ~ "
    "'\\n' ~ message.content ~ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    + PLAIN_CHATML,
    # Blanks and newlines around tags, with and without the signs that eat them.
    "\n  {%- for message in messages -%}\n  {{- '<|im_start|>' + message['role'] }}\n\n"
    "{{- '\\n' + message['content'] -}}\n<|im_end|>{{ '\\n' }}\n   {%- endfor %}\n"
    "  {% if add_generation_prompt %}\n{{ '<|im_start|>' -}} assistant{{ '\\n' }}\n"
    "{%- endif %}\n",
    "{% for message in messages %}\n    {% if loop.first and messages[0].role != \"system\" %}\n"
    "{{ '<|im_start|>system\\nBe good.<|im_end|>\\n' }}{%- endif %}\n"
    "{{- '<|im_start|>' + message.role + '\\n' }}{{ message.content }}{{ '<|im_end|>' }}\n"
    "  {% endfor %}\n{% if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}\n",
]


def field(reader, key):
    return reader.fields[key].contents()


class Peer:
    """Hugging Face's tokenizer with the GGUF's vocabulary: digits apart, then GPT-2's expression."""

    def __init__(self, reader):
        tokens = field(reader, "tokenizer.ggml.tokens")
        types = field(reader, "tokenizer.ggml.token_type")
        merges = [tuple(m.split(" ")) for m in field(reader, "tokenizer.ggml.merges")]
        vocabulary = {token: i for i, token in enumerate(tokens)}
        self.special = [t for t, kind in zip(tokens, types) if kind in (CONTROL, USER_DEFINED)]
        self.plain, self.parsing = (self.build(vocabulary, merges) for _ in range(2))
        self.parsing.add_special_tokens(
            [AddedToken(t, special=True, normalized=False) for t in self.special])
        alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        written = {b: alphabet.pre_tokenize_str(chr(b))[0][0] for b in range(128)}
        self.missing = {chr(b) for b, text in written.items() if text not in vocabulary}

    @staticmethod
    def build(vocabulary, merges):
        peer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        peer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
        peer.decoder = decoders.ByteLevel()
        return peer

    def encode(self, text, special):
        return (self.parsing if special else self.plain).encode(text, add_special_tokens=False)


def code_points(missing):
    """Assigned code points by category. Left out: bytes that the vocabulary lacks (the peer merges
    across them, llama.cpp and nibble do not) and what this Python's Unicode does not know."""
    groups = {}
    for code in range(0x30000):
        c = chr(code)
        category = unicodedata.category(c)
        if category not in ("Cs", "Cn", "Co") and c not in missing:
            groups.setdefault(category, []).append(c)
    return list(groups.values())


def random_texts(rng, groups, special, count):
    spaces = [c for c in map(chr, range(0x3001)) if c.isspace() and ord(c) not in range(0x1c, 0x20)]
    pieces = [
        lambda: rng.choice(rng.choice(groups)),
        lambda: "".join(rng.choice(rng.choice(groups)) for _ in range(rng.randint(1, 6))),
        lambda: rng.choice(spaces) * rng.randint(1, 4),
        lambda: " " * rng.choice((1, 1, 1, 2, 3, 8, 33)),
        lambda: "".join(rng.choice(" \t\n\r") for _ in range(rng.randint(1, 5))),
        lambda: str(rng.randrange(10 ** rng.randint(1, 12))),
        lambda: rng.choice(("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'", "''", "\u2019s")),
        lambda: rng.choice(("the", " of", "Hello", " world", "int main() {", "\n\n", "==", "...")),
        lambda: rng.choice(special),
        lambda: (lambda t: t[:rng.randint(1, len(t))])(rng.choice(special)),
        lambda: rng.choice(("\U0001F469\u200d\U0001F680", "\U0001F1E9\U0001F1EA", "e\u0301", "\ufeff")),
        lambda: "".join(chr(rng.randint(33, 126)) for _ in range(rng.randint(1, 12))),
        lambda: rng.choice("abc \n7\u4e2d") * rng.randint(1, 200),
    ]
    for _ in range(count):
        yield "".join(rng.choice(pieces)() for _ in range(rng.randint(1, 12)))


def conversations(rng, groups, special, count):
    texts = random_texts(rng, groups, [s for s in special if "im_" not in s], count * 6)
    for _ in range(count):
        messages = [{"role": rng.choice(("user", "assistant", "tool")), "content": next(texts)}
                    for _ in range(rng.randint(1, 5))]
        if rng.random() < 0.4:
            messages.insert(0, {"role": "system", "content": next(texts)})
        if not any(m in x["content"] for x in messages for m in ("<|im_start|>", "<|im_end|>")):
            yield messages


class Score:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, ours, expected):
        if ours == expected:
            self.passed += 1
            return
        self.failed += 1
        if self.failed <= 10:
            shown = tuple(repr(x)[:400] for x in (what, ours, expected))
            print("FAILED %s\n  ours     %s\n  expected %s" % shown)


def ask(program, model, questions):
    lines = "".join(json.dumps(q) + "\n" for q in questions)
    answer = subprocess.run([program, model], input=lines, capture_output=True, text=True,
                            check=True)
    answers = [json.loads(line) for line in answer.stdout.split("\n")[:-1]]
    assert len(answers) == len(questions), (len(answers), len(questions))
    return answers


def check_tokenizer(score, program, model, peer, texts):
    questions = [{"op": "encode", "text": t, "special": s} for t in texts for s in (True, False)]
    answers = ask(program, model, questions)
    for question, answer in zip(questions, answers):
        expected = peer.encode(question["text"], question["special"])
        score.check(question, answer.get("ids"), expected.ids)
        raw = question["text"].encode()
        begin, end = answer.get("begin", []), answer.get("end", [])
        # Without missing bytes the tokens follow each other and cover the text.
        score.check(("offsets", question), ([0] + end, answer.get("dropped")),
                    (begin + [len(raw)], 0))
    decoded = ask(program, model, [{"op": "decode", "ids": a.get("ids", [])} for a in answers])
    for question, answer in zip(questions, decoded):
        score.check(("decode", question), answer.get("hex"), question["text"].encode().hex())


def check_templates(score, program, model, templates, chats):
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    questions, expected = [], []
    for source in templates:
        compiled = environment.from_string(source)
        for i, messages in enumerate(chats):
            prompt = i % 2 == 0
            questions.append({"op": "render", "template": source, "messages": messages,
                              "prompt": prompt})
            expected.append(compiled.render(messages=messages, add_generation_prompt=prompt))
    for question, answer, text in zip(questions, ask(program, model, questions), expected):
        score.check(question, answer.get("text", answer), text)
        raw = answer.get("text", "").encode()
        ours = [raw[b:e].decode() for b, e in answer.get("spans", [])]
        score.check(("spans", question), ours,
                    [m["content"] + "<|im_end|>" for m in question["messages"]
                     if m["role"] == "assistant"])


def main():
    build, model = sys.argv[1], sys.argv[2]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 6000
    program = build + "/tests/text/text_dump"
    reader = GGUFReader(model)
    peer = Peer(reader)
    rng = random.Random(20240607)
    groups = code_points(peer.missing)
    score = Score()
    every = ["".join(g[i:i + 40]) for g in groups for i in range(0, len(g), 40)]
    spaced = [" ".join(g[i:i + 5]) for g in groups for i in range(0, len(g), 97)]
    texts = every + spaced + list(random_texts(rng, groups, peer.special, count))
    check_tokenizer(score, program, model, peer, texts)
    chats = list(conversations(rng, groups, peer.special, max(1, count // 10)))
    own = field(reader, "tokenizer.chat_template")
    check_templates(score, program, model, [own] + SPELLINGS, chats)
    print("%d passed, %d failed" % (score.passed, score.failed))
    return 0 if score.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
