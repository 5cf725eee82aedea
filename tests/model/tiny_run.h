// SPDX-License-Identifier: Apache-2.0
// A tiny model on disk, loaded, with a random adapter and batches: the ground of most model tests.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "model/llama.h"
#include "model/reference.h"
#include "support/paths.h"
#include "support/tiny_model.h"

namespace nibble::test {

struct Batch {
  std::vector<std::int32_t> ids, targets;
  std::vector<std::int64_t> starts{0};

  model::TokenBatch view() const { return {ids, targets, starts}; }
  // Sequence s alone.
  Batch sequence(std::size_t s) const {
    Batch one;
    one.ids.assign(ids.begin() + starts[s], ids.begin() + starts[s + 1]);
    one.targets.assign(targets.begin() + starts[s], targets.begin() + starts[s + 1]);
    one.starts.push_back(starts[s + 1] - starts[s]);
    return one;
  }
};

// Random sequences of these lengths; about `masked` of the positions have no target.
inline Batch random_batch(const std::vector<std::int64_t>& lengths, std::int64_t vocabulary,
                          double masked, std::uint64_t seed = 7) {
  Batch batch;
  std::uint64_t i = 0;
  const auto token = [&] {
    return static_cast<std::int32_t>((golden_bits(seed, 1, i++) >> 20) %
                                     static_cast<std::uint64_t>(vocabulary));
  };
  for (const std::int64_t length : lengths) {
    for (std::int64_t t = 0; t < length; ++t) {
      batch.ids.push_back(token());
      const std::int32_t target = token();
      const double draw = (static_cast<double>(golden_uniform(seed, 2, i)) + 1) / 2;
      batch.targets.push_back(draw < masked ? -1 : target);
    }
    batch.starts.push_back(batch.starts.back() + length);
  }
  return batch;
}

// Every A and B away from zero, so that every gradient is.
inline void randomise(model::LoraAdapter& adapter, std::uint64_t seed = 3) {
  std::uint64_t stream = 0;
  for (model::LoraPair& pair : adapter.pairs()) {
    const std::int64_t r = adapter.config().rank;
    const float bound_a = 1.0F / std::sqrt(static_cast<float>(pair.inputs));
    const float bound_b = 0.3F / std::sqrt(static_cast<float>(r));
    for (std::int64_t i = 0; i < r * pair.inputs; ++i) {
      pair.a[i] = bound_a * golden_uniform(seed, stream, static_cast<std::uint64_t>(i));
    }
    for (std::int64_t i = 0; i < r * pair.outputs; ++i) {
      pair.b_transposed[i] =
          bound_b * golden_uniform(seed, stream + 1, static_cast<std::uint64_t>(i));
    }
    stream += 2;
  }
  adapter.refresh();
}

// The adapter's parameters for the reference, B in its usual orientation.
inline ReferenceAdapter reference_of(const model::LoraAdapter& adapter) {
  ReferenceAdapter out;
  out.rank = adapter.config().rank;
  out.scale = adapter.config().alpha / static_cast<double>(out.rank);
  for (const model::LoraPair& pair : adapter.pairs()) {
    ReferencePair& to = out.pairs["blk." + std::to_string(pair.layer) + "." +
                                  kLinearNames[static_cast<int>(pair.which)]];
    to.a.assign(pair.a, pair.a + out.rank * pair.inputs);
    for (std::int64_t o = 0; o < pair.outputs; ++o) {
      for (std::int64_t r = 0; r < out.rank; ++r) {
        to.b.push_back(static_cast<double>(pair.b_transposed[r * pair.outputs + o]));
      }
    }
  }
  return out;
}

// All gradients one after the other.
inline std::vector<float> gradients(const model::LoraAdapter& adapter) {
  std::vector<float> out;
  const std::int64_t r = adapter.config().rank;
  for (const model::LoraPair& pair : adapter.pairs()) {
    out.insert(out.end(), pair.a_grad, pair.a_grad + r * pair.inputs);
    out.insert(out.end(), pair.b_transposed_grad, pair.b_transposed_grad + r * pair.outputs);
  }
  return out;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

inline double norm_of(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) {
    sum += static_cast<double>(value) * static_cast<double>(value);
  }
  return std::sqrt(sum);
}

struct TinyRun {
  explicit TinyRun(const TinyShape& shape, std::int64_t rank = 4, float dropout = 0,
                   backend::DType act = backend::DType::kF32, bool checkpointing = false)
      : tiny(shape) {
    tiny.write(directory.path() / "tiny.gguf");
    file = std::make_unique<formats::GgufFile>(directory.path() / "tiny.gguf");
    llama = std::make_unique<model::Llama>(*file, act, checkpointing);
    model::LoraConfig config;
    config.rank = rank;
    config.alpha = 1.5 * static_cast<double>(rank);
    config.dropout = dropout;
    adapter = std::make_unique<model::LoraAdapter>(llama->config(), config, 5);
    randomise(*adapter);
  }

  // Gradients of one pass from zero, and its loss.
  std::vector<float> pass(const Batch& batch, const model::TrainPass& train, double* loss) {
    adapter->zero_grad();
    *loss = llama->loss_and_grad(batch.view(), *adapter, train);
    return gradients(*adapter);
  }

  TemporaryDirectory directory;
  TinyModel tiny;
  std::unique_ptr<formats::GgufFile> file;
  std::unique_ptr<model::Llama> llama;
  std::unique_ptr<model::LoraAdapter> adapter;
};

}  // namespace nibble::test
