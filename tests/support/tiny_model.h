// SPDX-License-Identifier: Apache-2.0
// A small random llama model in a GGUF of its own: any shape, any tensor type per matrix. The bytes
// are made by quantisers of the tests' own, and what they stand for is kept in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "formats/gguf.h"
#include "support/golden_rng.h"

namespace nibble::test {

using math::GgmlType;

// ---- quantisers ---------------------------------------------------------------------------------

// binary16, round to nearest; |x| < 65504.
inline std::uint16_t half_bits(double x) {
  int exponent = 0;
  std::frexp(x, &exponent);
  exponent = std::max(exponent, -13);  // below are the subnormals
  const auto mantissa = static_cast<int>(std::lrint(std::ldexp(std::fabs(x), 11 - exponent)));
  return static_cast<std::uint16_t>((x < 0 ? 0x8000 : 0) + ((exponent + 13) * 1024) + mantissa);
}
inline double half_value(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

struct Encoded {
  std::vector<std::byte> bytes;
  std::vector<double> values;  // what the bytes stand for

  template <class T>
  void put(T value) {
    const auto* from = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), from, from + sizeof value);
  }
};

// 32 values as one block of Q4_0, Q4_1 or Q8_0.
inline void encode_block(GgmlType type, const double* x, Encoded& out) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const double top = std::max(std::fabs(*low), std::fabs(*high));
  const bool has_minimum = type == GgmlType::kQ4_1;
  const int bias = type == GgmlType::kQ4_0 ? 8 : 0;
  const int last = type == GgmlType::kQ8_0 ? 127 : 15, first = type == GgmlType::kQ8_0 ? -127 : 0;
  const double range =
      has_minimum ? (*high - *low) / 15 : top / (type == GgmlType::kQ8_0 ? 127 : 7);
  const std::uint16_t scale_bits = half_bits(range);
  const std::uint16_t minimum_bits = has_minimum ? half_bits(*low) : std::uint16_t{0};
  const double d = half_value(scale_bits), m = half_value(minimum_bits);
  int codes[32];
  for (int j = 0; j < 32; ++j) {
    codes[j] = d == 0
                   ? bias
                   : std::clamp(static_cast<int>(std::lrint((x[j] - m) / d)) + bias, first, last);
    out.values.push_back(static_cast<double>(static_cast<float>(d * (codes[j] - bias) + m)));
  }
  out.put(scale_bits);
  if (has_minimum) {
    out.put(minimum_bits);
  }
  for (int j = 0; j < (type == GgmlType::kQ8_0 ? 32 : 16); ++j) {
    out.put(static_cast<std::uint8_t>(type == GgmlType::kQ8_0 ? codes[j]
                                                              : codes[j] + 16 * codes[j + 16]));
  }
}

inline Encoded encode(GgmlType type, const std::vector<double>& x) {
  Encoded out;
  if (math::ggml_type_info(type).block_elements != 1) {
    for (std::size_t i = 0; i < x.size(); i += 32) {
      encode_block(type, &x[i], out);
    }
    return out;
  }
  for (const double value : x) {
    if (type == GgmlType::kF16) {
      out.put(half_bits(value));
      out.values.push_back(half_value(half_bits(value)));
      continue;
    }
    auto single = static_cast<float>(value);
    if (type == GgmlType::kBF16) {  // truncated: which of the neighbours does not matter here
      std::uint32_t bits;
      std::memcpy(&bits, &single, sizeof bits);
      out.put(static_cast<std::uint16_t>(bits >> 16));
      bits &= 0xffff0000U;
      std::memcpy(&single, &bits, sizeof bits);
    } else {
      out.put(single);
    }
    out.values.push_back(static_cast<double>(single));
  }
  return out;
}

// ---- the model ----------------------------------------------------------------------------------

// Quantised types need widths (width, feed_forward, heads * head_dim) that are multiples of 32.
struct TinyShape {
  std::int64_t layers = 2, width = 32, feed_forward = 64, heads = 4, kv_heads = 2, head_dim = 8;
  std::int64_t vocabulary = 50, context = 512;
  bool tied = true;
  GgmlType type = GgmlType::kF32;         // of every matrix not in `types`
  std::map<std::string, GgmlType> types;  // "attn_q", "ffn_down", "token_embd", "output"...
  std::uint64_t seed = 1;
};

struct TinyTensor {
  GgmlType type;
  std::vector<std::uint64_t> dims;  // ne order
  Encoded data;
};

class TinyModel {
 public:
  using Key = std::variant<std::uint32_t, float, std::string>;
  // A test changes these before write() to have something refused.
  std::map<std::string, Key> keys;
  std::map<std::string, TinyTensor> tensors;

  explicit TinyModel(const TinyShape& shape) : shape_(shape) {
    const auto u32 = [](std::int64_t value) { return static_cast<std::uint32_t>(value); };
    keys = {{"general.architecture", "llama"},
            {"general.name", "tiny"},
            {"llama.block_count", u32(shape.layers)},
            {"llama.embedding_length", u32(shape.width)},
            {"llama.feed_forward_length", u32(shape.feed_forward)},
            {"llama.attention.head_count", u32(shape.heads)},
            {"llama.attention.head_count_kv", u32(shape.kv_heads)},
            {"llama.attention.key_length", u32(shape.head_dim)},
            {"llama.rope.dimension_count", u32(shape.head_dim)},
            {"llama.context_length", u32(shape.context)},
            {"llama.vocab_size", u32(shape.vocabulary)},
            {"llama.attention.layer_norm_rms_epsilon", 1e-5F},
            {"llama.rope.freq_base", 10000.0F}};
    const std::int64_t query = shape.heads * shape.head_dim, key = shape.kv_heads * shape.head_dim;
    add_matrix("token_embd", shape.width, shape.vocabulary, 1);
    add_norm("output_norm");
    if (!shape.tied) {
      add_matrix("output", shape.width, shape.vocabulary, 2);
    }
    for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
      const std::string blk = "blk." + std::to_string(layer) + ".";
      add_norm(blk + "attn_norm");
      add_norm(blk + "ffn_norm");
      add_matrix(blk + "attn_q", shape.width, query, 1.5);
      add_matrix(blk + "attn_k", shape.width, key, 1.5);
      add_matrix(blk + "attn_v", shape.width, key, 1);
      add_matrix(blk + "attn_output", query, shape.width, 1);
      add_matrix(blk + "ffn_gate", shape.width, shape.feed_forward, 1);
      add_matrix(blk + "ffn_up", shape.width, shape.feed_forward, 1);
      add_matrix(blk + "ffn_down", shape.feed_forward, shape.width, 1);
    }
  }

  const TinyShape& shape() const { return shape_; }
  // Row-major [outputs, inputs]; `name` without ".weight".
  const std::vector<double>& values(const std::string& name) const {
    return tensors.at(name + ".weight").data.values;
  }

  // `more` may add keys and tensors of its own (a tokenizer).
  void write(const std::filesystem::path& path,
             const std::function<void(formats::GgufWriter&)>& more = {}) const {
    formats::GgufWriter writer;
    for (const auto& [key, value] : keys) {
      if (const auto* number = std::get_if<std::uint32_t>(&value)) {
        writer.add_u32(key, *number);
      } else if (const auto* real = std::get_if<float>(&value)) {
        writer.add_f32(key, *real);
      } else {
        writer.add_string(key, std::get<std::string>(value));
      }
    }
    if (more) {
      more(writer);
    }
    for (const auto& [name, tensor] : tensors) {
      writer.add_tensor(name, tensor.type, tensor.dims, tensor.data.bytes);
    }
    writer.write(path);
  }

  void add(const std::string& name, GgmlType type, std::vector<std::uint64_t> dims,
           const std::vector<double>& values) {
    tensors[name] = {type, std::move(dims), encode(type, values)};
  }

 private:
  std::vector<double> random(std::size_t n, double factor, double middle) {
    ++stream_;
    std::vector<double> values(n);
    for (std::size_t i = 0; i < n; ++i) {
      values[i] = middle + factor * static_cast<double>(golden_uniform(shape_.seed, stream_, i));
    }
    return values;
  }
  void add_norm(const std::string& name) {
    add(name + ".weight", GgmlType::kF32, {static_cast<std::uint64_t>(shape_.width)},
        random(static_cast<std::size_t>(shape_.width), 0.4, 1));
  }
  // Uniform with standard deviation gain / sqrt(inputs).
  void add_matrix(const std::string& name, std::int64_t inputs, std::int64_t outputs, double gain) {
    const std::string last = name.substr(name.rfind('.') + 1);
    const auto found = shape_.types.find(last);
    add(name + ".weight", found == shape_.types.end() ? shape_.type : found->second,
        {static_cast<std::uint64_t>(inputs), static_cast<std::uint64_t>(outputs)},
        random(static_cast<std::size_t>(inputs * outputs),
               gain * std::sqrt(3.0 / static_cast<double>(inputs)), 0));
  }

  TinyShape shape_;
  std::uint64_t stream_ = 100;
};

}  // namespace nibble::test
