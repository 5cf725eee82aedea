# SPDX-License-Identifier: Apache-2.0
"""A tiny llama model with random weights, as a GGUF written by hand: the command's tests need no
download and no package, and the writer is not the library's own.

tiny_model.py FILE writes it; write(FILE, **changes) also writes models that are wrong on purpose.
"""
import random
import struct
import sys

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
TYPE_F32, TYPE_Q4_1, TYPE_Q8_0 = 0, 3, 8
WIDTH, HEADS, KV_HEADS, FEED_FORWARD, LAYERS, CONTEXT = 64, 4, 2, 96, 2, 256
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
          "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|im_start|>assistant\n' }}{% endif %}")


def alphabet():
    """GPT-2's: every byte as a printable character."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    letters = {b: chr(b) for b in printable}
    letters.update({b: chr(256 + i) for i, b in enumerate(rest)})
    return [letters[b] for b in range(256)]


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def strings(values):
    return struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values))


def metadata():
    letters = alphabet()
    merges = [a + " " + b for a, b in ("th", "in", "er", "an", "on", "re")]
    tokens = SPECIAL + letters + [m.replace(" ", "") for m in merges]
    kinds = [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL))
    number = lambda n: (U32, struct.pack("<I", n))
    return tokens, {
        "general.architecture": (STRING, text("llama")),
        "general.name": (STRING, text("tiny")),
        "llama.block_count": number(LAYERS),
        "llama.context_length": number(CONTEXT),
        "llama.embedding_length": number(WIDTH),
        "llama.feed_forward_length": number(FEED_FORWARD),
        "llama.attention.head_count": number(HEADS),
        "llama.attention.head_count_kv": number(KV_HEADS),
        "llama.rope.dimension_count": number(WIDTH // HEADS),
        "llama.rope.freq_base": (F32, struct.pack("<f", 10000.0)),
        "llama.attention.layer_norm_rms_epsilon": (F32, struct.pack("<f", 1e-5)),
        "llama.vocab_size": number(len(tokens)),
        "tokenizer.ggml.model": (STRING, text("gpt2")),
        "tokenizer.ggml.pre": (STRING, text("smollm")),
        "tokenizer.ggml.tokens": (ARRAY, strings(tokens)),
        "tokenizer.ggml.token_type": (ARRAY, struct.pack("<IQ%di" % len(kinds), I32, len(kinds),
                                                         *kinds)),
        "tokenizer.ggml.merges": (ARRAY, strings(merges)),
        "tokenizer.ggml.bos_token_id": number(1),
        "tokenizer.ggml.eos_token_id": number(2),
        "tokenizer.ggml.padding_token_id": number(2),
        "tokenizer.ggml.add_bos_token": (BOOL, b"\0"),
        "tokenizer.chat_template": (STRING, text(CHATML)),
    }


def values(rng, kind, count, spread):
    """Random weights, uniform in about +-spread, in the bytes of a type."""
    blocks = count // 32
    if kind == TYPE_F32:
        return struct.pack("<%df" % count, *(rng.uniform(-spread, spread) for _ in range(count)))
    if kind == TYPE_Q8_0:
        scale = struct.pack("<e", spread / 127)
        # Any byte is a code; -128 is as good as the others.
        return b"".join(scale + rng.randbytes(32) for _ in range(blocks))
    scale = struct.pack("<ee", 2 * spread / 15, -spread)
    return b"".join(scale + rng.randbytes(16) for _ in range(blocks))


def tensors(rng, vocabulary):
    """(name, dims, type, bytes)"""
    def matrix(name, inputs, outputs, kind=TYPE_Q4_1):
        return (name, (inputs, outputs), kind,
                values(rng, kind, inputs * outputs, (3 / inputs) ** 0.5))

    def norm(name):
        return (name, (WIDTH,), TYPE_F32, struct.pack("<%df" % WIDTH, *[1.0] * WIDTH))

    kv_width = WIDTH // HEADS * KV_HEADS
    yield matrix("token_embd.weight", WIDTH, vocabulary, TYPE_Q8_0)
    for layer in range(LAYERS):
        block = "blk.%d." % layer
        yield norm(block + "attn_norm.weight")
        yield norm(block + "ffn_norm.weight")
        yield matrix(block + "attn_q.weight", WIDTH, WIDTH)
        yield matrix(block + "attn_k.weight", WIDTH, kv_width)
        yield matrix(block + "attn_v.weight", WIDTH, kv_width)
        yield matrix(block + "attn_output.weight", WIDTH, WIDTH)
        yield matrix(block + "ffn_gate.weight", WIDTH, FEED_FORWARD)
        yield matrix(block + "ffn_up.weight", WIDTH, FEED_FORWARD)
        yield matrix(block + "ffn_down.weight", FEED_FORWARD, WIDTH, TYPE_F32)
    yield norm("output_norm.weight")


def write(path, change_metadata=None, change_tensors=None, seed=1):
    """change_metadata(dict) and change_tensors(list) edit what is written."""
    rng = random.Random(seed)
    tokens, keys = metadata()
    parts = list(tensors(rng, len(tokens)))
    if change_metadata:
        change_metadata(keys)
    if change_tensors:
        parts = change_tensors(parts)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(parts), len(keys))
    for key, (kind, value) in keys.items():
        head += text(key) + struct.pack("<I", kind) + value
    offset, body = 0, b""
    for name, dims, kind, content in parts:
        head += text(name) + struct.pack("<I%dQIQ" % len(dims), len(dims), *dims, kind, offset)
        body += content + b"\0" * (-len(content) % 32)
        offset = len(body)
    with open(path, "wb") as file:
        file.write(head + b"\0" * (-len(head) % 32) + body)


if __name__ == "__main__":
    write(sys.argv[1])
