# SPDX-License-Identifier: Apache-2.0
"""A llama GGUF as Hugging Face's LlamaForCausalLM in float32, for the oracles."""
import numpy
import torch
from gguf import GGUFReader, dequantize
from transformers import LlamaConfig, LlamaForCausalLM

NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
         "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}
TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
       "output.weight": "lm_head.weight"}


def halves(weight, heads):
    """llama.cpp keeps the rows of q and k in pairs for its rotation, Hugging Face in halves."""
    rows, width = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def load(path):
    reader = GGUFReader(path)

    def key(name):
        return reader.fields["llama." + name].contents()

    heads, kv_heads = key("attention.head_count"), key("attention.head_count_kv")
    state = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        weight = weight.reshape([int(n) for n in tensor.shape[::-1]])
        if tensor.name in TOP:
            name = TOP[tensor.name]
        else:
            _, layer, part, _ = tensor.name.split(".")
            if part in ("attn_q", "attn_k"):
                weight = halves(weight, heads if part == "attn_q" else kv_heads)
            name = "model.layers.%s.%s.weight" % (layer, NAMES[part])
        state[name] = torch.from_numpy(numpy.ascontiguousarray(weight))
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=state["model.embed_tokens.weight"].shape[0],
        hidden_size=key("embedding_length"), intermediate_size=key("feed_forward_length"),
        num_hidden_layers=key("block_count"), num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=key("context_length"),
        rms_norm_eps=key("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": key("rope.freq_base")},
        tie_word_embeddings="lm_head.weight" not in state, attention_bias=False, mlp_bias=False))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model.eval()
