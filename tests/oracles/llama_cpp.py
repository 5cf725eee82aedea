# SPDX-License-Identifier: Apache-2.0
"""llama.cpp, as the PyPI package xllamacpp has it, for the oracles."""
import json
import urllib.request

import numpy
import xllamacpp
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize


def write_f32_copy(source, target):
    """The same model with every tensor in F32, so that llama.cpp computes with the very weights
    that nibble decodes (on quantised ones it rounds activations to 8 bits)."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind, inner = field.types[0], None
        if kind == GGUFValueType.ARRAY:
            inner = field.types[-1]
        value = 0 if key == "general.file_type" else field.contents()
        writer.add_key_value(key, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        writer.add_tensor(tensor.name, values.reshape([int(n) for n in tensor.shape[::-1]]),
                          raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """A model with at most one LoRA-GGUF, computing as exactly as llama.cpp can: KV cache in F32, no
    flash attention."""

    def __init__(self, model, adapter=None, context=1024):
        params = xllamacpp.CommonParams()
        params.model.path = model
        params.n_ctx = context
        params.n_parallel = 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.warmup = False
        params.verbosity = 0
        if adapter:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
        self.server = xllamacpp.Server(params)
        # A proxy of the environment is not for this machine's own address.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def post(self, path, question):
        request = urllib.request.Request(self.server.listening_address + path,
                                         data=json.dumps(question).encode(),
                                         headers={"Content-Type": "application/json"})
        with self.opener.open(request) as answer:
            return json.load(answer)

    def tokenize(self, text):
        return self.post("/tokenize", {"content": text, "parse_special": True})["tokens"]

    def chat(self, messages):
        return self.post("/apply-template", {"messages": messages})["prompt"]

    def _next(self, ids, **more):
        answer = self.post("/completion", {"prompt": ids, "n_predict": 1, "temperature": 0, **more})
        return answer["completion_probabilities"][0]

    def top(self, ids, count):
        """{id: log-probability} of the likeliest next tokens."""
        found = self._next(ids, n_probs=count, cache_prompt=False)["top_logprobs"]
        return {entry["id"]: entry["logprob"] for entry in found}

    def completion_loss(self, prompt, completion, scale):
        """Sum of -log p of the completion's tokens after the prompt. `scale` weighs the adapter."""
        ids, total = list(prompt), 0.0
        for token in completion:
            # The bias decides what is sampled; the log-probability is reported without it.
            entry = self._next(ids, n_probs=1, cache_prompt=True, logit_bias=[[token, 1000.0]],
                               lora=[{"id": 0, "scale": scale}])
            assert entry["id"] == token, (entry, token)
            total -= entry["logprob"]
            ids.append(token)
        return total
